"""The columnar snapshot's life: loaded from the read model, kept up to it, thrown away when the model is rebuilt.

It answers only at the very position of the reader's own transaction; whenever it is behind, ahead or being made, SQL
answers, which gives the same. So it can never be wrong, only absent.
"""

import logging
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from services.analytics.bulk import run, run_in_pages
from services.analytics.columns import FIELDS, INDEX, Columns
from services.analytics.projections import FactProjection
from services.analytics.reading import is_near
from services.analytics.segments import Ints

_log = logging.getLogger(__name__)

_HALF = struct.Struct(">qq")
# Positions that a reader catches up itself, about 10 ms; further behind, it is done apart.
CATCH_UP = 1_000
# Further behind than this and than a quarter of the columns, they are loaded anew.
RELOAD = 200_000
# Rows of the tail and dead rows before they are merged, and as a part of the base.
MERGE_ROWS = 50_000
MERGE_SHARE = 0.02
_PAGE = 20_000
_NAMES = ", ".join(f"p.{name}" for name in INDEX)
_SHOWN = "v.revision, v.recorded_us, v.instrument, v.attendance_minimum, v.attendance_maximum"
_ORDER = " WHERE p.west IS NULL ORDER BY p.bucket, p.source, p.starts_us, p.position"
_JOINED = " FROM fact_placements p CROSS JOIN fact_versions v WHERE v.position = p.position AND"
_ALL = f"SELECT {_NAMES}, v.fact_id, {_SHOWN}" + _JOINED + _ORDER.replace(" WHERE", "")
_HALVES = ", ".join(
    f"('x' || encode(substring(v.fact_id, {first}, 8), 'hex'))::bit(64)::int8 AS {name}"
    for first, name in ((1, "fact_high"), (9, "fact_low"))
)
_ALL_POSTGRES = f"SELECT {_NAMES}, {_HALVES}, {_SHOWN}" + _JOINED + _ORDER.replace(" WHERE", "")
_HOW_MANY = "SELECT COUNT(*) FROM fact_placements WHERE west IS NULL"
_TITLES = "SELECT position, title FROM fact_versions WHERE title <> ''"
_NEW = (
    f"SELECT {_NAMES}, v.fact_id, {_SHOWN}, v.title FROM fact_versions v"  # noqa: S608 -- our own names
    " CROSS JOIN fact_placements p"
    " WHERE v.position > ? AND v.position <= ? AND p.bucket = v.bucket AND p.source = v.source"
    " AND p.starts_us = v.starts_us AND p.position = v.position AND p.west IS NULL"
)
# Versions before the new ones of the same facts; erased ones, whose rows are gone.
_REPLACED = (
    "SELECT h.position FROM fact_versions v JOIN fact_history h ON h.fact_id = v.fact_id AND h.position < v.position"
    " WHERE v.position > ? AND v.position <= ? AND v.change <> 1"
)
_ERASED = "SELECT position FROM fact_erasures WHERE erased_at > ? AND erased_at <= ?"
_STATE = "SELECT generation, store_id, position FROM projections WHERE name = ?"


@dataclass(frozen=True, slots=True)
class _At:
    """Which tables, and how far they had come."""

    generation: int
    store_id: str
    position: int


