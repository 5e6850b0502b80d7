"""Engines of the two databases that a service may stand on, opened the one way that keeps what was acknowledged."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from services.kernel.errors import unavailable
from services.kernel.store.checkpoints import Checkpoints

BUSY_SECONDS = 30
_WAL_ATTEMPTS = 200
_WAL_PAUSE_SECONDS = 0.025
# Rows and values a statement: SQLite takes 32,766 values, and prepares a statement of this size in 1 ms, once. With
# more rows, each costs more.
_ROWS = 128
_VALUES = 2_600
_WRITE = "planier_write"
_WRITER = "planier_writer"
_CHECKPOINTS = "planier_checkpoints"
_SCHEMA_LOCK = int.from_bytes(b"planier", "big")


def open_engine(url: str) -> Engine:
    """An engine over `sqlite:///path` or `postgresql+psycopg://…`; errors it raises never show parameters.

    SQLite: WAL, synchronous=FULL (a commit survives a power cut), secure_delete=ON; folders are made as needed.
    PostgreSQL: READ COMMITTED. A plain `begin()` is a read transaction on SQLite: write through `begin_write`.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return create_engine(parsed, hide_parameters=True, isolation_level="READ COMMITTED")
    raise ValueError("a database URL starts with sqlite:/// or postgresql+psycopg://")


@contextmanager
def begin_write(engine: Engine, *, flushed: bool = True) -> Iterator[Connection]:
    """One transaction that writes: on SQLite it holds the write lock from its start, so it cannot fail half-way.

    One that is not `flushed` can be taken back, whole, by a power cut before the next flushed one: only for what can be
    found out again, never for what is acknowledged.

    Writers of one SQLite engine queue here, as SQLite itself makes them poll and the unlucky starve. Raises Problem
    STORE_BUSY after 30 s; a thread that is writing already must not begin again.
    """
    writer: threading.Lock | None = engine.get_execution_options().get(_WRITER)
    if writer is not None and not writer.acquire(timeout=BUSY_SECONDS):
        raise unavailable("STORE_BUSY", "the database is being written to")
    try:
        with (
            _writing(engine).connect() as connection,
            _logged(connection),
            connection.begin() if flushed else _unflushed(connection),
        ):
            yield connection
    finally:
        if writer is not None:
            writer.release()


@lru_cache(maxsize=16)
def _writing(engine: Engine) -> Engine:
    """Kept, as making one costs as much as a small statement."""
    return engine.execution_options(**{_WRITE: True})


@contextmanager
def _logged(connection: Connection) -> Iterator[None]:
    """Tells of what was committed within it, where a log is kept short beside its writers."""
    checkpoints: Checkpoints | None = connection.get_execution_options().get(_CHECKPOINTS)
    if checkpoints is None:
        yield
        return
    driver: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    before = driver.total_changes
    yield
    checkpoints.committed(driver, driver.total_changes - before)


