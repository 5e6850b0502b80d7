"""Questions that share a read transaction."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.analytics.bulk import run
from services.analytics.projections import FactProjection
from services.analytics.reading import ReadModel, open_for_reading
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS
from services.kernel.store.engine import open_engine
from tests.fixtures.analytics import IngestLog, fact


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'analytics.db'}"


def one(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT 1").scalar_one())


def wrong(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT nothing FROM nowhere")


def test_a_question_that_fails_leaves_its_neighbours_their_answers(url: str) -> None:
    writer = open_engine(url)
    ProjectionRunner(writer, FactProjection())
    model = ReadModel(open_for_reading(url), lambda: True)
    before, failed, after = model._read([one, wrong, one])
    model.close()
    writer.dispose()
    assert isinstance(failed, DBAPIError)
    assert [answer[1] for answer in (before, after) if not isinstance(answer, Exception)] == [1, 1]


async def test_a_question_that_takes_long_is_answered_in_a_thread(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'analytics.db'}"
    writer = open_engine(url)
    ProjectionRunner(writer, FactProjection())
    model = ReadModel(open_for_reading(url), lambda: True)
    loop_thread, threads = threading.get_ident(), list[int]()

    def count_to(number: int) -> Callable[[Connection], int]:
        sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) FROM n"

        def question(connection: Connection) -> int:
            threads.append(threading.get_ident())
            ((found,),) = run(connection, sql, (number,))
            return int(found)

        return question

    for _ in range(200):
        assert (await model.read(count_to(100)))[1] == 100
    assert set(threads) == {loop_thread}
    assert (await model.read(count_to(100_000)))[1] == 100_000
    assert threads[-1] != loop_thread
    model.close()
    writer.dispose()


async def test_looks_of_one_turn_share_a_reading_and_those_of_the_next_see_what_was_committed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'analytics.db'}"
    writer = open_engine(url)
    runner = ProjectionRunner(writer, FactProjection())
    model = ReadModel(open_for_reading(url), lambda: True)
    before = await model.position()
    assert model.standing() == before
    log = IngestLog()
    log.declare(fact())
    runner.advance(log.store_id, GENESIS, log.events, log.events[-1].digest)
    assert model.standing() == before
    await asyncio.sleep(0)
    assert model.standing() is None
    assert await model.position() == model.standing() == log.head()
    model.close()
    writer.dispose()
