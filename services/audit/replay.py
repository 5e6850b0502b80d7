"""Replay: which records a filter keeps, in SQL over the columns and, as its definition, over a record's own bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from planier.audit.v1.audit_pb2 import ReplayEntry, ReplayFilter
from planier.audit.v1.record_pb2 import AccessRecord, DataReference
from sqlalchemy import ColumnElement, Connection, select

from services.audit.entry import columns_of
from services.audit.schema import BODIES, RECORDS

# One page is one short read transaction: a slow reader never holds an old snapshot of the log.
PAGE = 500
_EQUALS = ("issuer", "subject", "party", "rpc", "purpose", "consultation_id")


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of the log: indices from `first` until before `size`, at most `limit` entries (0: all)."""

    first: int
    size: int
    limit: int


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
        )
    )


def conditions(wanted: ReplayFilter) -> list[ColumnElement[bool]]:
    """The same filter over access_records. Half-open in time. An erased record passes none but the empty filter."""
    columns = RECORDS.c
    found: list[ColumnElement[bool]] = [
        columns[name] == getattr(wanted, name) for name in (*_EQUALS, "record_id") if getattr(wanted, name)
    ]
    if wanted.HasField("occurred_from"):
        found.append(columns.occurred_at >= wanted.occurred_from.ToMicroseconds())
    if wanted.HasField("occurred_until"):
        found.append(columns.occurred_at < wanted.occurred_until.ToMicroseconds())
    if wanted.HasField("permitted"):
        found.append(columns.permitted.is_(wanted.permitted))
    for column, value in ((columns.clauses, wanted.clause), (columns.sources, wanted.source)):
        if value:
            found.append(column.contains(f"|{value}|", autoescape=True))
    return found


def described(wanted: ReplayFilter, data: DataReference) -> None:
    """States in the look's own record what it filters on: whose accesses were looked at is part of the access."""
    for field, value in wanted.ListFields():
        shown = value.ToJsonString() if isinstance(value, Timestamp) else str(value)
        data.filters[field.name] = shown


def read_page(connection: Connection, wanted: ReplayFilter, span: Span) -> list[ReplayEntry]:
    """The next entries of a span, in order: PAGE of them at most, fewer only at its end."""
    query = (
        select(RECORDS.c.idx, BODIES.c.salt, BODIES.c.record, RECORDS.c.leaf_hash)
        .join(BODIES, BODIES.c.idx == RECORDS.c.idx)
        .where(RECORDS.c.idx >= span.first, RECORDS.c.idx < span.size, *conditions(wanted))
        .order_by(RECORDS.c.idx)
        .limit(min(span.limit or PAGE, PAGE))
    )
    return [
        ReplayEntry(index=index, salt=salt or b"", record=record, leaf_hash=leaf)
        for index, salt, record, leaf in connection.execute(query)
    ]


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
