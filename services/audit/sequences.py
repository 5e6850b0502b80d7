"""Which numbers of which processes no record bears: each counts its records from 1 (kernel/guard/records.py)."""

import math
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from services.audit.derived import derived_until
from services.audit.schema import DERIVED

# A record is written within 5 s of its number or never (services/kernel/guard/remote.py); a summary of strangers'
# attempts may wait for the log to come back.
OVERDUE_SECONDS = 120.0
_SCAN = 20_000


@dataclass(slots=True)
class _Process:
    """What the log holds of one process's count: `missing` are half-open runs, each with when it was first missed."""

    highest: int
    erased: int
    missing: dict[int, tuple[int, float]] = field(default_factory=dict)

    def add(self, sequence: int, erased: int, now: float) -> None:
        if sequence > self.highest:
            # What was erased in between may be what bore the numbers in between.
            if sequence > self.highest + 1 and erased == self.erased:
                self.missing[self.highest + 1] = (sequence, now)
            self.highest, self.erased = sequence, erased
            return
        for start, (end, since) in list(self.missing.items()):
            if start <= sequence < end:
                del self.missing[start]
                for rest in ((start, sequence), (sequence + 1, end)):
                    if rest[0] < rest[1]:
                        self.missing[rest[0]] = (rest[1], since)


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers of a process that are overdue: how many, and the first."""

    instance: str
    missing: int
    first: int


class Sequences:
    """Numbers that processes used and no record bears; follows the log from its first record."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._next = 0
        self._erased = 0

    def follow(self, connection: Connection, size: int, now: float) -> None:
        """Reads what was recorded since, as far as columns are derived; `now` is monotonic, in seconds."""
        size = min(size, derived_until(connection))
        while self._next < size:
            until = min(self._next + _SCAN, size)
            columns = DERIVED.c
            query = select(columns.instance, columns.sequence).where(columns.idx >= self._next, columns.idx < until)
            for instance, sequence in connection.execute(query.order_by(columns.idx)):
                self.add(instance, sequence, now)
            self._next = until

    def holes(self, now: float = math.inf) -> tuple[Hole, ...]:
        """What is missing for longer than a record may take, by process; without an instant, all that is missing."""
        found = []
        for instance, process in sorted(self._processes.items()):
            overdue = [(s, end) for s, (end, since) in process.missing.items() if now - since >= OVERDUE_SECONDS]
            if overdue:
                found.append(Hole(instance, sum(end - start for start, end in overdue), min(overdue)[0]))
        return tuple(found)

    def add(self, instance: str | None, sequence: int | None, now: float = 0.0) -> None:
        """One record, in the log's order; neither instance nor number of an erased one."""
        if instance is None or sequence is None:
            self._erased += 1
            return
        known = self._processes.get(instance)
        if known is None:
            # Of a process whose first records are erased, nobody knows where it began; else it began with 1.
            known = self._processes[instance] = _Process(0 if self._erased == 0 else sequence, self._erased)
        known.add(sequence, self._erased, now)
