"""What every bus does for `RunPublisher` and `RunSubscription`; a new implementation is one more parameter."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from planier.common.v1.event_pb2 import EventRun, StoredEvent

from services.kernel.bus.base import BusUnavailable, RunPublisher, RunSubscription, SubscriptionLost
from services.kernel.bus.jetstream import JetStreamPublisher
from services.kernel.bus.ledger import RunLedger
from services.kernel.bus.subscription import subscribe
from services.kernel.clock import SystemClock
from services.kernel.store.engine import open_engine
from tests.fixtures.broker import INGEST, Broker, broker_in


@dataclass
class Bus:
    publisher: RunPublisher
    subscribe: Callable[[], Awaitable[RunSubscription]]
    broker: Broker
    ledger: RunLedger


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The owner's database, which remembers what is on the bus."""
    if request.param == "postgresql":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path}/owner.db"


@pytest.fixture
async def bus(tmp_path: Path, url: str) -> AsyncIterator[Bus]:
    engine = open_engine(url)
    with broker_in(tmp_path, secure=False) as broker:
        await broker.start()
        owner, reader = broker.connection("ingest"), broker.connection("analytics")
        ledger = RunLedger(engine, INGEST.stream)
        publisher = JetStreamPublisher(owner, INGEST, ledger, SystemClock())
        await publisher.prepare()
        yield Bus(publisher, partial(subscribe, reader, INGEST), broker, ledger)
        await owner.close()
        await reader.close()
    engine.dispose()


def run_of(first: int, last: int, payload: bytes = b"payload") -> EventRun:
    events = [StoredEvent(position=position, payload=payload) for position in range(first, last + 1)]
    digest = last.to_bytes(32, "big")
    return EventRun(store_id="s", first_position=first, last_position=last, digest=digest, events=events)


async def received(subscription: RunSubscription, count: int) -> list[EventRun]:
    runs = [await subscription.next(10) for _ in range(count)]
    return [run for run in runs if run is not None]


async def test_a_reader_gets_what_is_published_after_it_opened_in_order(bus: Bus) -> None:
    await bus.publisher.publish(run_of(1, 2))
    subscription = await bus.subscribe()
    runs = [run_of(n, n) for n in range(3, 23)]
    for run in runs:
        await bus.publisher.publish(run)
    assert await received(subscription, 20) == runs
    assert await subscription.next(0.1) is None
    await subscription.close()


async def test_a_run_published_twice_arrives_once_and_is_remembered(bus: Bus) -> None:
    subscription = await bus.subscribe()
    for run in (run_of(1, 5), run_of(1, 5), run_of(6, 6)):
        await bus.publisher.publish(run)
    assert await received(subscription, 2) == [run_of(1, 5), run_of(6, 6)]
    assert bus.ledger.cursor() == 6
    await subscription.close()


async def test_the_cursor_never_moves_back(bus: Bus) -> None:
    await bus.publisher.publish(run_of(1, 9))
    await bus.publisher.publish(run_of(3, 4))
    assert bus.ledger.cursor() == 9


async def test_runs_under_way_together_arrive_in_the_order_of_the_calls(bus: Bus) -> None:
    subscription = await bus.subscribe()
    runs = [run_of(n, n) for n in range(1, 21)]
    await asyncio.gather(*(bus.publisher.publish(run) for run in runs))
    assert bus.ledger.cursor() == 20
    assert await received(subscription, 20) == runs
    await subscription.close()


