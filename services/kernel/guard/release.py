"""The bytes that leave: the answer as it was digested, then its release mark. Only a receipt makes a mark."""

from typing import Any

from google.protobuf.message import Message
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt

from services.kernel.guard.records import store_position
from services.kernel.rpc.call import Method
from services.kernel.store.base import Position


def serialised(method: Method, answer: Message) -> bytes:
    """The answer's bytes, without any mark: what the record's digest is taken over.

    Raises:
        TypeError: the handler returned another type, or made itself a mark.
    """
    if type(answer) is not method.response_type:
        raise TypeError("a handler returns its method's response type")
    if answer.HasField("release"):
        raise TypeError("only the guard marks an answer")
    return answer.SerializeToString()


def marked(method: Method, receipt: Receipt, record: AccessRecord, data_position: Position | None) -> bytes:
    """A message with only field 15; appended to the answer's bytes, a reader merges the two (protobuf encoding)."""
    answer: Any = method.response_type()
    decision, mark = record.decision, answer.release
    mark.receipt.CopyFrom(receipt)
    mark.instruments.extend(decision.permitted_by)
    mark.withheld.extend(decision.withheld)
    mark.policy_hash = decision.policy_hash
    if decision.HasField("access_state"):
        mark.access_state.CopyFrom(decision.access_state)
    if data_position is not None:
        mark.data_state.CopyFrom(store_position(data_position))
    marked_only: bytes = answer.SerializeToString()
    return marked_only
