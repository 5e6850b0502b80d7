"""`python -m services.audit`: settings from the environment, then serve until asked to stop."""

import asyncio

import uvloop

from services.audit.settings import AuditSettings
from services.audit.wiring import build
from services.kernel import logs
from services.kernel.config import load
from services.kernel.rpc.server import serve
from services.kernel.telemetry import Telemetry


async def run(settings: AuditSettings) -> None:
    """Serves from start to drained end."""
    telemetry = Telemetry.start(settings)
    audit = await build(settings, telemetry)
    try:
        await serve(audit.server)
    finally:
        await audit.close()
        await asyncio.to_thread(telemetry.shutdown)


def main() -> None:
    """The process."""
    settings = load(AuditSettings)
    logs.configure(settings)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
