"""What a period's records say as numbers: by clause, purpose, organisation and day. Never by person.

The convention names no use of the log to evaluate staff, and art6.purpose refuses it by name: nothing here counts or
scores what one person did. An unusual hour or day is an organisation's; whoever must know more replays the log, and
that look is recorded.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from planier.audit.v1.record_pb2 import (
    RECORD_KIND_REFUSAL,
    RECORD_KIND_STREAM_CLOSED,
    RECORD_KIND_STREAM_RENEWED,
    RECORD_KIND_UNAUTHENTICATED,
    AccessRecord,
)
from planier.common.v1.guard_pb2 import Operation
from planier.common.v1.release_pb2 import Purpose

# Local hours at which public space is watched by few: outside them an access is shown apart, not suspected.
DAY_BEGINS, DAY_ENDS = 6, 22
# A day is unusual above the organisation's median by so many median deviations, and by so many accesses at least: the
# deviation of a quiet organisation is near 0.
DEVIATIONS = 6
LEAST_EXCESS = 20
LEAST_DAYS = 7

Organisation = tuple[str, str]


@dataclass(slots=True)
class Tally:
    """Accesses, and how many of them were refused."""

    accesses: int = 0
    refusals: int = 0

    def add(self, *, refused: bool) -> None:
        """One more."""
        self.accesses += 1
        self.refusals += refused


@dataclass(frozen=True, slots=True)
class UnusualDay:
    """A day on which an organisation looked far more often than it does."""

    organisation: Organisation
    day: date
    accesses: int
    usual: float


@dataclass(frozen=True, slots=True)
class Disclosed:
    """A disclosure, by the log index that states it."""

    index: int
    at: datetime
    reference: str
    recipients: tuple[str, ...]


@dataclass(slots=True)
class Statistics:
    """Running totals over records; `zone` is the territory's. Feed it with `add`, in any order."""

    zone: ZoneInfo
    total: Tally = field(default_factory=Tally)
    erased: int = 0
    strangers: int = 0
    by_clause: dict[str, Tally] = field(default_factory=dict)
    by_purpose: dict[str, Tally] = field(default_factory=dict)
    by_operation: dict[str, Tally] = field(default_factory=dict)
    by_organisation: dict[Organisation, Tally] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    unusual_hours: Counter[Organisation] = field(default_factory=Counter)
    disclosures: list[Disclosed] = field(default_factory=list)
    clearances: set[str] = field(default_factory=set)
    parties: set[str] = field(default_factory=set)
    _days: dict[Organisation, Counter[date]] = field(default_factory=dict)

    def add(self, index: int, record: AccessRecord | None, *, masked: bool = False) -> None:
        """Counts one record; None for an erased one. A stream is one access, whatever its renewals."""
        if record is None:
            self.erased += 1
            return
        if record.kind == RECORD_KIND_UNAUTHENTICATED:
            self.strangers += sum(record.unauthenticated.values())
            return
        if record.kind in (RECORD_KIND_STREAM_RENEWED, RECORD_KIND_STREAM_CLOSED):
            return
        refused = record.kind == RECORD_KIND_REFUSAL
        if refused and record.continues_record_id:
            # The attempt that it continues is counted already: it becomes a refusal.
            self._count(record, refused=True, again=True)
        else:
            self._count(record, refused=refused, again=False)
        if refused:
            self.reasons[record.refusal_reason or "ACCESS_DENIED"] += 1
        self._who(record, masked=masked)
        if record.HasField("disclosure"):
            recipients = tuple(one.organisation for one in record.disclosure.recipients)
            at = record.occurred_at.ToDatetime(UTC)
            self.disclosures.append(Disclosed(index, at, record.disclosure.reference, recipients))

    def unusual_days(self) -> tuple[UnusualDay, ...]:
        """Days far above what the organisation's days are like, in order; none for one with few days."""
        found = []
        for organisation, days in self._days.items():
            if len(days) < LEAST_DAYS:
                continue
            usual = median(days.values())
            deviation = median(abs(count - usual) for count in days.values())
            most = usual + max(DEVIATIONS * deviation, LEAST_EXCESS)
            found += [UnusualDay(organisation, day, count, usual) for day, count in days.items() if count > most]
        return tuple(sorted(found, key=lambda one: (one.day, one.organisation)))

    def _count(self, record: AccessRecord, *, refused: bool, again: bool) -> None:
        clauses = dict.fromkeys([*record.decision.clauses, *(c for w in record.decision.withheld for c in w.clauses)])
        organisation = record.actor.party, record.actor.organisation
        tallies = [
            self.total,
            self.by_purpose.setdefault(Purpose.Name(record.purpose).removeprefix("PURPOSE_"), Tally()),
            self.by_operation.setdefault(Operation.Name(record.operation).removeprefix("OPERATION_"), Tally()),
            self.by_organisation.setdefault(organisation, Tally()),
            *(self.by_clause.setdefault(clause, Tally()) for clause in clauses),
        ]
        for tally in tallies:
            if again:
                tally.refusals += 1
            else:
                tally.add(refused=refused)
        if again:
            return
        local = record.occurred_at.ToDatetime(UTC).astimezone(self.zone)
        self._days.setdefault(organisation, Counter())[local.date()] += 1
        if not DAY_BEGINS <= local.hour < DAY_ENDS:
            self.unusual_hours[organisation] += 1

    def _who(self, record: AccessRecord, *, masked: bool) -> None:
        actor = record.actor
        if actor.party and actor.subject and not masked:
            self.parties.add(actor.party)
        if actor.clearance_id:
            self.clearances.add(actor.clearance_id)


@dataclass(frozen=True, slots=True)
class ClearanceNote:
    """A clearance that somebody should look at: UNUSED in the period, DUE within a month, or NOT_ASSESSED here."""

    clearance_id: str
    organisation: Organisation
    valid_until: datetime
    note: str


@dataclass(frozen=True, slots=True)
class ActiveClearance:
    """What the report needs to know of a clearance in force."""

    clearance_id: str
    organisation: Organisation
    valid_from: datetime
    valid_until: datetime


DUE = timedelta(days=30)


def clearance_notes(
    active: Iterable[ActiveClearance], statistics: Statistics, start: datetime, end: datetime
) -> tuple[ClearanceNote, ...]:
    """Which clearances were never used in [start, end), and which end within 30 days after it.

    One that began within the period is not yet unused; of a party whose people are pseudonyms here, use is not known.
    """
    found = []
    for one in active:
        notes = []
        if one.organisation[0] not in statistics.parties:
            notes.append("NOT_ASSESSED")
        elif one.clearance_id not in statistics.clearances and one.valid_from <= start:
            notes.append("UNUSED")
        if end <= one.valid_until < end + DUE:
            notes.append("DUE")
        found += [ClearanceNote(one.clearance_id, one.organisation, one.valid_until, note) for note in notes]
    return tuple(found)


def records_of(entries: Iterable[tuple[int, bytes | None, bool]], statistics: Statistics) -> Statistics:
    """Adds (index, record bytes or None, masked) to the totals."""
    for index, content, masked in entries:
        statistics.add(index, AccessRecord.FromString(content) if content is not None else None, masked=masked)
    return statistics
