"""The feed over a bus that loses, doubles, reorders and lies: the consumer sees the store's events, once, in order."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest, ReadEventsResponse

from services.kernel.bus.base import BusUnavailable, SubscriptionLost
from services.kernel.bus.feed import Feed
from services.kernel.bus.replication import CHAIN_DIVERGED, read_events
from services.kernel.bus.runs import pack
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.errors import Problem, unavailable
from services.kernel.projection import Diverged
from services.kernel.store.base import GENESIS, Append, NewEvent, Position, StoredEvent
from services.kernel.store.opening import open_store
from services.kernel.store.sql import SqlEventStore

COUNT = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEventStore]:
    folder: Path = tmp_path_factory.mktemp("feed")
    store = open_store(f"sqlite:///{folder}/owner.db", clock=SystemClock())
    ids = RandomIds()
    store.append([Append("s", None, tuple(NewEvent("test.Declared", b"x" * n, ids.new()) for n in range(COUNT)))])
    yield store
    store.close()


class ScriptedBus:
    """Gives the messages in the order of the script, an exception where it holds one, then silence."""

    def __init__(self, script: Sequence[EventRun | Exception]) -> None:
        self.script = list(script)
        self.open = 0

    async def subscribe(self) -> "ScriptedBus":
        self.open += 1
        return self

    async def next(self, seconds: float) -> EventRun | None:
        if not self.script:
            await asyncio.sleep(min(seconds, 0.001))
            return None
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        self.open -= 1


class GrowingOwner:
    """The owner answers from the real store, as if only `visible` events had been committed so far, one more a call."""

    def __init__(self, store: SqlEventStore, visible: int) -> None:
        self.events = store.read_all(0, COUNT)
        self.store_id = store.store_id
        self.visible = visible

    async def read(self, request: ReadEventsRequest) -> AsyncIterator[ReadEventsResponse]:
        await asyncio.sleep(0)
        waiting = self.events[request.after_position : self.visible]
        for run in pack(self.store_id, request.after_digest or GENESIS, waiting, 400):
            yield ReadEventsResponse(run=run)
        yield ReadEventsResponse(caught_up=True, run=EventRun(store_id=self.store_id))
        self.visible = min(self.visible + 5, COUNT)


async def collect(feed: Feed, cursor: Position | None = None) -> tuple[StoredEvent, ...]:
    events: list[StoredEvent] = []
    async with asyncio.timeout(5), aclosing(feed.runs(cursor)) as runs:
        async for run in runs:
            events += run.events
            if run.position.position == COUNT:
                break
    return tuple(events)


def message(events: Sequence[StoredEvent], store_id: str, first: int, size: int, *, lie: bool) -> EventRun:
    before = events[first - 1].digest if first else GENESIS
    run = next(pack(store_id, before, events[first : first + size]))
    if lie:
        run.events[0].stream = "another"
    return run


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, COUNT - 1), st.integers(1, COUNT), st.booleans()),
        st.just(None),
    ),
    max_size=30,
)


@pytest.mark.timeout(60)
@given(MESSAGES, st.integers(0, COUNT))
@settings(max_examples=40, deadline=None)
def test_whatever_the_bus_does_each_event_comes_once_and_in_order(
    store: SqlEventStore, script: list[tuple[int, int, bool] | None], visible: int
) -> None:
    owner = GrowingOwner(store, visible)
    bus = ScriptedBus(
        [
            SubscriptionLost() if item is None else message(owner.events, store.store_id, *item[:2], lie=item[2])
            for item in script
        ]
    )
    feed = Feed(read_events=owner.read, subscribe=bus.subscribe, silence=0.002, poll=0.001)
    assert asyncio.run(collect(feed)) == owner.events
    assert bus.open == 0


async def test_a_consumer_without_bus_progresses(store: SqlEventStore) -> None:
    owner = GrowingOwner(store, 0)

    async def refuse() -> ScriptedBus:
        raise BusUnavailable

    assert await collect(Feed(read_events=owner.read, subscribe=refuse, poll=0.001)) == owner.events


async def test_an_answer_that_is_cut_goes_on_from_where_it_was(store: SqlEventStore) -> None:
    owner, asked = GrowingOwner(store, COUNT), list[int]()

    async def read(request: ReadEventsRequest) -> AsyncIterator[ReadEventsResponse]:
        asked.append(request.after_position)
        if len(asked) == 1:
            raise unavailable("OWNER_STARTING", "not yet")
        async for response in owner.read(request):
            yield response
            if len(asked) < 5:
                return  # the stream ends without caught_up

    assert await collect(Feed(read_events=read, subscribe=None, poll=0.001)) == owner.events
    assert asked == sorted(asked)
    assert asked[:2] == [0, 0]
    assert asked[2] > 0


async def test_the_owners_own_lie_is_a_divergence(store: SqlEventStore) -> None:
    owner = GrowingOwner(store, COUNT)

    async def read(request: ReadEventsRequest) -> AsyncIterator[ReadEventsResponse]:
        async for response in owner.read(request):
            response.run.digest = bytes(32)
            yield response

    with pytest.raises(Diverged):
        await collect(Feed(read_events=read, subscribe=None))


@pytest.mark.parametrize(
    "cursor",
    [
        Position("another-store", 3, bytes(32)),
        Position("same", 3, bytes(32)),
        Position("same", COUNT + 1, bytes(32)),
        Position("same", 0, b"\1" * 32),
    ],
)
async def test_a_cursor_that_the_store_never_had_is_refused(store: SqlEventStore, cursor: Position) -> None:
    name = store.store_id if cursor.store_id == "same" else cursor.store_id
    request = ReadEventsRequest(store_id=name, after_position=cursor.position, after_digest=cursor.digest)
    with pytest.raises(Problem) as refused:
        [response async for response in read_events(store, request)]
    assert refused.value.reason == CHAIN_DIVERGED


async def test_the_owners_answer_ends_with_caught_up_even_when_nothing_is_new(store: SqlEventStore) -> None:
    head = store.head()
    request = ReadEventsRequest(store_id=head.store_id, after_position=head.position, after_digest=head.digest)
    answer = [response async for response in read_events(store, request)]
    assert [(response.caught_up, len(response.run.events)) for response in answer] == [(True, 0)]
