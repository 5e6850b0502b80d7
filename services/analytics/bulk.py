"""Statements over many rows at the speed of the driver: executemany on SQLite, binary COPY on PostgreSQL.

SQL is written with `?` for each value and `@` for a list of marks.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, LargeBinary, SmallInteger, Table, Text

from services.kernel.store.engine import insert_rows

# SQLite takes 32,766 values a statement, PostgreSQL 65,535.
_CHUNK = 500
_POSTGRES_TYPES = {BigInteger: "int8", Integer: "int4", SmallInteger: "int2", LargeBinary: "bytea", Text: "text"}


def run(connection: Connection, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """The rows of one statement, by the driver's own cursor: SQLAlchemy's result costs more than a small question."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(_marked(connection, sql), tuple(values))
        return list(cursor.fetchall())
    finally:
        cursor.close()


def run_in_pages(
    connection: Connection, sql: str, values: Sequence[object], size: int
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows of one statement, at most `size` at a time."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(_marked(connection, sql), tuple(values))
        while page := cursor.fetchmany(size):
            yield page
    finally:
        cursor.close()


def run_many(connection: Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    """One statement for each row; none for no rows."""
    if rows:
        connection.exec_driver_sql(_marked(connection, sql), [tuple(row) for row in rows])


def in_chunks(connection: Connection, sql: str, values: Collection[object]) -> list[tuple[Any, ...]]:
    """The rows of a statement whose `@` stands for a list of any length."""
    ordered, found = list(values), []
    for first in range(0, len(ordered), _CHUNK):
        chunk = ordered[first : first + _CHUNK]
        found += run(connection, sql.replace("@", marks(len(chunk))), chunk)
    return found


def marks(count: int) -> str:
    """`?, ?, ?`."""
    return ", ".join("?" * count)


def insert(connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Inserts rows that hold every column of the table, in its order."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, table, ", ".join(column.name for column in table.columns), rows)
        return
    insert_rows(connection, table.name, len(table.columns), rows)


def insert_new(connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """As `insert`, of rows whose keys are not there yet; the others are left as they are."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        # One statement for all: the server takes as long for each of its own.
        lists = ", ".join(f"%s::{_POSTGRES_TYPES[type(column.type)]}[]" for column in table.columns)
        sql = f"INSERT INTO {table.name} SELECT * FROM unnest({lists}) ON CONFLICT DO NOTHING"  # noqa: S608 -- our own names
        connection.exec_driver_sql(sql, tuple(list(column) for column in zip(*rows, strict=True)))
        return
    insert_rows(connection, table.name, len(table.columns), rows, new_only=True)


def _copy(connection: Connection, table: Table, names: str, rows: Iterable[tuple[object, ...]]) -> None:
    cursor = connection.connection.cursor()
    types = [_POSTGRES_TYPES[type(column.type)] for column in table.columns]
    with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    cursor.close()


def _marked(connection: Connection, sql: str) -> str:
    return sql.replace("?", "%s") if connection.dialect.name == "postgresql" else sql
