"""Replay: which records a filter keeps, in SQL over the columns and, as its definition, over a record's own bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.audit.v1.audit_pb2 import RELATION_UNSPECIFIED, ReplayEntry, ReplayFilter
from planier.audit.v1.record_pb2 import AccessRecord, DataReference
from sqlalchemy import ColumnElement, Connection, and_, or_, select

from services.audit.entry import VERSION, columns_of
from services.audit.masking import PSEUDONYMS, Mask
from services.audit.schema import BODIES, DERIVED, RECORDS
from services.audit.sought import meet, relation

# One page is one short read transaction: a slow reader never holds an old snapshot of the log.
PAGE = 500
_LEAF = b"\x00" + VERSION
_EQUALS = ("issuer", "subject", "party", "rpc", "purpose", "consultation_id")
_PEOPLE = ("issuer", "subject")
# What the columns do not hold is judged on the record itself.
_UNINDEXED = ("organisation", "clearance_id", "operation", "area", "fact")


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of the log: indices from `first` until before `size`, at most `limit` entries (0: all)."""

    first: int
    size: int
    limit: int


class Page(NamedTuple):
    """Entries in order, and the index to go on from; the span's size at its end."""

    entries: list[ReplayEntry]
    next: int


class Readable(Protocol):
    """What knows which parts of the log may be read (services/audit/integrity.py)."""

    def require(self, first: int, end: int) -> None:
        """Refuses a part that is known to be altered."""
        ...

    def altered(self, index: int) -> None:
        """Reports a record that is not the one its leaf commits to, and refuses it."""
        ...


def matches(record: AccessRecord, wanted: ReplayFilter) -> bool:
    """Whether a record passes a filter: the definition that `conditions` follows."""
    columns = columns_of(record)
    return all(
        (
            not wanted.HasField("occurred_from") or columns.occurred_at >= wanted.occurred_from.ToMicroseconds(),
            not wanted.HasField("occurred_until") or columns.occurred_at < wanted.occurred_until.ToMicroseconds(),
            all(not getattr(wanted, name) or getattr(wanted, name) == getattr(columns, name) for name in _EQUALS),
            not wanted.record_id or wanted.record_id == record.record_id,
            not wanted.HasField("permitted") or wanted.permitted == columns.permitted,
            not wanted.clause or f"|{wanted.clause}|" in columns.clauses,
            not wanted.source or f"|{wanted.source}|" in columns.sources,
            not wanted.organisation or wanted.organisation == record.actor.organisation,
            not wanted.clearance_id or wanted.clearance_id == record.actor.clearance_id,
            not wanted.operation or wanted.operation == record.operation,
            not wanted.HasField("area") or (record.data.HasField("area") and meet(wanted.area, record.data.area)),
            not wanted.HasField("fact") or relation(record, wanted.fact) != RELATION_UNSPECIFIED,
        )
    )


def conditions(wanted: ReplayFilter) -> list[ColumnElement[bool]]:
    """What of the filter the columns can tell. Half-open in time. An erased record passes none but the empty filter."""
    columns = DERIVED.c
    found: list[ColumnElement[bool]] = [
        columns[name] == getattr(wanted, name) for name in _EQUALS if getattr(wanted, name)
    ]
    if wanted.record_id:
        found.append(RECORDS.c.record_id == wanted.record_id)
    if wanted.HasField("occurred_from"):
        found.append(columns.occurred_at >= wanted.occurred_from.ToMicroseconds())
    if wanted.HasField("occurred_until"):
        found.append(columns.occurred_at < wanted.occurred_until.ToMicroseconds())
    if wanted.HasField("permitted"):
        found.append(columns.permitted.is_(wanted.permitted))
    for column, value in ((columns.clauses, wanted.clause), (columns.sources, wanted.source)):
        if value:
            found.append(column.contains(f"|{value}|", autoescape=True))
    if any(field.name in _UNINDEXED for field, _ in wanted.ListFields()):
        found.append(columns.occurred_at.is_not(None))
    return found


def described(wanted: ReplayFilter, data: DataReference) -> None:
    """States in the look's own record what it filters on: whose accesses were looked at is part of the access."""
    for field, value in wanted.ListFields():
        if isinstance(value, Timestamp):
            shown = value.ToJsonString()
        elif isinstance(value, Message):
            shown = MessageToJson(value, indent=None, preserving_proto_field_name=True)
        else:
            shown = str(value)
        data.filters[field.name] = shown


