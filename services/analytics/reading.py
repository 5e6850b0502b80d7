"""One read transaction: the answer and the position it was read at are of the same instant; never waits for writes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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


class ReadModel:
    """Runs questions in threads of its own, so that reads never queue behind the follower's writes.

    Questions that arrive while others are under way share the next transaction: a thread's turn and a transaction cost
    more than a small question.
    """

    def __init__(self, engine: Engine, is_caught_up: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_caught_up = is_caught_up
        self._threads = ThreadPoolExecutor(THREADS, "read-model")
        self._batcher: Batcher[Question, tuple[Position, Any]] = Batcher(
            self._send, max_items=QUESTIONS, max_in_flight=THREADS
        )

    async def read(self, question: Callable[[Connection], Answer]) -> tuple[Position, Answer]:
        """The answer and its position. Raises Problem UNAVAILABLE READ_MODEL_NOT_READY before the first load."""
        return await self._batcher.submit(question)

    async def position(self) -> Position:
        """How far ingest was followed."""
        position, _ = await self.read(lambda _connection: None)
        return position

    def close(self) -> None:
        """Waits for the questions under way."""
        self._threads.shutdown()
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
            position = self._position(connection)
            if position is None:
                raise unavailable("READ_MODEL_NOT_READY", "the read model is being loaded")
            for question in questions:
                answers.append(_answer(connection, position, question))
                if isinstance(answers[-1], Exception):
                    break
        return answers

    def _position(self, connection: Connection) -> Position | None:
        """None while the tables are another version's, or empty because nothing was loaded yet."""
        ((version, store_id, position, digest),) = run(connection, _POSITION, (FactProjection.name,))
        if version != FactProjection.version or not (store_id or self._is_caught_up()):
            return None
        return Position(store_id, position, bytes(digest) if store_id else GENESIS)


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
