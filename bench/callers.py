"""Closed-loop callers: a number of them, each with one call under way, for a number of seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.harness import quantile

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pace:
    """Calls a second, and milliseconds a call."""

    rate: float
    p50: float
    p99: float


async def closed_loop(step: Step, callers: int, seconds: float) -> Pace:
    """Runs `callers` loops of `step`; a failing call fails the measure."""
    latencies: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def loop() -> None:
        while (start := time.perf_counter()) < end:
            await step()
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(loop() for _ in range(callers)))
    spent = time.perf_counter() - began
    return Pace(len(latencies) / spent, 1e3 * quantile(latencies, 0.5), 1e3 * quantile(latencies, 0.99))
