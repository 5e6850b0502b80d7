"""Keeps the read model behind ingest: first load, live runs, rebuild when the store is another one."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from opentelemetry.trace import SpanKind
from planier.ingest.v1.events_pb2 import FactErased

from services.kernel.bus.runs import Run
from services.kernel.clock import Clock, SystemClock, microseconds
from services.kernel.projection import Diverged, Gap, ProjectionRunner, Rebuild, RebuildNeeded
from services.kernel.store.base import Position, StoredEvent
from services.kernel.telemetry import Telemetry

logger = logging.getLogger(__name__)

# A transaction costs a flush: behind, it holds many runs; in step, the one run that is there.
EVENTS_PER_TRANSACTION = 10_000
# Received and not applied yet: the next transaction's worth, about 15 MiB. What follows waits on the bus.
QUEUED_EVENTS = 10_000
# Before a task that was told to stop is told again.
STOP_SECONDS = 0.2
RETRY_SECONDS = 1.0
_ERASED = FactErased.DESCRIPTOR.full_name


class RunSource(Protocol):
    """Where runs come from: kernel/bus `Feed`."""

    caught_up: asyncio.Event

    def runs(self, cursor: Position | None) -> AsyncGenerator[Run, None]:
        """Verified runs after the cursor, without end."""
        ...


class Backlog(asyncio.Queue[Run | Exception]):
    """Runs that wait, bounded by the events that they hold; at the end perhaps what ended them."""

    def _init(self, maxsize: int) -> None:
        # asyncio calls these three what a subclass overrides.
        super()._init(maxsize)
        self._events = 0

    def full(self) -> bool:
        """Whether the next one has to wait."""
        return self._events >= QUEUED_EVENTS

    def _put(self, item: Run | Exception) -> None:
        super()._put(item)
        self._events += _weight(item)

    def _get(self) -> Run | Exception:
        item: Run | Exception = super()._get()
        self._events -= _weight(item)
        return item


def _weight(item: Run | Exception) -> int:
    return len(item.events) if isinstance(item, Run) else 0


class Follower:
    """Applies ingest's runs in order, exactly once, in worker threads."""

    def __init__(
        self,
        runner: ProjectionRunner,
        feed: RunSource,
        *,
        retry_seconds: float = RETRY_SECONDS,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
        on_applied: Callable[[], None] = lambda: None,
        scrub: Callable[[], bool] = lambda: True,
    ) -> None:
        """`scrub`: removes from the database's files what erasures left there, False: later; blocking."""
        self._runner = runner
        self._feed = feed
        self._retry_seconds = retry_seconds
        self._telemetry = telemetry or Telemetry.off()
        self._clock = clock or SystemClock()
        self._diverged = False
        self._on_applied = on_applied
        self._scrub = scrub
        # A process killed between an erasure and its scrubbing left the bytes behind.
        self._unscrubbed = True
        # Set once everything that ingest had at some moment of this process's life is applied.
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follows without end; whatever fails is tried again, from what is committed."""
        while True:
            try:
                await self._follow()
            except (Diverged, RebuildNeeded) as reason:
                logger.warning("read model must be rebuilt: %s", type(reason).__name__)
                self._diverged = isinstance(reason, Diverged)
            except Gap:
                logger.info("read model asks ingest for what is missing")
            except Exception:
                # The database's troubles pass or stay; reads go on meanwhile, and GetPosition shows the lag.
                logger.exception("read model cannot follow")
            await asyncio.sleep(self._retry_seconds)

    async def _follow(self) -> None:
        self._feed.caught_up.clear()
        rebuild = await asyncio.to_thread(self._begin)
        cursor = None if rebuild else await asyncio.to_thread(self._runner.position)
        queue = Backlog()
        receiving = asyncio.create_task(self._receive(cursor, queue))
        try:
            await self._apply(queue, rebuild)
        finally:
            await _stopped(receiving)

    def _begin(self) -> Rebuild | None:
        """A first load is a rebuild too: it is the faster way, and readers never see half of it."""
        if self._diverged or self._runner.must_rebuild:
            return self._runner.begin_rebuild(diverged=self._diverged)
        return None

    async def _receive(self, cursor: Position | None, queue: Backlog) -> None:
        """The next runs are read and verified while the previous ones are being written."""
        try:
            async with aclosing(self._feed.runs(cursor)) as runs:
                async for run in runs:
                    await queue.put(run)
        except Exception as error:  # noqa: BLE001 -- raised again by `_apply`, after the runs before it
            await queue.put(error)

    async def _apply(self, queue: Backlog, rebuild: Rebuild | None) -> None:
        settled = False
        while True:
            batch = await self._next(queue, settled)
            if batch:
                sink = rebuild or self._runner
                events = [event for run in batch for event in run.events]
                first, last = batch[0], batch[-1]
                causes = (run.traceparent for run in batch)
                with self._telemetry.following("projection.apply", SpanKind.INTERNAL, causes):
                    await asyncio.to_thread(sink.advance, first.store_id, first.previous_digest, events, last.digest)
                self._unscrubbed = self._unscrubbed or any(event.type == _ERASED for event in events)
                if settled:
                    self._on_applied()
                    self._measure(events[-1])
            if not settled and self._feed.caught_up.is_set() and queue.empty():
                settled = rebuild is None or await self._swapped(rebuild)
                if settled:
                    rebuild = None
                    self.caught_up.set()
                    self._on_applied()
            if settled and self._unscrubbed:
                self._unscrubbed = not await asyncio.to_thread(self._scrub)

    def _measure(self, newest: StoredEvent) -> None:
        if self._telemetry.is_on:
            lag = max(0, microseconds(self._clock.now()) - newest.recorded_at_us) / 1_000_000
            self._telemetry.measure("planier.projection.lag", lag, projection="facts")

    async def _swapped(self, rebuild: Rebuild) -> bool:
        try:
            reached = await asyncio.to_thread(rebuild.swap)
        except Gap:
            # Another replica's live tables are further: the same events come to this one too.
            await asyncio.sleep(self._retry_seconds)
            return False
        self._diverged = False
        logger.info("read model rebuilt", extra={"position": reached.position})
        return True

    async def _next(self, queue: Backlog, settled: bool) -> list[Run]:
        """The runs that wait, up to a transaction's worth; none when ingest has nothing more, until that is settled."""
        first = await self._first(queue, settled)
        if first is None:
            return []
        batch, events = [first], len(first.events)
        while events < EVENTS_PER_TRANSACTION and not queue.empty():
            item = queue.get_nowait()
            if isinstance(item, Exception):
                # What came before it is applied first.
                queue.put_nowait(item)
                break
            batch.append(item)
            events += len(item.events)
        return batch

    async def _first(self, queue: Backlog, settled: bool) -> Run | None:
        """Waits for a run; until it is settled that all was seen, also for the word that there is none."""
        getting = asyncio.create_task(queue.get())
        waits = {getting}
        told = None if settled else asyncio.create_task(self._feed.caught_up.wait())
        try:
            await asyncio.wait(waits | ({told} if told else set()), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                return None
            item = getting.result()
        finally:
            for task in (getting, told):
                if task is not None:
                    task.cancel()
        if isinstance(item, Exception):
            raise item
        return item


async def _stopped(task: "asyncio.Task[None]") -> None:
    """Returns once the task has ended, told to as often as it takes.

    One cancellation can be lost: `asyncio.wait_for` of Python 3.11 gives a result that came at the same moment in its
    place. The task would then wait for room in a queue that nobody empties any more, and the read model stand still.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
