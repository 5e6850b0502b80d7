"""What waits to be applied is bounded by its events, and a failure comes after what precedes it."""

import asyncio

import pytest

from services.analytics import follower
from services.analytics.follower import Backlog
from services.kernel.bus.runs import Run
from services.kernel.store.base import GENESIS, StoredEvent


def run_of(first: int, count: int) -> Run:
    events = [
        StoredEvent(first + n, "s", 1, "t", "i", 0, "identity", b"", b"", b"", GENESIS, 0, "") for n in range(count)
    ]
    return Run("store", GENESIS, GENESIS, tuple(events))


async def test_a_run_waits_while_the_events_before_it_fill_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "QUEUED_EVENTS", 5)
    backlog = Backlog()
    for first in (1, 4):  # the second one fits in: a run is never cut
        await backlog.put(run_of(first, 3))
    third = asyncio.create_task(backlog.put(run_of(7, 1)))
    await asyncio.sleep(0.01)
    assert not third.done()
    assert (await backlog.get()) == run_of(1, 3)
    await asyncio.wait_for(third, 5)
    await backlog.put(ValueError("the end"))
    assert [await backlog.get(), await backlog.get()] == [run_of(4, 3), run_of(7, 1)]
    assert isinstance(backlog.get_nowait(), ValueError)
    assert not backlog.full()
