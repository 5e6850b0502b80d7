"""The log's one exclusive write transaction, and bulk insertion on either dialect.

What an append runs goes through the driver's own cursor: a statement of SQLAlchemy costs 50 µs, ten of SQLite's.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, Table, text

from services.kernel.store.engine import KeptWriter, begin_write

# Serialises every writer of one PostgreSQL log, whatever process it is in.
WRITE_LOCK = 0x706C_616E_6965_72
_COPY_TYPES = {
    "BIGINT": "int8",
    "SMALLINT": "int2",
    "TEXT": "text",
    "BLOB": "bytea",
    "BYTEA": "bytea",
    "BOOLEAN": "bool",
}


Row = tuple[Any, ...]
# The most rows of a statement of SQLite.
_ROWS = 128


@contextmanager
def exclusive(engine: Engine, *, flushed: bool = True) -> Iterator[Connection]:
    """The one write transaction: until it ends no other process writes, and what is read in it is the newest.

    Not `flushed`: a power cut may take it back, as `begin_write` says.
    """
    with begin_write(engine, flushed=flushed) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})
        yield connection


class Writer:
    """`exclusive`, again and again: on SQLite over a connection that stays open, since taking one costs 150 µs.

    `setup` are statements that SQLite's connection is given first; its errors are the driver's own.
    """

    def __init__(self, engine: Engine, setup: Sequence[str]) -> None:
        self._engine = engine
        self._kept = KeptWriter(engine, setup) if engine.dialect.name == "sqlite" else None

    @property
    def at_once(self) -> bool:
        """Whether `run` is to be had: on SQLite."""
        return self._kept is not None

    def run(self, sql: str, values: Row) -> None:
        """One statement that is its own transaction, flushed: all of it or nothing."""
        if self._kept is None:
            raise TypeError("only SQLite runs an append at once")
        self._kept.run(sql, values)

    def transaction(self) -> AbstractContextManager[Connection]:
        """One write transaction, flushed."""
        return exclusive(self._engine) if self._kept is None else self._kept.transaction()

    def close(self) -> None:
        """Lets the connection go; the next transaction opens another."""
        if self._kept is not None:
            self._kept.close()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A read transaction all of whose statements see one state, also while records are appended or erased."""
    connection = engine.connect()
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    with connection, connection.begin():
        yield connection


def rows(connection: Connection, sql: str, values: Row = ()) -> list[Row]:
    """The rows of one statement, its values marked `?`."""
    cursor = run(connection, sql, values)
    try:
        return list(cursor.fetchall())
    finally:
        cursor.close()


def run(connection: Connection, sql: str, values: Row) -> Any:
    """The driver's cursor of one statement, its values marked `?`."""
    driver: Any = connection.connection.driver_connection
    return driver.execute(sql if connection.dialect.name == "sqlite" else sql.replace("?", "%s"), values)


def insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts whole rows, columns in the table's order: many a statement on SQLite, binary COPY on PostgreSQL.

    SQLite's driver gives the interpreter's lock away at each statement, and a busy event loop keeps it for long; rows
    go by powers of two, so that few statements are ever prepared.
    """
    if not rows:
        return
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        start, size = 0, _ROWS
        while start < len(rows):
            while size > len(rows) - start:
                size >>= 1
            values = tuple(chain.from_iterable(rows[start : start + size]))
            driver.execute(_insert(table, size), values)
            start += size
        return
    names = _names(table)
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([_COPY_TYPES[str(column.type.compile(connection.dialect))] for column in table.columns])
        for row in rows:
            copy.write_row(row)


@cache
def _insert(table: Table, rows: int) -> str:
    marks = f"({', '.join('?' * len(table.columns))})"
    return f"INSERT INTO {table.name} ({_names(table)}) VALUES {', '.join([marks] * rows)}"  # noqa: S608 -- our own names


@cache
def _names(table: Table) -> str:
    # By name: a column that a later version added stands last in a log of an earlier one.
    return ", ".join(column.name for column in table.columns)
