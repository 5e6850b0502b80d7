"""What authorises an erasure: a record of the log itself that states it, made by the log's own retention."""

from datetime import timedelta

from planier.audit.v1.record_pb2 import RECORD_KIND_ATTEMPT, AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_ERASE

ACCESS_LOG = "access-log"
# The filter in which a statement of erasure names its indices, as "0-499,502-502".
ERASED = "indices"
# Who erases; a record that came in from another service always names an RPC of that service.
SYSTEM = "spiffe://planier/audit"
# The shortest schedule (services/audit/domain.py), less what calendar months differ by.
_LEAST = timedelta(days=364)


def is_statement(record: AccessRecord) -> bool:
    """Whether the log's retention made this record before it erased: such records are kept for good."""
    return (
        record.operation == OPERATION_ERASE
        and record.resource == ACCESS_LOG
        and record.kind == RECORD_KIND_ATTEMPT
        and not record.rpc
        and record.actor.certificate_identity == SYSTEM
    )


def states_erasure(record: AccessRecord, index: int) -> bool:
    """Whether this record authorises the erasure of an index: it names it among what was past its time."""
    if not is_statement(record):
        return False
    # Subtraction of whole seconds, as a record may hold an instant that no calendar knows.
    if record.occurred_at.seconds - record.data.period_end.seconds < _LEAST.total_seconds():
        return False
    for run in record.data.filters.get(ERASED, "").split(","):
        first, _, last = run.partition("-")
        if first.isdecimal() and last.isdecimal() and int(first) <= index <= int(last):
            return True
    return False
