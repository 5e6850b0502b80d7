"""Wakes whoever waits for the read model to move; misses nothing that moved since they last looked."""

import asyncio
from collections.abc import Callable


class Signal:
    """One process's news that something was applied; of one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._moved = asyncio.Event()
        self._told: list[Callable[[], None]] = []

    def tell(self, listener: Callable[[], None]) -> None:
        """Calls it each time, from the loop that gives the signal."""
        self._told.append(listener)

    @property
    def count(self) -> int:
        """How often it was given; hand it to `after`."""
        return self._count

    def give(self) -> None:
        """Wakes everyone."""
        self._count += 1
        self._moved.set()
        self._moved = asyncio.Event()
        for listener in self._told:
            listener()

    async def after(self, count: int, patience: float) -> None:
        """Returns once it was given more often than that, or when patience ends: another replica may have applied."""
        if self._count == count:
            try:
                async with asyncio.timeout(patience):
                    await self._moved.wait()
            except TimeoutError:
                return
