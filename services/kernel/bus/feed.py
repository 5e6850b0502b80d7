"""The consumer's side: every event of an owner's store, exactly once, in order, verified; whatever the bus does."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

import grpc
from opentelemetry.trace import SpanKind
from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest, ReadEventsResponse

from services.kernel.bus.base import BusUnavailable, RunSubscription, SubscriptionLost
from services.kernel.bus.columns import traceparents, unpack_any
from services.kernel.bus.replication import CHAIN_DIVERGED
from services.kernel.bus.runs import Run
from services.kernel.errors import Problem
from services.kernel.projection import Diverged
from services.kernel.store.base import GENESIS, Position
from services.kernel.store.chain import ChainBroken
from services.kernel.telemetry import Telemetry

logger = logging.getLogger(__name__)

ReadEvents = Callable[[ReadEventsRequest], AsyncIterable[ReadEventsResponse]]
Subscribe = Callable[[], Awaitable[RunSubscription]]
MAX_BACKOFF = 5.0


class Feed:
    """Follows one owner: subscribes first, reads from the owner until caught up, then takes live messages.

    The owner is asked again after `silence` seconds without a new event, on a gap and on a lost subscription; without a
    bus (`subscribe` None or failing), every `poll` seconds. What the bus says is believed only as far as the chain
    proves it; a message that does not fit makes the feed ask the owner, whose word alone decides a divergence.
    """

    def __init__(
        self,
        *,
        read_events: ReadEvents,
        subscribe: Subscribe | None,
        silence: float = 5.0,
        poll: float = 1.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._read_events = read_events
        self._subscribe = subscribe
        self._silence = silence
        self._poll = poll
        self._telemetry = telemetry or Telemetry.off()
        self._cursor = Position("", 0, GENESIS)
        # Set once the owner has said that nothing is missing.
        self.caught_up = asyncio.Event()

    async def runs(self, cursor: Position | None) -> AsyncGenerator[Run, None]:
        """Yields runs after the cursor (None: from the beginning), without end.

        Raises Diverged when the owner's store never had the cursor, or its own answer does not verify: rebuild.

        One consumer at a time. Close it (`contextlib.aclosing`) to give the subscription back.
        """
        self._cursor = cursor or Position("", 0, GENESIS)
        while True:
            subscription = await self._open()
            try:
                async with aclosing(self._from_owner()) as backfill:
                    async for run in backfill:
                        yield run
                if subscription is None:
                    await asyncio.sleep(self._poll)
                    continue
                async with aclosing(self._live(subscription)) as live:
                    async for run in live:
                        yield run
            finally:
                if subscription is not None:
                    await subscription.close()

    async def _open(self) -> RunSubscription | None:
        if self._subscribe is None:
            return None
        try:
            return await self._subscribe()
        except BusUnavailable:
            logger.info("feed without bus: asks the owner")
            return None

    async def _from_owner(self) -> AsyncGenerator[Run, None]:
        """Everything the owner has after the cursor; tries again until it has answered to the end."""
        backoff = min(self._poll, MAX_BACKOFF)
        while True:
            reached = self._cursor.position
            try:
                async with aclosing(self._answer()) as answer:
                    async for run in answer:
                        yield run
            except (Problem, grpc.RpcError, OSError) as error:
                if isinstance(error, Problem) and error.reason == CHAIN_DIVERGED:
                    raise Diverged("the owner never had this cursor") from error
                logger.warning("feed cannot read from the owner: %s", type(error).__name__)
            else:
                return
            # A long answer that was cut, by its deadline for instance, goes on from where it was.
            if self._cursor.position == reached:
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)

    async def _answer(self) -> AsyncGenerator[Run, None]:
        """One answer of the owner. Raises ConnectionError when it ends before `caught_up`."""
        start = self._cursor
        digest = start.digest if start.store_id else b""
        request = ReadEventsRequest(store_id=start.store_id, after_position=start.position, after_digest=digest)
        complete = False
        async for response in self._read_events(request):
            if response.HasField("run"):
                run = self._verified(response.run)
                if run is not None:
                    yield run
            complete = complete or response.caught_up
        if not complete:
            raise ConnectionError("the owner's answer ended early")
        self.caught_up.set()

    def _verified(self, message: EventRun) -> Run | None:
        if not self._cursor.store_id:
            self._cursor = Position(message.store_id, 0, GENESIS)
        try:
            run = self._unpacked(message)
        except ChainBroken as error:
            raise Diverged("the owner's answer does not verify") from error
        if run is not None:
            self._cursor = run.position
        return run

    def _unpacked(self, message: EventRun) -> Run | None:
        """`unpack_any`, within the traces of the calls that caused the events; a first load belongs to no call."""
        if not self.caught_up.is_set():
            return unpack_any(message, self._cursor)
        with self._telemetry.following("bus.receive", SpanKind.CONSUMER, traceparents(message)) as span:
            run = unpack_any(message, self._cursor)
        return replace(run, traceparent=span.traceparent) if run and span.traceparent else run

    async def _live(self, subscription: RunSubscription) -> AsyncGenerator[Run, None]:
        """Live runs; ends when the owner must be asked. A message already seen is no sign of life."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while (left := asked_at + self._silence - loop.time()) > 0:
            try:
                message = await subscription.next(left)
                run = self._unpacked(message) if message is not None else None
            except (SubscriptionLost, ChainBroken) as reason:
                logger.info("feed asks the owner: %s", type(reason).__name__)
                return
            if run is not None:
                self._cursor = run.position
                asked_at = loop.time()
                yield run
                asked_at = loop.time()
