"""The read model follows a real ingest store through a real feed, whatever becomes of either."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from planier.analytics.v1.analytics_pb2 import BoundingBox
from planier.ingest.v1 import events_pb2
from sqlalchemy import Engine

from services.analytics.area import area_of_box
from services.analytics.follower import Follower
from services.analytics.projections import FactProjection
from services.analytics.queries import MapQuery, query_map
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.wiring import open_for_writing
from services.kernel.bus.feed import Feed
from services.kernel.bus.replication import read_events
from services.kernel.bus.runs import Run
from services.kernel.clock import SystemClock
from services.kernel.errors import Problem
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import Append, EventStore, NewEvent, Position
from services.kernel.store.engine import scrub
from services.kernel.store.opening import open_store
from tests.fixtures import analytics as built
from tests.fixtures.analytics import NEW_YEAR_US

EVERYWHERE = MapQuery(
    area_of_box(BoundingBox(west=5, south=43, east=6, north=44)), NEW_YEAR_US - 10**15, NEW_YEAR_US + 10**15
)
WORKS = built.granted("works")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the read model lives."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/analytics.db"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[str], EventStore]]:
    """Ingest stores by name."""
    opened = []

    def give(name: str) -> EventStore:
        store = open_store(f"sqlite:///{tmp_path}/{name}.db", clock=SystemClock())
        opened.append(store)
        return store

    yield give
    for store in opened:
        store.close()


def write(store: EventStore, key: str, message: Message) -> None:
    event = NewEvent(message.DESCRIPTOR.full_name, message.SerializeToString(), str(uuid4()))
    store.append([Append(f"fact-{key}", None, (event,))])


def declare(store: EventStore, *source_ids: str) -> None:
    for source_id in source_ids:
        key = built.fact_id("works", source_id)
        write(store, key, events_pb2.FactDeclared(fact_id=key, fact=built.fact(source_id)))


class Reader:
    """The pieces of one analytics process that follow and read."""

    def __init__(self, url: str, store: EventStore) -> None:
        self.store = store
        self.writer: Engine = open_for_writing(url)
        runner = ProjectionRunner(self.writer, FactProjection())
        feed = Feed(read_events=lambda request: read_events(self.store, request), subscribe=None, poll=0.02)
        self.follower = Follower(runner, feed, retry_seconds=0.02, scrub=partial(scrub, self.writer, 100))
        self.model = ReadModel(open_for_reading(url), self.follower.caught_up.is_set)

    async def titles_of(self, expected: Position) -> list[str]:
        """The facts' ids once the model stands at a position; the test's own timeout bounds the wait."""
        await self.follower.caught_up.wait()
        while True:
            position, answer = await self.model.read(lambda connection: query_map(connection, WORKS, EVERYWHERE))
            if position == expected:
                return sorted(bytes(details[1]).hex() for _, details in answer.features)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def following(url: str, store: EventStore) -> AsyncIterator[Reader]:
    reader = await asyncio.to_thread(Reader, url, store)
    task = asyncio.create_task(reader.follower.run())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(reader.model.close)
        await asyncio.to_thread(reader.writer.dispose)


def ids(*source_ids: str) -> list[str]:
    return sorted(built.fact_id("works", source_id) for source_id in source_ids)


async def test_first_load_then_live_then_a_restart_apply_each_event_once(
    url: str, stores: Callable[[str], EventStore]
) -> None:
    store = stores("ingest")
    declare(store, "a", "b")
    async with following(url, store) as reader:
        await asyncio.wait_for(reader.follower.caught_up.wait(), 20)
        assert await reader.titles_of(store.head()) == ids("a", "b")
        declare(store, "c")
        assert await reader.titles_of(store.head()) == ids("a", "b", "c")
    declare(store, "d")
    async with following(url, store) as reader:
        assert await reader.titles_of(store.head()) == ids("a", "b", "c", "d")


async def test_an_erasure_reaches_the_read_model(url: str, stores: Callable[[str], EventStore]) -> None:
    store = stores("ingest")
    declare(store, "a", "b")
    async with following(url, store) as reader:
        await reader.titles_of(store.head())
        key = built.fact_id("works", "a")
        with store.write() as transaction:
            erased = events_pb2.FactErased(fact_id=key)
            event = NewEvent(erased.DESCRIPTOR.full_name, erased.SerializeToString(), str(uuid4()))
            (committed,) = transaction.append([Append(f"fact-{key}", None, (event,))])
            transaction.erase(f"fact-{key}", committed.last_position)  # type: ignore[union-attr]
        assert await reader.titles_of(store.head()) == ids("b")


async def test_no_byte_of_an_erased_fact_stays_in_the_files(
    tmp_path: Path, stores: Callable[[str], EventStore]
) -> None:
    store = stores("ingest")
    key, title = built.fact_id("works", "a"), "Réfection de la rue Haxo"
    write(store, key, events_pb2.FactDeclared(fact_id=key, fact=built.fact("a", title=title)))
    async with following(f"sqlite:///{tmp_path}/analytics.db", store) as reader:
        await reader.titles_of(store.head())
        write(store, key, events_pb2.FactErased(fact_id=key))
        assert await reader.titles_of(store.head()) == []
        # The answer may come before the scrubbing, which is over once the next run is applied.
        declare(store, "b")
        assert await reader.titles_of(store.head()) == ids("b")
        assert holding(tmp_path, title) == []


def holding(folder: Path, text: str) -> list[str]:
    return [file.name for file in folder.glob("analytics.db*") if text.encode() in file.read_bytes()]


async def test_another_store_behind_ingest_makes_a_rebuild(url: str, stores: Callable[[str], EventStore]) -> None:
    first, second = stores("first"), stores("second")
    declare(first, "a", "b", "c")
    declare(second, "z")
    async with following(url, first) as reader:
        await reader.titles_of(first.head())
        reader.store = second
        assert await reader.titles_of(second.head()) == ids("z")
        declare(second, "y")
        assert await reader.titles_of(second.head()) == ids("y", "z")


async def test_nothing_is_answered_before_the_first_load_and_an_empty_ingest_is_an_empty_map(
    url: str, stores: Callable[[str], EventStore]
) -> None:
    reader = await asyncio.to_thread(Reader, url, stores("ingest"))
    with pytest.raises(Problem, match="READ_MODEL_NOT_READY"):
        await reader.model.position()
    task = asyncio.create_task(reader.follower.run())
    await asyncio.wait_for(reader.follower.caught_up.wait(), 20)
    position, answer = await reader.model.read(lambda connection: query_map(connection, WORKS, EVERYWHERE))
    assert (position.position, answer.total) == (0, 0)
    declare(reader.store, "a")
    assert await reader.titles_of(reader.store.head()) == ids("a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(reader.model.close)
    await asyncio.to_thread(reader.writer.dispose)


class Deaf:
    """A source that does not hear the first word to stop, as `asyncio.wait_for` where a result comes with it."""

    def __init__(self, run: Run) -> None:
        self.caught_up = asyncio.Event()
        self.asked = 0
        self.asked_again = asyncio.Event()
        self._run = run

    async def runs(self, cursor: Position | None) -> AsyncGenerator[Run, None]:
        assert cursor is None
        self.asked += 1
        if self.asked > 2:
            self.asked_again.set()
        yield self._run
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        while True:
            yield self._run


async def test_a_failed_turn_is_tried_again_whatever_its_source_overheard(
    tmp_path: Path, stores: Callable[[str], EventStore]
) -> None:
    store = stores("ingest")
    declare(store, "a", "b")
    feed = Feed(read_events=lambda request: read_events(store, request), subscribe=None, poll=0.02)
    async with aclosing(feed.runs(store.position_at(1))) as runs:
        gap = Deaf(await anext(runs))
    writer = open_for_writing(f"sqlite:///{tmp_path}/analytics.db")
    follower = Follower(ProjectionRunner(writer, FactProjection()), gap, retry_seconds=0.01)
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(gap.asked_again.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    writer.dispose()


async def test_an_answer_and_its_position_are_of_one_instant(url: str, stores: Callable[[str], EventStore]) -> None:
    store = stores("ingest")
    declare(store, "0")
    async with following(url, store) as reader:
        await asyncio.wait_for(reader.follower.caught_up.wait(), 20)

        async def ask() -> None:
            for _ in range(60):
                position, answer = await reader.model.read(lambda connection: query_map(connection, WORKS, EVERYWHERE))
                assert answer.total == position.position

        async def tell() -> None:
            for number in range(1, 60):
                await asyncio.to_thread(declare, store, str(number))

        await asyncio.gather(ask(), ask(), tell())
