"""Alerts without being asked: how many certificates of destruction are late, as a metric and once each in the logs."""

import asyncio
import logging

from services.access.engagements import overdue
from services.access.snapshot import StateCache
from services.kernel.clock import Clock
from services.kernel.telemetry import Telemetry

EVERY_SECONDS = 60.0

_log = logging.getLogger(__name__)


class OverdueWatch:
    """Looks once a minute; an engagement is named in the logs when it is first found late."""

    def __init__(self, cache: StateCache, clock: Clock, telemetry: Telemetry) -> None:
        self._cache = cache
        self._clock = clock
        self._telemetry = telemetry
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch, in the running loop."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def look(self) -> int:
        """How many are late now."""
        snapshot = await asyncio.to_thread(self._cache.current)
        late = {one.engagement_id for one in overdue(snapshot.state, self._clock.now())}
        self._telemetry.state("planier.engagement.overdue", len(late))
        for engagement_id in sorted(late - self._told):
            _log.warning("a certificate of destruction is overdue", extra={"engagement_id": engagement_id})
        self._told = late
        return len(late)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 -- whatever it was, it is looked at again in a minute
                _log.exception("the engagements could not be looked at")
            await asyncio.sleep(EVERY_SECONDS)
