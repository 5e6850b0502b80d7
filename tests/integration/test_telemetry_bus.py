"""A call's trace goes on across a real bus, and what waits to get there is told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from services.kernel import traces
from services.kernel.bus.feed import Feed
from services.kernel.bus.jetstream import JetStreamPublisher, headers
from services.kernel.bus.ledger import RunLedger
from services.kernel.bus.relay import Relay
from services.kernel.bus.replication import read_events
from services.kernel.bus.runs import pack
from services.kernel.bus.subscription import subscribe
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.store.base import GENESIS, Append, NewEvent
from services.kernel.store.opening import open_store
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.broker import INGEST, Broker, broker_in
from tests.fixtures.telemetry import Recording, calls, linked_from, trace_of

LAG = "planier.relay.lag"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlEventStore]:
    store = open_store(f"sqlite:///{tmp_path}/owner.db", clock=SystemClock())
    yield store
    store.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path / "broker", secure=False) as broker:
        yield broker


def declare(store: SqlEventStore, *traceparents: str) -> None:
    ids = RandomIds()
    for traceparent in traceparents:
        store.append([Append(ids.new(), 0, (NewEvent("test.Declared", b"x", ids.new()),))], traceparent=traceparent)


@asynccontextmanager
async def relaying(store: SqlEventStore, broker: Broker, recording: Recording) -> AsyncIterator[RunLedger]:
    connection, ledger = broker.connection("ingest"), RunLedger(store.engine, INGEST.stream)
    publisher = JetStreamPublisher(connection, INGEST, ledger, SystemClock())
    task = asyncio.create_task(Relay(store, publisher, ledger, poll=0.1, telemetry=recording.telemetry).run())
    try:
        yield ledger
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


async def test_a_run_is_in_the_trace_of_its_first_recorded_call(
    store: SqlEventStore, broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "broker").mkdir(exist_ok=True)
    await broker.start()
    owner, reader = Recording("ingest"), Recording("analytics")
    first, second = calls(2)
    declare(store, *calls(2))  # before the reader has caught up: nobody's trace any more
    connection = broker.connection("analytics")
    async with relaying(store, broker, owner) as ledger:
        async with asyncio.timeout(20):
            while await asyncio.to_thread(ledger.cursor) < 2:  # noqa: ASYNC110 -- the relay's state
                await asyncio.sleep(0.02)
        feed = Feed(
            read_events=lambda request: read_events(store, request),
            subscribe=partial(subscribe, connection, INGEST),
            silence=60,
            telemetry=reader.telemetry,
        )
        published = len(owner.named("bus.publish"))
        async with asyncio.timeout(30), aclosing(feed.runs(None)) as runs:
            loaded = await anext(runs)
            assert (len(loaded.events), loaded.traceparent, reader.spans) == (2, "", ())
            following = asyncio.create_task(anext(runs))
            await feed.caught_up.wait()
            await asyncio.to_thread(declare, store, *calls(1, sampled=False), first, second)
            received = [await following]
            while received[-1].position.position < 5:
                received.append(await anext(runs))
    await connection.close()
    told = {trace_of(span) for span in reader.named("bus.receive")}
    assert told <= {traces.trace_id(first), traces.trace_id(second)}
    assert {traces.trace_id(run.traceparent) for run in received if run.traceparent} == told
    sent = owner.named("bus.publish")[published:]
    assert {trace_of(span) for span in sent} == told
    covered = told.union(*(linked_from(span) for span in sent))
    assert covered == {traces.trace_id(first), traces.trace_id(second)}
    assert covered == told.union(*(linked_from(span) for span in reader.named("bus.receive")))


def test_a_message_bears_the_trace_of_its_publication(store: SqlEventStore) -> None:
    (call,) = calls(1)
    declare(store, call)
    [run] = pack(store.store_id, GENESIS, store.read_all(0, 10))
    assert headers(run)["traceparent"] == call
    with Recording("ingest").telemetry.span("bus.publish", parent=call) as span:
        assert headers(run)["traceparent"] == span.traceparent != call
    assert traces.trace_id(span.traceparent) == traces.trace_id(call)


async def test_what_waits_for_an_absent_bus_grows_old_and_then_is_young(
    store: SqlEventStore, broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "broker").mkdir(exist_ok=True)
    recording = Recording("ingest")
    declare(store, "")
    async with relaying(store, broker, recording) as ledger:
        async with asyncio.timeout(20):
            ages = [await until_above(recording, 0.0)]
            ages.append(await until_above(recording, ages[0]))
            await broker.start()
            while await asyncio.to_thread(ledger.cursor) < 1:  # noqa: ASYNC110 -- the relay's state
                await asyncio.sleep(0.02)
            while recording.last_value(LAG) != 0.0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert ages[1] > ages[0] > 0


async def until_above(recording: Recording, age: float) -> float:
    while True:
        try:
            if (value := recording.last_value(LAG)) > age:
                return value
        except (AssertionError, IndexError):
            pass  # nothing told yet
        await asyncio.sleep(0.05)
