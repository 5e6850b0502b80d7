"""`python -m services.analytics`: settings from the environment, follow ingest, serve until asked to stop."""

import asyncio

import uvloop

from services.analytics.settings import AnalyticsSettings
from services.analytics.wiring import build
from services.kernel import logs
from services.kernel.config import load
from services.kernel.rpc.server import serve
from services.kernel.telemetry import Telemetry


async def run(settings: AnalyticsSettings) -> None:
    """Serves from start to drained end; says so once it has caught up with ingest."""
    telemetry = Telemetry.start(settings)
    analytics = await build(settings, telemetry)
    following = asyncio.create_task(analytics.follower.run())
    try:
        await serve(analytics.server, ready=analytics.caught_up(following))
    finally:
        await analytics.close(following)
        await asyncio.to_thread(telemetry.shutdown)


def main() -> None:
    """The process."""
    settings = load(AnalyticsSettings)
    logs.configure(settings)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
