"""Analytics' servicer over a read model made by bench/map.py, behind real mTLS gRPC; the guard lets one reader through.

What the guard costs is measured apart (bench/read.py). Usage: python -m bench.map_server DATABASE PKI; prints its port.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import uvloop
from planier.analytics.v1.analytics_pb2 import DESCRIPTOR

from bench.map_data import SOURCES
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.snapshot import Snapshot
from services.kernel.clock import SystemClock
from services.kernel.config import ServiceSettings
from services.kernel.rpc.call import Call, Invocation
from services.kernel.rpc.server import Server
from services.kernel.store.opening import open_store
from services.kernel.telemetry import Telemetry
from tests.fixtures.analytics import desks, granted


class OneReader:
    """Lets every call through as one person who may see every source."""

    def __init__(self) -> None:
        self._grant = granted(*SOURCES)

    async def unary(self, invocation: Invocation, request: Any, handler: Any, describe: Any = None) -> bytes:  # noqa: ARG002 -- the shape of the guard
        """The handler's answer."""
        answer: bytes = (await handler(request, Call(invocation, self._grant))).SerializeToString()
        return answer

    async def stream(self, invocation: Invocation, request: Any, handler: Any) -> AsyncGenerator[bytes, None]:
        """The handler's answers."""
        async for answer in handler(request, Call(invocation, self._grant)):
            yield answer.SerializeToString()


async def serve(url: str, pki: Path) -> None:
    """Serves until killed."""
    snapshot = Snapshot(open_for_reading(url))
    await asyncio.to_thread(snapshot.load)
    model = ReadModel(open_for_reading(url), lambda: True)
    steps = await asyncio.to_thread(open_store, url, clock=SystemClock())
    servicer = AnalyticsServicer(model, desks(model, steps), snapshot=snapshot)
    settings = ServiceSettings(
        service="analytics",
        certificate_file=pki / "analytics.pem",
        key_file=pki / "analytics.key",
        ca_file=pki / "ca.pem",
        database_url=url,
    )
    bindings = [(DESCRIPTOR.services_by_name["AnalyticsService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=OneReader(), telemetry=Telemetry.off())
    port = await server.start()
    server.set_serving(True)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
