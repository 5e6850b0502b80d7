"""Store → relay → nats-server → feed, all real; what is lost on the way is read from the owner."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest, ReadEventsResponse

from services.kernel.bus.base import BusUnavailable
from services.kernel.bus.feed import Feed, Subscribe
from services.kernel.bus.jetstream import JetStreamPublisher
from services.kernel.bus.ledger import RunLedger
from services.kernel.bus.relay import Relay
from services.kernel.bus.replication import read_events
from services.kernel.bus.runs import Run, pack
from services.kernel.bus.subscription import subscribe
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.projection import Diverged
from services.kernel.store.base import Append, NewEvent, Position, StoredEvent
from services.kernel.store.opening import open_store
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.broker import INGEST, Broker, broker_in

ERASING = "test.Erased"
LONG = 20.0
IDS = RandomIds()


@dataclass
class Owner:
    """A store whose ReadEvents counts its calls."""

    store: SqlEventStore
    calls: int = 0

    def declare(self, stream: str, count: int, payload: bytes = b"payload", kind: str = "test.Declared") -> int:
        events = tuple(NewEvent(kind, payload, IDS.new()) for _ in range(count))
        traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
        self.store.append([Append(stream, None, events)], traceparent=traceparent)
        return self.store.head().position

    def erase(self, stream: str) -> tuple[int, ...]:
        with self.store.write() as transaction:
            transaction.append([Append(stream, None, (NewEvent(ERASING, b"", IDS.new()),))])
            return transaction.erase(stream, transaction.read_stream(stream)[-1].position)

    async def read(self, request: ReadEventsRequest) -> AsyncIterator[ReadEventsResponse]:
        self.calls += 1
        async for response in read_events(self.store, request):
            yield response


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    store = open_store(f"sqlite:///{tmp_path}/owner/owner.db", clock=SystemClock())
    yield Owner(store)
    store.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path, secure=True) as broker:
        yield broker


def ledger_of(owner: Owner) -> RunLedger:
    return RunLedger(owner.store.engine, INGEST.stream)


@asynccontextmanager
async def relaying(owner: Owner, broker: Broker) -> AsyncIterator[RunLedger]:
    connection = broker.connection("ingest")
    ledger = ledger_of(owner)
    publisher = JetStreamPublisher(connection, INGEST, ledger, SystemClock())
    relay = Relay(owner.store, publisher, ledger, erasing_types={ERASING}, poll=0.2)
    task = asyncio.create_task(relay.run())
    try:
        yield ledger
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


@asynccontextmanager
async def reading(broker: Broker) -> AsyncIterator[Subscribe]:
    connection = broker.connection("analytics")
    try:
        yield partial(subscribe, connection, INGEST)
    finally:
        await connection.close()


async def collect(feed: Feed, last: int, cursor: Position | None = None) -> tuple[StoredEvent, ...]:
    """The events that the feed yields until a position; 30 s at most."""
    events: list[StoredEvent] = []
    async with asyncio.timeout(30), aclosing(feed.runs(cursor)) as runs:
        async for run in runs:
            events += run.events
            if run.position.position >= last:
                break
    return tuple(events)


async def published_to(ledger: RunLedger, position: int) -> None:
    async with asyncio.timeout(30):
        while await asyncio.to_thread(ledger.cursor) < position:  # noqa: ASYNC110 -- another process's state, in effect
            await asyncio.sleep(0.02)


async def test_a_feed_yields_exactly_the_stores_events_once_and_in_order(owner: Owner, broker: Broker) -> None:
    await broker.start()
    before = owner.declare("before", 1500)
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        await published_to(ledger, before)
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG)
        collecting = asyncio.create_task(collect(feed, 4000))
        await asyncio.wait_for(feed.caught_up.wait(), 20)
        for number in range(25):
            await asyncio.to_thread(owner.declare, f"live-{number}", 100)
        events = await collecting
    assert events == owner.store.read_all(0, 10_000)
    # All live events came by the bus: the owner was asked once.
    assert owner.calls == 1


async def test_what_was_committed_without_a_bus_is_published_when_it_comes(owner: Owner, broker: Broker) -> None:
    last = owner.declare("early", 10)
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG, poll=0.1)
        # Without any bus, a consumer still progresses.
        assert len(await collect(feed, last)) == 10
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(ledger.cursor) == 0
        await broker.start()
        await published_to(ledger, last)


async def test_losing_all_of_jetstream_heals_by_itself(owner: Owner, broker: Broker) -> None:
    await broker.start()
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG, poll=0.1)
        collecting = asyncio.create_task(collect(feed, 300))
        await published_to(ledger, await asyncio.to_thread(owner.declare, "first", 100))
        broker.lose_storage()
        await asyncio.to_thread(owner.declare, "second", 100)
        await broker.start()
        await published_to(ledger, 200)
        await asyncio.to_thread(owner.declare, "third", 100)
        events = await collecting
        await published_to(ledger, 300)
    assert events == owner.store.read_all(0, 1000)


async def test_a_restarted_broker_goes_on_where_it_was(owner: Owner, broker: Broker) -> None:
    await broker.start()
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG, poll=0.1)
        collecting = asyncio.create_task(collect(feed, 40))
        await published_to(ledger, await asyncio.to_thread(owner.declare, "first", 20))
        broker.stop(signal.SIGTERM)
        await broker.start()
        await asyncio.to_thread(owner.declare, "second", 20)
        assert await collecting == owner.store.read_all(0, 100)


async def test_a_hole_in_the_bus_is_filled_by_the_owner(owner: Owner, broker: Broker) -> None:
    await broker.start()
    connection = broker.connection("ingest")
    ledger = ledger_of(owner)
    publisher = JetStreamPublisher(connection, INGEST, ledger, SystemClock())
    await publisher.prepare()
    async with reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG)
        collecting = asyncio.create_task(collect(feed, 30))
        await asyncio.wait_for(feed.caught_up.wait(), 20)
        owner.declare("stream", 30)
        events = owner.store.read_all(0, 30)
        last: EventRun = next(pack(owner.store.store_id, events[19].digest, events[20:]))
        await publisher.publish(last)
        assert await collecting == events
    assert owner.calls == 2
    await connection.close()


async def test_a_restored_store_makes_the_reader_rebuild(owner: Owner, broker: Broker, tmp_path: Path) -> None:
    await broker.start()
    owner.declare("kept", 10)
    owner.store.close()
    backup = tmp_path / "restored" / "owner.db"
    backup.parent.mkdir()
    shutil.copy(tmp_path / "owner" / "owner.db", backup)
    owner.declare("lost", 5)
    cursor = owner.store.head()
    restored = Owner(open_store(f"sqlite:///{backup}", clock=SystemClock()))
    try:
        async with relaying(restored, broker), reading(broker) as open_subscription:
            # A reader that was following notices although the restored store goes on publishing lower positions.
            feed = Feed(read_events=restored.read, subscribe=open_subscription, silence=0.5)
            restored.declare("other", 7)
            with pytest.raises(Diverged):
                await collect(feed, 20, cursor)
            rebuilt = Feed(read_events=restored.read, subscribe=open_subscription, silence=0.5)
            assert await collect(rebuilt, 17) == restored.store.read_all(0, 100)
    finally:
        restored.store.close()


async def test_an_erased_event_leaves_the_bus_and_still_verifies(owner: Owner, broker: Broker) -> None:
    await broker.start()
    secret = b"the words that must go away from every file"
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        owner.declare("fact-a", 3, secret)
        await published_to(ledger, await asyncio.to_thread(owner.declare, "fact-b", 3, b"the words that may stay"))
        assert broker.holds(secret)
        assert await asyncio.to_thread(owner.erase, "fact-a") == (1, 2, 3)
        await published_to(ledger, 7)
        assert not broker.holds(secret)
        feed = Feed(read_events=owner.read, subscribe=open_subscription)
        events = await collect(feed, 7)
    assert [event.erased_by for event in events] == [7, 7, 7, 0, 0, 0, 0]
    assert events == owner.store.read_all(0, 10)


async def test_a_message_that_no_relay_remembers_is_removed_at_the_start(owner: Owner, broker: Broker) -> None:
    await broker.start()
    secret = b"published just before the relay was killed"
    owner.declare("fact-a", 1, secret)
    connection = broker.connection("ingest")
    ledger = ledger_of(owner)
    client = await connection.client()
    await JetStreamPublisher(connection, INGEST, ledger, SystemClock()).prepare()
    forgotten: EventRun = next(pack(owner.store.store_id, bytes(32), owner.store.read_all(0, 1)))
    await client.jetstream().publish(INGEST.subject, forgotten.SerializeToString())
    assert broker.holds(secret)
    owner.erase("fact-a")
    async with relaying(owner, broker):
        await published_to(ledger, 2)
    assert not broker.holds(secret)
    await connection.close()


async def test_an_event_too_large_for_the_bus_reaches_the_reader(owner: Owner, broker: Broker) -> None:
    await broker.start()
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG)
        collecting = asyncio.create_task(collect(feed, 3))
        await asyncio.wait_for(feed.caught_up.wait(), 20)
        await asyncio.to_thread(owner.declare, "large", 1, bytes(2_000_000))
        await published_to(ledger, 1)
        await asyncio.to_thread(owner.declare, "small", 2)
        assert await collecting == owner.store.read_all(0, 10)


async def test_two_relays_of_one_store_disturb_nobody(owner: Owner, broker: Broker) -> None:
    await broker.start()
    async with relaying(owner, broker), relaying(owner, broker), reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=2.0)
        collecting = asyncio.create_task(collect(feed, 400))
        for number in range(40):
            await asyncio.to_thread(owner.declare, f"stream-{number}", 10)
        assert await collecting == owner.store.read_all(0, 1000)


async def test_a_slow_reader_holds_few_messages_and_misses_nothing(owner: Owner, broker: Broker) -> None:
    await broker.start()
    async with relaying(owner, broker) as ledger, reading(broker) as open_subscription:
        feed = Feed(read_events=owner.read, subscribe=open_subscription, silence=LONG)
        seen: list[Run] = []
        async with asyncio.timeout(60), aclosing(feed.runs(None)) as runs:
            owner.declare("first", 1)
            seen.append(await anext(runs))
            for number in range(30):
                await asyncio.to_thread(owner.declare, f"large-{number}", 1, bytes(400_000))
            await published_to(ledger, 31)
            async for run in runs:
                seen.append(run)
                if run.position.position == 31:
                    break
    assert [event.position for run in seen for event in run.events] == list(range(1, 32))


async def test_a_reader_may_not_publish_nor_administer(broker: Broker) -> None:
    await broker.start()
    owner, reader = broker.connection("ingest"), broker.connection("analytics")
    context = (await owner.client()).jetstream(timeout=2.0)
    await context.add_stream(name=INGEST.stream, subjects=[INGEST.subject])
    await context.publish(INGEST.subject, b"owner")
    forbidden = (await reader.client()).jetstream(timeout=0.5)
    with pytest.raises(TimeoutError):
        await forbidden.publish(INGEST.subject, b"reader")
    with pytest.raises(TimeoutError):
        await forbidden.delete_msg(INGEST.stream, 1)
    assert (await context.publish(INGEST.subject, b"owner again")).seq == 2
    await owner.close()
    await reader.close()


@pytest.mark.parametrize("stranger", ["audit", "cli"])
async def test_others_cannot_read(broker: Broker, stranger: str) -> None:
    await broker.start()
    owner, other = broker.connection("ingest"), broker.connection(stranger)
    context = (await owner.client()).jetstream(timeout=2.0)
    await context.add_stream(name=INGEST.stream, subjects=[INGEST.subject])
    with pytest.raises(BusUnavailable):
        await subscribe(other, INGEST)
    await owner.close()
    await other.close()