class Reading:
    """One look at the log: a filter, as one viewer may put it and see what passes. No mask: nobody is hidden.

    Every record is compared with its leaf on its way out; `parts` refuses what is altered. What the columns filter is
    to be derived up to the span's end (AccessLog.catch_up).
    """

    def __init__(self, wanted: ReplayFilter, mask: Mask | None = None, parts: Readable | None = None) -> None:
        self._wanted = wanted
        self._mask = mask
        self._parts = parts
        people = [name for name in _PEOPLE if getattr(wanted, name)] if mask is not None else []
        # A masked record passes by its pseudonym alone: a filter must not tell who is behind one.
        self._judges = bool(people) or any(field.name in _UNINDEXED for field, _ in wanted.ListFields())
        narrow = ReplayFilter()
        narrow.CopyFrom(wanted)
        if mask is not None:
            narrow.issuer = narrow.subject = ""
        self._conditions = conditions(narrow)
        if mask is not None and people and not wanted.subject.startswith(PSEUDONYMS):
            named = and_(*(DERIVED.c[name] == getattr(wanted, name) for name in people))
            self._conditions.append(or_(DERIVED.c.party != mask.party, named))

    def page(self, connection: Connection, span: Span) -> Page:
        """What passes among the next rows of a span, PAGE of them at most."""
        most = min(span.limit or PAGE, PAGE) if not self._judges else PAGE
        query = (
            select(RECORDS.c.idx, BODIES.c.salt, BODIES.c.record, RECORDS.c.leaf_hash, DERIVED.c.party)
            .join(BODIES, BODIES.c.idx == RECORDS.c.idx)
            # A copy that nobody served may not be derived to its end; without a filter nothing of it is left out.
            .join(DERIVED, DERIVED.c.idx == RECORDS.c.idx, isouter=not self._conditions)
            .where(RECORDS.c.idx >= span.first, RECORDS.c.idx < span.size, *self._conditions)
            .order_by(RECORDS.c.idx)
            .limit(most)
        )
        rows = connection.execute(query).all()
        if self._parts is not None and rows:
            self._parts.require(rows[0].idx, rows[-1].idx + 1)
        entries = list[ReplayEntry]()
        for row in rows:
            entry = self._entry(row)
            if entry is not None:
                entries.append(entry)
            if span.limit and len(entries) == span.limit:
                return Page(entries, row.idx + 1)
        return Page(entries, rows[-1].idx + 1 if len(rows) == most else span.size)

    def _entry(self, row: Sequence[Any]) -> ReplayEntry | None:
        index, salt, content, leaf, party = row
        if content is None:
            return ReplayEntry(index=index, leaf_hash=leaf)
        # leaf_of(salt, content), written out: an auditor replays millions.
        if self._parts is not None and sha256(_LEAF + sha256((salt or b"") + content).digest()).digest() != leaf:
            self._parts.altered(index)
        entry = ReplayEntry(index=index, salt=salt, record=content, leaf_hash=leaf)
        if self._mask is not None and party != self._mask.party:
            entry = self._mask.entry(entry)
        if self._judges:
            record = AccessRecord.FromString(entry.record)
            if not matches(record, self._wanted):
                return None
            if self._wanted.HasField("fact"):
                entry.relation = relation(record, self._wanted.fact)
        return entry


def read_page(connection: Connection, wanted: ReplayFilter, span: Span) -> list[ReplayEntry]:
    """The entries of the next page of a span, nobody masked."""
    return Reading(wanted).page(connection, span).entries


def in_messages(entries: list[ReplayEntry], limit: int) -> Iterator[list[ReplayEntry]]:
    """Cuts entries into runs of at most `limit` bytes, an entry larger than that alone in its own."""
    run, total = list[ReplayEntry](), 0
    for entry in entries:
        # Tag and length of the repeated field: 4 bytes at most below 2 MiB.
        size = entry.ByteSize() + 4
        if run and total + size > limit:
            yield run
            run, total = [], 0
        run.append(entry)
        total += size
    if run:
        yield run
