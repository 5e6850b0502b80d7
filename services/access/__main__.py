"""`python -m services.access`: settings from the environment, then serve until asked to stop."""

import asyncio

import uvloop

from services.access.settings import AccessSettings
from services.access.wiring import build
from services.kernel import logs
from services.kernel.clock import SystemClock
from services.kernel.config import load
from services.kernel.rpc.door import Door
from services.kernel.rpc.server import serve
from services.kernel.telemetry import Telemetry


async def run(settings: AccessSettings) -> None:
    """Serves from start to drained end."""
    telemetry = Telemetry.start(settings)
    door = Door.open(SystemClock(), telemetry)  # before gRPC is first used
    access = await build(settings, telemetry)
    try:
        await serve(access.server, door=door, attempts=access.guard.attempts)
    finally:
        await access.close()
        await asyncio.to_thread(telemetry.shutdown)


def main() -> None:
    """The process."""
    settings = load(AccessSettings)
    logs.configure(settings)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