@contextmanager
def _unflushed(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            yield
        return
    # Outside the transaction, where alone SQLite takes it; FULL again before anybody else gets the connection.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    try:
        with connection.begin():
            yield
    finally:
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()


class KeptWriter:
    """`begin_write` of one SQLite engine over one connection that stays open, by the driver's own statements.

    `setup` are statements that the connection is given first, such as of its temporary schema. What is run here goes
    through the driver, whose errors it raises. Threads may share it: they queue. Problem STORE_BUSY after 30 s.
    """

    def __init__(self, engine: Engine, setup: Sequence[str] = ()) -> None:
        self._engine = engine
        self._setup = setup
        self._queue: threading.Lock = engine.get_execution_options()[_WRITER]
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One flushed transaction that holds the write lock from its start."""
        with self._turn() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                driver.commit()
            except BaseException:
                driver.rollback()
                raise

    def run(self, sql: str, values: tuple[Any, ...]) -> None:
        """One statement that writes, flushed and a transaction of its own: SQLite does all of it, or nothing."""
        with self._turn() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(sql, values)

    def close(self) -> None:
        """Lets the connection go; a later transaction opens another."""
        with self._queue:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        if not self._queue.acquire(timeout=BUSY_SECONDS):
            raise unavailable("STORE_BUSY", "the database is being written to")
        try:
            if self._connection is None:
                self._connection = self._opened()
            with _logged(self._connection):
                yield self._connection
        finally:
            self._queue.release()

    def _opened(self) -> Connection:
        connection = self._engine.connect()
        driver: Any = connection.connection.driver_connection
        try:
            for statement in self._setup:
                driver.execute(statement)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection


def scrub(engine: Engine, patience_ms: int) -> bool:
    """Removes from SQLite's files what a committed update or delete left there; call it after erasing.

    Moves the log into the database, whose freed bytes secure_delete has overwritten, and truncates it. Waits at most
    `patience_ms` for readers of older snapshots; False if they stayed: try again later. What the file system keeps of
    freed blocks, snapshots and backups is a matter of deployment. On PostgreSQL vacuum does this: nothing here, True.
    """
    if engine.dialect.name != "sqlite":
        return True
    checkpoints: Checkpoints = engine.get_execution_options()[_CHECKPOINTS]
    with checkpoints.none_other(patience_ms / 1000) as alone:
        return alone and _truncated(engine, patience_ms)


def _truncated(engine: Engine, patience_ms: int) -> bool:
    connection = engine.raw_connection()  # outside any transaction, and no isolation level to put back
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={patience_ms}")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        busy = any(row[0] for row in cursor.fetchall())
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    finally:
        connection.close()
    return not busy


def insert_rows(
    connection: Connection, table: str, columns: int, rows: Sequence[Sequence[object]], *, new_only: bool = False
) -> None:
    """Inserts whole rows into a table of SQLite, columns in its order, many a statement; `new_only`: unless there.

    The driver gives the interpreter's lock away at each step of a statement, and a busy thread keeps it for
    milliseconds: with executemany, one step a row, a writing thread stood still beside a busy event loop. By its own
    cursor: SQLAlchemy's result costs as much as ten rows. Raises SQLAlchemy's errors, without parameters.
    """
    size = max(1, min(_ROWS, _VALUES // columns))
    cursor = connection.connection.cursor()
    try:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            statement = _statement(table, columns, len(some), new_only=new_only)
            cursor.execute(statement, tuple(chain.from_iterable(some)))
    except sqlite3.Error as error:
        raise _told(connection, f"INSERT INTO {table}", error) from None
    finally:
        cursor.close()


def run_sqlite(connection: Connection, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """The rows of one statement of SQLite, by the driver's own cursor: SQLAlchemy's way costs 60 to 100 us each.

    Raises SQLAlchemy's errors, without parameters.
    """
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, tuple(values))
        return list(cursor.fetchall())
    except sqlite3.Error as error:
        raise _told(connection, statement, error) from None
    finally:
        cursor.close()


def _told(connection: Connection, statement: str, error: sqlite3.Error) -> Exception:
    return DBAPIError.instance(statement, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect)


@lru_cache(maxsize=256)
def _statement(table: str, columns: int, rows: int, *, new_only: bool) -> str:
    row = f"({', '.join('?' * columns)})"
    there = " ON CONFLICT DO NOTHING" if new_only else ""
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}{there}"  # noqa: S608 -- our own names


def lock_schema(connection: Connection) -> None:
    """Holds, until commit, what processes that make tables in one database at once wait for; SQLite's writer has it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("a store in memory keeps nothing: give a file")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(Path(url.database))
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS},
        execution_options={_WRITER: threading.Lock(), _CHECKPOINTS: checkpoints},
    )
    event.listen(engine, "engine_disposed", lambda _: checkpoints.end())
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: `_begin` does, in the mode asked for.
    connection.isolation_level = None
    cursor = connection.cursor()
    _enter_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.execute("PRAGMA recursive_triggers=ON")  # else INSERT OR REPLACE deletes past the append-only trigger
    cursor.execute("PRAGMA foreign_keys=ON")
    # Checkpoints come first: this is the bound of a log that they cannot keep short, 256 MiB.
    cursor.execute("PRAGMA wal_autocheckpoint=64000")
    cursor.execute("PRAGMA cache_size=-65536")
    cursor.close()


def _enter_wal(cursor: DBAPICursor) -> None:
    """SQLite answers "busy" at once, whatever the timeout, when another process enters WAL at the same moment."""
    for attempt in range(1, _WAL_ATTEMPTS + 1):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or attempt == _WAL_ATTEMPTS:
                raise
            time.sleep(_WAL_PAUSE_SECONDS)
        else:
            return


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE, False)
    run_sqlite(connection, "BEGIN IMMEDIATE" if immediate else "BEGIN")
