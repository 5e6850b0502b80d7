"""What replay filters on, derived from the records in the log's order, behind the appends and before any look.

A projection of the log: whoever reads it has it caught up first, so nothing is missed; thrown away, it is derived
again. One row a record, without a gap; all NULL where the record is erased or is none.
"""

from sqlalchemy import Connection, Engine, select

from services.audit.database import Row, exclusive, insert, rows, snapshot
from services.audit.entry import columns_of, parse_record
from services.audit.schema import BODIES, COLUMNS, DERIVED

# Derived and written together: some 10 ms, half of it under the write lock.
_CHUNK = 1_000
_END = "SELECT max(idx) FROM access_columns"
_ERASED = "SELECT idx FROM access_bodies WHERE idx >= ? AND idx <= ? AND record IS NULL"
_BETWEEN = f"SELECT idx, {', '.join(COLUMNS)} FROM access_columns WHERE idx >= ? AND idx < ?"  # noqa: S608 -- our own names
# The columns of an erased record.
BLANK: Row = (None,) * len(COLUMNS)


def derived_until(connection: Connection) -> int:
    """The index up to which columns are derived."""
    ((last,),) = rows(connection, _END)
    return 0 if last is None else int(last) + 1


def columns_between(connection: Connection, first: int, until: int) -> dict[int, Row]:
    """The columns derived of records from `first` until before `until`, by index."""
    return {row[0]: row[1:] for row in rows(connection, _BETWEEN, (first, until))}


def catch_up(engine: Engine) -> int:
    """Derives the columns of every record that was durable at the call; returns until which index. Blocking.

    Processes and threads may do it at once. Not flushed: a power cut costs a derivation, no record.
    """
    while True:
        with snapshot(engine) as connection:
            first = derived_until(connection)
            query = select(BODIES.c.idx, BODIES.c.record).where(BODIES.c.idx >= first)
            found = connection.execute(query.order_by(BODIES.c.idx).limit(_CHUNK)).all()
        if not found:
            return first
        derived = [(row.idx, *_columns(row.record)) for row in found]
        with exclusive(engine, flushed=False) as connection:
            if derived_until(connection) == first:
                insert(connection, DERIVED, _without_erased(connection, derived))


def _columns(content: bytes | None) -> Row:
    record = parse_record(content) if content is not None else None
    return BLANK if record is None else columns_of(record)


def _without_erased(connection: Connection, derived: list[Row]) -> list[Row]:
    """Blank for what was erased since it was read: an erasure and this hold the same lock."""
    erased = {index for (index,) in rows(connection, _ERASED, (derived[0][0], derived[-1][0]))}
    return [(row[0], *BLANK) if row[0] in erased else row for row in derived]
