"""The log's one exclusive write transaction, and bulk insertion on either dialect."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, text

from services.kernel.store.engine import begin_write

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


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """The one write transaction: until it ends no other process writes, and what is read in it is the newest."""
    with begin_write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A read transaction all of whose statements see one state, also while records are appended or erased."""
    connection = engine.connect()
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    with connection, connection.begin():
        yield connection


def insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts whole rows, columns in the table's order: executemany on SQLite, binary COPY on PostgreSQL."""
    if not rows:
        return
    # By name: a column that a later version added stands last in a log of an earlier one.
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        sqlite: Any = connection.connection.driver_connection
        sqlite.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)  # noqa: S608 -- our own names
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([_COPY_TYPES[str(column.type.compile(connection.dialect))] for column in table.columns])
        for row in rows:
            copy.write_row(row)
