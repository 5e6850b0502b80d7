"""The log's own retention: what is past its time loses record and salt, and every proof stands.

The erasure is recorded first, in the log itself; what it erases cites that record. Such records are kept: they name
nobody, and without them an erasure could not be told from a loss.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from planier.audit.v1.record_pb2 import RECORD_KIND_ATTEMPT, AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_ERASE
from planier.common.v1.release_pb2 import Receipt
from sqlalchemy import select

from services.audit.domain import Governance, months_before
from services.audit.entry import parse_record
from services.audit.erasure import ACCESS_LOG, ERASED, SYSTEM, is_statement
from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.log import AccessLog
from services.audit.schema import BODIES, DERIVED
from services.kernel.clock import Clock, Ids, from_microseconds, microseconds
from services.kernel.guard.records import timestamp
from services.kernel.store.engine import scrub

# Erased together: one transaction, one record that states it.
BATCH = 500
# The log is in the order of recording, and a record is of at most some seconds before; a summary of a minute.
_DISORDER = timedelta(days=1)
_SCRUB_MS = 2_000

Record = Callable[[AccessRecord], Awaitable[Receipt]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """Indices of one batch whose time is over, and where to go on from; None where nothing later can be due."""

    indices: tuple[int, ...]
    next: int | None


class Retention:
    """Erases what both officers' schedule no longer keeps. `record` makes a record of the service's own durable."""

    def __init__(
        self, log: AccessLog, governing: Governing, integrity: Integrity, record: Record, clock: Clock, ids: Ids
    ) -> None:
        self._log = log
        self._governing = governing
        self._integrity = integrity
        self._record = record
        self._clock = clock
        self._ids = ids
        # Before it everything is erased already.
        self._oldest = 0

    async def run(self) -> int:
        """Erases everything that is due now; how many records that was.

        Raises:
            Problem: RECORD_UNAVAILABLE: nothing is erased that is not recorded first.
        """
        governance, _ = await asyncio.to_thread(self._governing.current)
        await asyncio.to_thread(self._log.catch_up)
        cutoff = months_before(self._clock.now(), governance.months)
        total = 0
        following: int | None = self._oldest
        while following is not None:
            due = await asyncio.to_thread(self._due, following, cutoff, governance)
            if due.indices:
                receipt = await self._record(self._statement(due.indices, cutoff, governance))
                await asyncio.to_thread(self._log.erase, due.indices, receipt.index)
                total += len(due.indices)
            following = due.next
        if total:
            await asyncio.to_thread(scrub, self._log.engine, _SCRUB_MS)
            _log.info("records past their time were erased", extra={"records": total})
        return total

    def _due(self, first: int, cutoff: datetime, governance: Governance) -> Due:
        latest = microseconds(cutoff + _DISORDER)
        query = (
            select(DERIVED.c.idx, DERIVED.c.occurred_at, BODIES.c.record)
            .join(BODIES, BODIES.c.idx == DERIVED.c.idx)
            .where(DERIVED.c.idx >= first, DERIVED.c.occurred_at.is_not(None))
            .order_by(DERIVED.c.idx)
            .limit(BATCH)
        )
        with self._log.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return Due((), None)
        if first == self._oldest:
            self._oldest = rows[0].idx
        # What is altered is evidence, and is not erased over.
        self._integrity.require(rows[0].idx, rows[-1].idx + 1)
        indices = tuple(row.idx for row in rows if self._is_due(row.occurred_at, row.record, cutoff, governance))
        over = any(row.occurred_at > latest for row in rows)
        return Due(indices, None if over or len(rows) < BATCH else rows[-1].idx + 1)

    def _is_due(self, occurred_us: int, content: bytes | None, cutoff: datetime, governance: Governance) -> bool:
        occurred = from_microseconds(occurred_us)
        if occurred >= cutoff or content is None or governance.is_held(occurred):
            return False
        record = parse_record(content)
        return record is not None and not is_statement(record)

    def _statement(self, indices: tuple[int, ...], cutoff: datetime, governance: Governance) -> AccessRecord:
        record = AccessRecord(
            record_id=self._ids.new(), kind=RECORD_KIND_ATTEMPT, operation=OPERATION_ERASE, resource=ACCESS_LOG
        )
        record.actor.certificate_identity = SYSTEM
        record.data.count = len(indices)
        record.data.period_end.CopyFrom(timestamp(cutoff))
        record.data.filters[ERASED] = ",".join(f"{first}-{last}" for first, last in runs(indices))
        record.data.filters["retention_months"] = str(governance.months)
        approved = [one.proposal_id for one in governance.proposals.values() if one.approved_by]
        record.data.references.extend(approved[-1:])
        return record


def runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indices as (first, last) of consecutive ones."""
    start = previous = indices[0]
    for index in indices[1:]:
        if index != previous + 1:
            yield start, previous
            start = index
        previous = index
    yield start, previous
