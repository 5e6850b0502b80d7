"""The bytes that leave: the answer as it was digested, then its release mark. Only a receipt makes a mark."""

from google.protobuf.message import Message
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt, ReleaseMark

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
    decision = record.decision
    mark = ReleaseMark(
        receipt=receipt,
        instruments=decision.permitted_by,
        withheld=decision.withheld,
        access_state=decision.access_state if decision.HasField("access_state") else None,
        data_state=None if data_position is None else store_position(data_position),
        policy_hash=decision.policy_hash,
    )
    return method.response_type(release=mark).SerializeToString()
