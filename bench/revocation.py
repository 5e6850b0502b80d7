"""From a revocation acknowledged to an open stream closed, over a whole installation, beside the second promised."""

import asyncio
import time
from uuid import NAMESPACE_URL, uuid5

from planier.access.v1.access_pb2 import ResumeClearanceRequest, SuspendClearanceRequest
from planier.access.v1.events_pb2 import REVOCATION_REASON_REQUEST
from planier.analytics.v1.analytics_pb2 import BoundingBox, WatchMapRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub

from bench.harness import Row, quantile, row
from bench.system import running
from services.cli import session
from services.cli.clearance import call
from services.cli.connection import channel
from services.cli.profile import Profile
from services.kernel.errors import Problem

PROMISED_SECONDS = 1.0
STREAMS = 8
ROUNDS = 30
WATCHER = "duty-officer"
BOX = BoundingBox(west=5.2, south=43.1, east=5.6, north=43.4)


def rows() -> list[Row]:
    """The 99th percentile over every stream of every round."""
    with running() as system:
        found = asyncio.run(_closings(system.profile))
    name = f"suspension acknowledged to stream closed, p99 of {len(found)}"
    return [row(name, quantile(found, 0.99), "s", "what is promised", PROMISED_SECONDS, "<= 1")]


async def _closings(profile: Profile) -> list[float]:
    found: list[float] = []
    async with channel(profile, "analytics") as opened:
        stub = AnalyticsServiceStub(opened)
        for number in range(ROUNDS):
            begun = [asyncio.Event() for _ in range(STREAMS)]
            watching = [asyncio.create_task(_closed(profile, stub, one)) for one in begun]
            await asyncio.gather(*(one.wait() for one in begun))
            # At another place of the re-check's half second each time.
            await asyncio.sleep(number * 0.5 / ROUNDS)
            await _suspend(profile)
            acknowledged = time.perf_counter()
            found += [max(0.0, closed - acknowledged) for closed in await asyncio.gather(*watching)]
            await _resume(profile)
    return found


async def _closed(profile: Profile, stub: AnalyticsServiceStub, begun: asyncio.Event) -> float:
    """When a watch ended; it must have been refused."""
    signed_in = await session.current(profile, WATCHER)
    request = WatchMapRequest(consultation=session.consultation("SITUATION", "mesure"), box=BOX)
    try:
        async for _ in stub.WatchMap(request, timeout=60, metadata=signed_in.metadata):
            begun.set()
    except Problem as problem:
        if problem.reason != "ACCESS_DENIED":
            raise
        return time.perf_counter()
    raise AssertionError("the stream ended by itself")


def _clearance() -> str:
    return str(uuid5(NAMESPACE_URL, f"planier-local/{WATCHER}"))


async def _suspend(profile: Profile) -> None:
    consultation = session.consultation("ADMINISTRATION", "mesure")
    reason = REVOCATION_REASON_REQUEST
    request = SuspendClearanceRequest(consultation=consultation, clearance_id=_clearance(), reason=reason)
    await call(profile, "SuspendClearance", request, "dga")


async def _resume(profile: Profile) -> None:
    consultation = session.consultation("ADMINISTRATION", "mesure")
    await call(
        profile, "ResumeClearance", ResumeClearanceRequest(consultation=consultation, clearance_id=_clearance()), "dga"
    )
