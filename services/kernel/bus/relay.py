"""Publishes a store's events on the bus, in order, each at least once; the store itself is the spool."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence

from opentelemetry.trace import SpanKind
from planier.common.v1.event_pb2 import EventRun
from sqlalchemy.exc import OperationalError

from services.kernel.bus.base import BusUnavailable, RunPublisher
from services.kernel.bus.columns import pack_columns, traceparents
from services.kernel.bus.ledger import RunLedger
from services.kernel.clock import Clock, SystemClock, microseconds
from services.kernel.store.base import GENESIS, EventStore, Position, StoredEvent
from services.kernel.telemetry import Telemetry

logger = logging.getLogger(__name__)

PAGE = 1000
# Runs sent and not acknowledged and remembered yet: the next one need not wait for the bus's flush of the one before.
UNDER_WAY = 8
# Up to so many events are read and packed on the event loop: a thread's turn costs as much as fifty of them.
NEAR = 50


class Relay:
    """Reads after its cursor, publishes runs, moves the cursor once each is acknowledged.

    `erasing_types`: full names of events that erased earlier events of their own stream. Before such an event is
    published, the bus messages that hold what it erased are deleted; the cursor stands before it until then, so a
    crash repeats the deletion. Two relays of one store are harmless: both publish the same events, readers skip.
    """

    def __init__(
        self,
        store: EventStore,
        publisher: RunPublisher,
        ledger: RunLedger,
        *,
        erasing_types: Collection[str] = (),
        poll: float = 1.0,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._ledger = ledger
        self._erasing_types = frozenset(erasing_types)
        self._poll = poll
        self._telemetry = telemetry or Telemetry.off()
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._available = True
        self._failed = False
        self._published = 0
        # Up to where runs were sent, once the cursor was read.
        self._reached: Position | None = None
        self._under_way: deque[asyncio.Task[None]] = deque()
        self._near: Callable[[int, int], Sequence[StoredEvent]] | None = None

    def keeps_up(self, head: int, most: int) -> bool:
        """Whether at most so many events wait up to `head`; true without a bus, whose absence must stop nobody."""
        return not self._available or not self._published or head - self._published <= most

    async def run(self) -> None:
        """Runs until cancelled; waits out an absent bus or database, `poll` seconds between attempts."""
        self._store.on_commit(_Waker(asyncio.get_running_loop(), self._wake))
        self._near = await asyncio.to_thread(self._store.open_recent)
        try:
            await self._publish()
        finally:
            await self._abandon()

    async def _publish(self) -> None:
        prepared = False
        while True:
            self._wake.clear()
            try:
                if not prepared:
                    await self._publisher.prepare()
                    prepared = True
                idle = await self._publish_page()
            except (BusUnavailable, OperationalError) as problem:
                await self._abandon()
                self._note(available=False, why=type(problem).__name__)
                await self._tell_lag()
                # Commits must not shorten the wait: they would make one attempt each.
                await asyncio.sleep(self._poll)
                continue
            self._note(available=True)
            if idle:
                await self._rest()

    async def _rest(self) -> None:
        """Until something was committed or what is under way failed, `poll` seconds at most."""
        try:
            async with asyncio.timeout(self._poll):
                await self._wake.wait()
        except TimeoutError:
            return

    def _look(self, sent: "asyncio.Task[None]") -> None:
        """Wakes the relay where a run failed: it is told once those before it have come to their end."""
        if not sent.cancelled() and sent.exception() is not None:
            self._failed = True
        if self._failed:
            self._wake.set()

    async def _abandon(self) -> None:
        """Ends what is under way; the cursor says again from where to go on."""
        while self._under_way:
            task = self._under_way.popleft()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._reached = None
        self._failed = False

    def _note(self, *, available: bool, why: str = "") -> None:
        if available and not self._available:
            logger.info("relay publishes again")
        if not available and self._available:
            logger.warning("relay waits: %s", why)
        self._available = available

    async def _publish_page(self) -> bool:
        """Publishes what one read of the store gives; True when there was nothing more to read."""
        await self._ended()
        near = self._read_near()
        events, runs = near if near is not None else await asyncio.to_thread(self._read)
        self._state_lag(events[0].recorded_at_us if events else 0)
        for run in runs:
            start = run.first_position - events[0].position
            erased = await self._erased_by(events[start : run.last_position + 1 - events[0].position])
            if erased:
                await self._acknowledged(0)
                await self._publisher.erase(erased)
            await self._acknowledged(UNDER_WAY - 1)
            sent = asyncio.create_task(self._send(run))
            sent.add_done_callback(self._look)
            self._under_way.append(sent)
            self._reached = Position(run.store_id, run.last_position, run.digest)
        return len(events) < PAGE

    async def _send(self, run: EventRun) -> None:
        with self._telemetry.following("bus.publish", SpanKind.PRODUCER, traceparents(run)):
            await self._publisher.publish(run)
        self._published = run.last_position

    async def _ended(self) -> None:
        """Raises what ended a run, once those before it have ended."""
        while self._under_way and self._under_way[0].done():
            await self._under_way[0]
            self._under_way.popleft()

    async def _acknowledged(self, most: int) -> None:
        """Returns once at most so many runs are under way."""
        while len(self._under_way) > most:
            await self._under_way[0]
            self._under_way.popleft()

    async def _tell_lag(self) -> None:
        """While the bus is away, nothing else says how much waits."""
        if self._telemetry.is_on:
            with contextlib.suppress(OperationalError):
                waiting = await asyncio.to_thread(lambda: self._store.read_all(self._ledger.cursor(), 1))
                self._state_lag(waiting[0].recorded_at_us if waiting else 0)

    def _state_lag(self, oldest_us: int) -> None:
        lag = max(0, microseconds(self._clock.now()) - oldest_us) / 1_000_000 if oldest_us else 0.0
        self._telemetry.state("planier.relay.lag", lag, stream=self._ledger.stream)

    def _read_near(self) -> tuple[Sequence[StoredEvent], Sequence[EventRun]] | None:
        """What was just committed, where it is little and still in memory."""
        reached = self._reached
        if reached is None or self._near is None:
            return None
        events = self._near(reached.position, NEAR + 1)
        if not 0 < len(events) <= NEAR:
            return None
        return events, tuple(pack_columns(reached.store_id, reached.digest, events))

    def _read(self) -> tuple[Sequence[StoredEvent], Sequence[EventRun]]:
        reached = self._reached
        if reached is None:
            cursor = self._published = self._ledger.cursor()
            digest = before.digest if (before := self._store.position_at(cursor)) else GENESIS
            reached = Position(self._store.store_id, cursor, digest)
        events = self._store.read_all(reached.position, PAGE)
        return events, tuple(pack_columns(reached.store_id, reached.digest, events))

    async def _erased_by(self, events: Sequence[StoredEvent]) -> tuple[int, ...]:
        """The positions that these events erased."""
        erasing = [event for event in events if event.type in self._erasing_types]
        if not erasing:
            return ()
        streams = await asyncio.to_thread(lambda: [self._store.read_stream(event.stream) for event in erasing])
        pairs = zip(erasing, streams, strict=True)
        return tuple(e.position for event, stream in pairs for e in stream if e.erased_by == event.position)


class _Waker:
    """Wakes the relay from whichever thread committed; does nothing once the loop has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: asyncio.Event) -> None:
        self._loop = loop
        self._wake = wake

    def __call__(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)
