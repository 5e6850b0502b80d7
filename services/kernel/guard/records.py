"""Numbers this process's access records and has them made durable, or says that nothing may be released."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL, AccessRecord, DataReference, Disclosure, RecordKind
from planier.common.v1.release_pb2 import Receipt, StorePosition

from services.kernel.clock import Clock, Ids, microseconds
from services.kernel.errors import Problem, unavailable
from services.kernel.guard.ports import Recorder
from services.kernel.guard.receipts import is_receipt_of
from services.kernel.store.base import Position
from services.kernel.telemetry import Telemetry

# A record names what was asked for, it is not a copy of it; the log takes 64 KiB a record.
MAX_REFERENCES = 50
MAX_SOURCES = 100
MAX_KINDS = 200
MAX_RECIPIENTS = 20

# What a caller sees where our own code failed; the record says no more.
INTERNAL = Problem(grpc.StatusCode.INTERNAL, "INTERNAL", "the request could not be served")
Monotonic = Callable[[], float]


class Ledger:
    """Gives records their number and asks the recorder for each one's receipt."""

    def __init__(self, recorder: Recorder, instance: str, clock: Clock, ids: Ids, telemetry: Telemetry) -> None:
        self._recorder = recorder
        self._instance = instance
        self._clock = clock
        self._ids = ids
        self._telemetry = telemetry
        self._sequence = 0

    def number(self, record: AccessRecord) -> AccessRecord:
        """Gives the record its place in this process's sequence, and its time where it has none yet."""
        self._sequence += 1
        record.instance = self._instance
        record.sequence = self._sequence
        if not record.HasField("occurred_at"):
            note_moment(record.occurred_at, self._clock.now())
        return record

    async def write(self, record: AccessRecord) -> Receipt:
        """Numbers a new record and makes it durable.

        Raises:
            Problem: UNAVAILABLE RECORD_UNAVAILABLE or INTERNAL RECORD_REFUSED: nothing may be released.
        """
        return await self.send(self.number(record))

    async def send(self, record: AccessRecord) -> Receipt:
        """`write` for a record that already has its number: a later attempt carries the same bytes."""
        span = self._telemetry.begin("guard.record")
        complete = False
        try:
            receipt = await self._recorder.record(record)
            complete = is_receipt_of(receipt, record.record_id)
        except Exception as error:
            if isinstance(error, Problem) and error.reason == "RECORD_REFUSED":
                raise
            raise record_unavailable() from error
        finally:
            span.end("OK" if complete else "RECORD_UNAVAILABLE", fault=not complete)
        if not complete:
            raise record_unavailable()
        return receipt

    def continuing(self, record: AccessRecord, kind: RecordKind.ValueType) -> AccessRecord:
        """A new record of the same access, which names the one that it continues."""
        following = AccessRecord()
        following.CopyFrom(record)
        following.ClearField("occurred_at")
        following.record_id = self._ids.new()
        following.kind = kind
        following.continues_record_id = record.continues_record_id or record.record_id
        return following

    async def write_refusal(self, record: AccessRecord, problem: Problem) -> Problem:
        """Records that the access was refused; returns the problem as the caller will see it, naming the record.

        Raises:
            Problem: RECORD_UNAVAILABLE in the place of a refusal that could not be recorded.
        """
        record.kind = RECORD_KIND_REFUSAL
        record.refusal_reason = problem.reason
        if not record.decision.HasField("access_state"):
            # No decision of access: the guard's own clause. Where there is one, recheck compares it as it was made.
            record.decision.clauses[:] = [problem.clause] if problem.clause else []
        elif problem.clause and problem.clause not in record.decision.clauses:
            record.data.filters["refusal_clause"] = problem.clause
        await self.write(record)
        return naming_record(problem, record.record_id)

    async def refuse(self, record: AccessRecord, error: Exception) -> None:
        """Records that the access was refused; for a Problem, raises it with the record's id.

        Returns where the error is a fault of our own, of which the record says no more; the caller raises it again.

        Raises:
            Problem: the refusal, or RECORD_UNAVAILABLE in its place.
        """
        if isinstance(error, Problem):
            raise await self.write_refusal(record, error) from error
        await self.write_refusal(record, INTERNAL)


def naming_record(problem: Problem, record_id: str) -> Problem:
    """The same problem, telling its caller which record states it."""
    metadata = {**problem.metadata, "record_id": record_id}
    return Problem(problem.code, problem.reason, problem.message, problem.clause, problem.violations, metadata)


def record_unavailable() -> Problem:
    """The one answer where an access could not be recorded."""
    return unavailable("RECORD_UNAVAILABLE", "the access could not be recorded, so nothing is released")


def describe_data(
    record: AccessRecord, data: DataReference, position: Position | None, disclosure: Disclosure | None = None
) -> None:
    """Puts into the record what its handler read or writes, cut to the record's bounds, and who receives it."""
    described = record.data
    asked = () if data.sources else tuple(described.sources)
    described.CopyFrom(data)
    if asked:
        described.sources.extend(asked)
    if position is not None:
        described.data_state.CopyFrom(store_position(position))
    if disclosure is not None:
        record.disclosure.CopyFrom(disclosure)
        del record.disclosure.recipients[MAX_RECIPIENTS:]
    for names, most in (
        (described.references, MAX_REFERENCES),
        (described.sources, MAX_SOURCES),
        (described.kinds, MAX_KINDS),
    ):
        if len(names) > most:
            del names[most:]


@lru_cache(maxsize=16)
def store_position(position: Position) -> StorePosition:
    """As contracts carry it; for whoever copies it."""
    return StorePosition(store_id=position.store_id, position=position.position, digest=position.digest)


def timestamp(moment: datetime) -> Timestamp:
    """As contracts carry it, exact to the microsecond."""
    stamp = Timestamp()
    note_moment(stamp, moment)
    return stamp


def note_moment(stamp: Timestamp, moment: datetime) -> None:
    """Writes a moment where a message holds it."""
    stamp.seconds, rest = divmod(microseconds(moment), 1_000_000)
    stamp.nanos = rest * 1000