class Snapshot:
    """The columns of one process, beside its read model."""

    def __init__(self, engine: Engine, *, in_background: bool = True) -> None:
        self._engine = engine
        self._columns = Columns()
        self._at: _At | None = None
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "snapshot") if in_background else None
        self._working = False
        # While set, readers ask SQL rather than wait.
        self._away = threading.Event()

    @contextmanager
    def columns(self, connection: Connection) -> Iterator[Columns | None]:
        """The columns exactly as the connection's transaction sees the read model; None: ask SQL.

        The event loop always asks SQL: for the few rows that it may look at SQL is quicker, and it does not wait.
        """
        if self._away.is_set() or is_near(connection):
            yield None
            return
        with self._lock:
            yield self._columns if self._reaches(connection) else None

    def begin(self) -> None:
        """Has the columns loaded, in the snapshot's own thread."""
        self._apart(self.load)

    def load(self) -> None:
        """Makes the columns anew from the read model, in one read transaction. Readers ask SQL meanwhile."""
        with self._alone():
            # The old ones first: at no moment are both held.
            self._columns, self._at = Columns(), None
            with self._engine.begin() as connection:
                if connection.dialect.name == "sqlite":
                    # Every page is read once: mapped, all of the file would count as this process's memory.
                    run(connection, "PRAGMA mmap_size=0", ())
                at = _state(connection)
                self._columns.load(_chunks(connection), run(connection, _HOW_MANY, ())[0][0])
                for page in run_in_pages(connection, _TITLES, (), _PAGE):
                    self._columns.entitle([row[0] for row in page], [row[1] for row in page])
            # Whoever follows gets a connection as they are opened.
            self._engine.dispose()
            self._at = at
        _log.info("map columns loaded", extra={"facts": len(self._columns), "bytes": self._columns.size})

    def close(self) -> None:
        """Waits for what is under way."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
        self._engine.dispose()

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        return self._columns.size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._away.set()
        try:
            with self._lock:
                yield
        finally:
            self._away.clear()

    def _reaches(self, connection: Connection) -> bool:
        at, now = self._at, _state(connection)
        if at is None or (at.generation, at.store_id) != (now.generation, now.store_id):
            self._apart(self.load)
            return False
        if now.position > at.position + CATCH_UP:
            self._apart(self.catch_up)
            return False
        if now.position > at.position:
            self._follow(connection, at, now)
            if self._is_due():
                self._apart(self.merge)
        return self._at == now

    def _is_due(self) -> bool:
        return self._columns.waiting > max(MERGE_ROWS, int(MERGE_SHARE * len(self._columns)))

    def _follow(self, connection: Connection, at: _At, now: _At) -> None:
        bounds = (at.position, now.position)
        killed = [row[0] for sql in (_REPLACED, _ERASED) for row in run(connection, sql, bounds)]
        rows = run(connection, _NEW, bounds)
        self._columns.kill(killed)
        self._columns.append([_numbers(row) for row in rows], [row[-1] for row in rows])
        self._at = now

    def catch_up(self) -> None:
        """Follows the read model over however much it is ahead; loads anew where that is less."""
        with self._engine.begin() as connection:
            at, now = self._at, _state(connection)
            other = at is None or (at.generation, at.store_id) != (now.generation, now.store_id)
            if at is None or other or now.position > at.position + max(RELOAD, len(self._columns) // 4):
                at = None
            else:
                with self._alone():
                    self._follow(connection, at, now)
        if at is None:
            self.load()
        elif self._is_due():
            self.merge()

    def merge(self) -> None:
        """Puts what came since the last merge in its place."""
        with self._alone():
            self._columns.merge()

    def _apart(self, work: Callable[[], None]) -> None:
        """One piece of work at a time, in the snapshot's own thread; readers ask for it again while it is needed."""
        if self._worker is None or self._working:
            return
        self._working = True
        self._worker.submit(self._perform, work)

    def _perform(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 -- whatever it is, reads go on
            # SQL answers meanwhile; the next reader has it tried again.
            _log.exception("map columns cannot be kept up")
        finally:
            self._working = False


def _state(connection: Connection) -> _At:
    ((generation, store_id, position),) = run(connection, _STATE, (FactProjection.name,))
    return _At(generation, store_id, position)


def _chunks(connection: Connection) -> Iterator[Ints]:
    """Rows of FIELDS, a line a field; PostgreSQL sends them as its binary COPY, read without making Python numbers."""
    if connection.dialect.name == "postgresql":
        yield from _copied(connection)
        return
    for page in run_in_pages(connection, _ALL, (), _PAGE):
        flat = np.fromiter((value for row in page for value in _numbers(row)), np.int64, len(page) * len(FIELDS))
        yield flat.reshape(-1, len(FIELDS)).T


def _numbers(row: Sequence[Any]) -> tuple[int, ...]:
    """A row of SQL as FIELDS: the fact id becomes two numbers."""
    high, low = _HALF.unpack(row[len(INDEX)])
    return (*row[: len(INDEX)], high, low, *row[len(INDEX) + 1 : len(FIELDS) - 1])


def _copied(connection: Connection) -> Iterator[Ints]:
    names = ", ".join(f"{name}::int8" for name in FIELDS)
    sql = f"COPY (SELECT {names} FROM ({_ALL_POSTGRES}) p) TO STDOUT (FORMAT BINARY)"  # noqa: S608 -- our own names
    # A tuple is its number of fields, then for each its length and its value, all big-endian.
    fields: list[tuple[str, Any]] = [("count", ">i2")]
    for name in FIELDS:
        fields += [(f"{name}_length", ">i4"), (name, ">i8")]
    row = np.dtype(fields)
    header = 19
    cursor = connection.connection.cursor()
    with cursor.copy(sql) as copy:
        waiting = bytearray()
        for data in copy:
            waiting += data
            if header and len(waiting) >= header:
                del waiting[:header]
                header = 0
            whole = len(waiting) // row.itemsize
            if not header and whole >= _PAGE:
                yield _lines(waiting, row, whole)
                del waiting[: whole * row.itemsize]
        if not header and (whole := len(waiting) // row.itemsize):
            yield _lines(waiting, row, whole)
    cursor.close()


def _lines(data: bytearray, row: np.dtype[Any], count: int) -> Ints:
    table = np.frombuffer(bytes(data[: count * row.itemsize]), dtype=row)
    return np.stack([table[name].astype(np.int64) for name in FIELDS])