async def test_the_cursor_stands_before_a_run_that_failed_although_the_next_arrived(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, real = asyncio.Event(), JetStreamPublisher._send

    async def send(publisher: JetStreamPublisher, run: EventRun) -> object:
        if run.first_position == 1:
            await arrived.wait()
            raise BusUnavailable("not acknowledged")
        sent = await real(publisher, run)
        arrived.set()
        return sent

    with monkeypatch.context() as patch:
        patch.setattr(JetStreamPublisher, "_send", send)
        under_way = (bus.publisher.publish(run_of(1, 1)), bus.publisher.publish(run_of(2, 2)))
        failed = await asyncio.gather(*under_way, return_exceptions=True)
    assert [type(each) for each in failed] == [BusUnavailable, BusUnavailable]
    assert bus.ledger.cursor() == 0
    for run in (run_of(1, 1), run_of(2, 2)):
        await bus.publisher.publish(run)
    assert bus.ledger.cursor() == 2


async def test_an_erased_message_is_gone_from_disk_and_its_neighbours_stay(bus: Bus) -> None:
    await bus.publisher.publish(run_of(1, 3, b"the first words on disk"))
    await bus.publisher.publish(run_of(4, 6, b"the words to be erased"))
    await bus.publisher.publish(run_of(7, 9, b"the last words on disk"))
    await bus.publisher.erase([5])
    await bus.publisher.erase([5])
    assert not bus.broker.holds(b"the words to be erased")
    assert bus.broker.holds(b"the first words on disk")
    assert bus.broker.holds(b"the last words on disk")


async def test_erasing_survives_a_relay_that_forgot_everything_but_its_tables(bus: Bus) -> None:
    await bus.publisher.publish(run_of(1, 3, b"the words to be erased"))
    connection = bus.broker.connection("ingest")
    successor = JetStreamPublisher(connection, INGEST, bus.ledger, SystemClock())
    await successor.prepare()
    assert bus.broker.holds(b"the words to be erased")
    await successor.erase([2])
    assert not bus.broker.holds(b"the words to be erased")
    await connection.close()


@pytest.mark.parametrize("position", [2, 5, 8])
async def test_an_erasure_that_its_relay_did_not_live_to_remember_is_made_again(bus: Bus, position: int) -> None:
    for first in (1, 4, 7):
        await bus.publisher.publish(run_of(first, first + 2, f"words of {first}".encode()))
    connection = bus.broker.connection("ingest")
    killed = (await connection.client()).jetstream()
    await killed.delete_msg(INGEST.stream, position // 3 + 1)
    await bus.publisher.erase([position])
    await bus.publisher.publish(run_of(10, 12))
    assert bus.ledger.cursor() == 12
    await connection.close()


async def test_a_lost_bus_is_told_to_both_sides_and_taken_again_when_it_is_back(bus: Bus) -> None:
    subscription = await bus.subscribe()
    await bus.publisher.publish(run_of(1, 1))
    assert await received(subscription, 1) == [run_of(1, 1)]
    bus.broker.lose_storage()
    with pytest.raises(SubscriptionLost):
        await subscription.next(10)
    await subscription.close()
    with pytest.raises(BusUnavailable):
        await bus.publisher.publish(run_of(2, 2))
    assert bus.ledger.cursor() == 1
    await bus.broker.start()
    await until_published(bus.publisher, run_of(2, 2))
    subscription = await bus.subscribe()
    await bus.publisher.publish(run_of(3, 3))
    assert await received(subscription, 1) == [run_of(3, 3)]
    await subscription.close()


async def test_a_reader_told_to_stop_as_its_connection_closes_stops(bus: Bus) -> None:
    connection = bus.broker.connection("analytics")
    subscription = await subscribe(connection, INGEST)
    waiting = asyncio.create_task(subscription.next(10))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await (await connection.client()).close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_reader_told_to_stop_while_it_subscribes_stops(bus: Bus) -> None:
    connection = bus.broker.connection("analytics")
    client = await connection.client()
    assert bus.broker.process is not None
    bus.broker.process.send_signal(signal.SIGSTOP)
    # Between the signal and its effect the broker could still answer.
    while "T (stopped)" not in Path(f"/proc/{bus.broker.process.pid}/status").read_text():  # noqa: ASYNC110, ASYNC240 -- of the kernel
        await asyncio.sleep(0.001)
    subscribing = asyncio.create_task(subscribe(connection, INGEST))
    await asyncio.sleep(0.05)
    await client.close()
    subscribing.cancel()
    bus.broker.process.send_signal(signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await subscribing


async def until_published(publisher: RunPublisher, run: EventRun) -> None:
    for _ in range(100):
        try:
            await publisher.publish(run)
        except BusUnavailable:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the bus did not come back")
