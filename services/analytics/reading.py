"""One read transaction: the answer and the position it was read at are of the same instant; never waits for writes."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from services.analytics.bulk import run
from services.analytics.projections import FactProjection
from services.kernel.batching import Batcher
from services.kernel.errors import unavailable
from services.kernel.store.base import GENESIS, Position
from services.kernel.store.engine import open_engine

Answer = TypeVar("Answer")

Question = Callable[[Connection], Any]

THREADS = 2
# Questions in one transaction: a wide one must not hold up a crowd.
QUESTIONS = 16
_NEAR = "planier_near"
_AT = "planier_position"
_REMEMBERED = "planier_remembered"
# Steps of SQLite's machine that a question may take on the event loop, about a millisecond: a thread's turn, and the
# interpreter's lock that each row then waits for, cost more than most questions.
STEPS_HERE = 40_000
STEPS_A_COUNT = 2_000
_POSITION = "SELECT version, store_id, position, digest FROM projections WHERE name = ?"
# A swap renames tables: without these locks a PostgreSQL snapshot taken before it could read tables filled after it.
# In the order of the swap (kernel/projection.py), else the two wait for each other.
_LOCK = "LOCK TABLE @ IN ACCESS SHARE MODE".replace("@", ", ".join(FactProjection().metadata.tables))


def open_for_reading(url: str) -> Engine:
    """An engine apart from the writer's, whose connections cannot write; PostgreSQL: one snapshot a transaction."""
    engine = open_engine(url)
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    event.listen(engine, "connect", _configure)
    return engine


def is_near(connection: Connection) -> bool:
    """Whether what is asked on this connection is answered on the event loop."""
    return _NEAR in connection.info


def position_on(connection: Connection) -> Position | None:
    """Where the read model stands in this transaction; None outside of a ReadModel."""
    position: Position | None = connection.info.get(_AT)
    return position


def remembered(connection: Connection, name: str, ask: Callable[[Connection], Answer]) -> Answer:
    """What was asked under this name on this connection while the read model stood where it stands."""
    position = position_on(connection)
    known = connection.info.setdefault(_REMEMBERED, {})
    kept: tuple[Position, Answer] | None = known.get(name)
    if kept is None or kept[0] != position:
        if position is None:
            return ask(connection)
        kept = known[name] = (position, ask(connection))
    return kept[1]


