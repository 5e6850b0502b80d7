"""What the log does by itself while it serves: derives, checks itself, and forgets what is past its time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from services.audit.log import AccessLog
from services.audit.retention import Retention
from services.audit.watch import Watch
from services.kernel.errors import Problem

RETENTION_SECONDS = 3_600.0
# How often what replay filters on is derived; a look that comes before does the rest itself.
DERIVE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Upkeep:
    """Three loops, started once the service serves. A turn that fails is said and tried again at the next."""

    def __init__(self, log: AccessLog, watch: Watch, retention: Retention, watch_seconds: float) -> None:
        self._log = log
        self._watch = watch
        self._retention = retention
        self._watch_seconds = watch_seconds
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the loops."""
        self._tasks = [
            asyncio.create_task(self._every(self._watch_seconds, self._turn)),
            asyncio.create_task(self._every(RETENTION_SECONDS, self._erase)),
            asyncio.create_task(self._every(DERIVE_SECONDS, self._derive)),
        ]

    async def close(self) -> None:
        """Stops them; what is under way in the database ends first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _turn(self) -> None:
        await asyncio.shield(asyncio.to_thread(self._watch.turn, time.monotonic()))

    async def _derive(self) -> None:
        await asyncio.shield(asyncio.to_thread(self._log.catch_up))

    async def _erase(self) -> None:
        await self._retention.run()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 -- the log keeps serving, and its operator reads why this did not
                reason = error.reason if isinstance(error, Problem) else type(error).__name__
                _log.error("the log's upkeep failed", extra={"reason": reason})
            await asyncio.sleep(seconds)
