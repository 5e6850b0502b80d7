"""What the guard needs from elsewhere: who decides, and who writes down; remote in most services, local in one each."""

from dataclasses import dataclass
from typing import Protocol

from planier.access.v1.access_pb2 import CheckItem, CheckVerdict
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt, StorePosition


@dataclass(frozen=True, slots=True)
class Decision:
    """One verdict, with the state of access and the policy set that it was computed from."""

    verdict: CheckVerdict
    state: StorePosition
    policy_hash: str
    # What computed it, and with which time-zone data: for whoever computes it again.
    engine: str = ""
    time_zone_data: str = ""


class Checker(Protocol):
    """Decides one request; implementations carry all concurrent items in one message."""

    async def check(self, item: CheckItem) -> Decision:
        """The decision on the item, its verdict bearing the item's `check_id`.

        Raises:
            Problem: UNAVAILABLE CHECK_UNAVAILABLE; whatever else it raises, the guard takes for the same.
        """
        ...


class Recorder(Protocol):
    """Makes one record durable in the access log."""

    async def record(self, record: AccessRecord) -> Receipt:
        """The log's receipt for this record, given only once the record is durable and in the tree.

        Idempotent by record id. The caller must not change the record while it waits.

        Raises:
            Problem: UNAVAILABLE RECORD_UNAVAILABLE, or INTERNAL RECORD_REFUSED where the log holds other bytes.
        """
        ...