class ReadModel:
    """Answers small questions where they arrive, the others in threads; never behind the follower's writes.

    Wide questions that arrive while others are under way share the next transaction.
    """

    def __init__(self, engine: Engine, is_caught_up: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_caught_up = is_caught_up
        self._near = _Near(engine) if engine.dialect.name == "sqlite" else None
        self._of_turn: tuple[Position | None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, "read-model")
        self._batcher: Batcher[Question, tuple[Position, Any]] = Batcher(
            self._send, max_items=QUESTIONS, max_in_flight=THREADS
        )

    async def read(self, question: Callable[[Connection], Answer]) -> tuple[Position, Answer]:
        """The answer and its position. Raises Problem UNAVAILABLE READ_MODEL_NOT_READY before the first load."""
        found = self.read_here(question)
        return await self.read_away(question) if found is None else found

    def read_here(self, question: Callable[[Connection], Answer]) -> tuple[Position, Answer] | None:
        """As `read`, at once; None where a thread has to answer: too wide, or the file is busy."""
        if self._near is None:
            return None
        try:
            with self._near.transaction() as connection:
                position = self._near.standing() or self._near.stand(self._require_position(connection))
                if self._of_turn is not None:
                    self._of_turn = (position,)
                return position, question(connection)
        except sqlite3.OperationalError:
            return None

    async def read_away(self, question: Callable[[Connection], Answer]) -> tuple[Position, Answer]:
        """As `read`, in a thread. Raises what it does."""
        return await self._batcher.submit(question)

    def standing(self) -> Position | None:
        """The position, where it is known without a question: nothing was committed since it was last read here.

        For the event loop. Whoever asks in its present turn shares one reading: their steps were queued before it, so
        what they work for had arrived; what is queued later runs after it is forgotten.
        """
        if self._near is None:
            return None
        if self._of_turn is None:
            try:
                self._of_turn = (self._near.standing(),)
            except sqlite3.OperationalError:
                return None
            asyncio.get_running_loop().call_soon(self.forget_standing)
        return self._of_turn[0]

    def forget_standing(self) -> None:
        """Has the position asked for again: call it when the read model moved."""
        self._of_turn = None

    async def position(self) -> Position:
        """How far ingest was followed."""
        position, _ = await self.read(lambda _connection: None)
        return position

    def close(self) -> None:
        """Waits for the questions under way."""
        self._threads.shutdown()
        if self._near is not None:
            self._near.close()
        self._engine.dispose()

    async def _send(self, questions: Sequence[Question]) -> Sequence[tuple[Position, Any] | Exception]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, questions)

    def _read(self, questions: Sequence[Question]) -> list[tuple[Position, Any] | Exception]:
        answers: list[tuple[Position, Any] | Exception] = []
        # PostgreSQL answers nothing more in a transaction in which a statement failed: the rest get another one.
        while len(answers) < len(questions):
            answers += self._read_until_one_fails(questions[len(answers) :])
        return answers

    def _read_until_one_fails(self, questions: Sequence[Question]) -> list[tuple[Position, Any] | Exception]:
        answers: list[tuple[Position, Any] | Exception] = []
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(_LOCK)
            position = connection.info[_AT] = self._require_position(connection)
            for question in questions:
                answers.append(_answer(connection, position, question))
                if isinstance(answers[-1], Exception):
                    break
        return answers

    def _require_position(self, connection: Connection) -> Position:
        """Raises while the tables are another version's, or empty because nothing was loaded yet."""
        ((version, store_id, position, digest),) = run(connection, _POSITION, (FactProjection.name,))
        if version != FactProjection.version or not (store_id or self._is_caught_up()):
            raise unavailable("READ_MODEL_NOT_READY", "the read model is being loaded")
        return Position(store_id, position, bytes(digest) if store_id else GENESIS)


class _Near:
    """One connection for one thread, on which a question that takes long, or would have to wait, fails."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect()
        self._connection.info[_NEAR] = True
        driver = cast("sqlite3.Connection", self._connection.connection.dbapi_connection)
        driver.execute("PRAGMA busy_timeout=0")
        driver.set_progress_handler(self._count, STEPS_A_COUNT)
        self._steps = 0
        self._driver = driver
        self._seen: tuple[int, Position] | None = None
        self._version = 0

    def standing(self) -> Position | None:
        """The position last read here, if no other connection has committed since (SQLite's `data_version`).

        In a transaction its first statement: it fixes the snapshot whose version it tells.
        """
        ((self._version,),) = self._driver.execute("PRAGMA data_version").fetchall()
        return self._seen[1] if self._seen is not None and self._seen[0] == self._version else None

    def stand(self, position: Position) -> Position:
        """Remembers the position of the snapshot that `standing` was asked of."""
        self._seen = (self._version, position)
        self._connection.info[_AT] = position
        return position

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One snapshot. Raises sqlite3.OperationalError at the statement that passes STEPS_HERE."""
        self._steps = 0
        self._driver.execute("BEGIN").close()
        try:
            yield self._connection
        finally:
            self._driver.execute("ROLLBACK").close()

    def close(self) -> None:
        self._connection.close()

    def _count(self) -> bool:
        """Called by SQLite; true ends the statement."""
        self._steps += STEPS_A_COUNT
        return self._steps > STEPS_HERE


def _answer(connection: Connection, position: Position, question: Question) -> tuple[Position, Any] | Exception:
    try:
        return position, question(connection)
    except Exception as error:  # noqa: BLE001 -- one question's failure is not its neighbours'
        return error


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    # Scans read the file's pages where the system caches them instead of copying each.
    cursor.execute("PRAGMA mmap_size=17179869184")
    cursor.close()
