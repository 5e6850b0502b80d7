"""`python -m services.ingest`: settings from the environment, then serve until asked to stop."""

import asyncio
import gc
import sys

import uvloop

from services.ingest.annex import AnnexMismatchError
from services.ingest.settings import IngestSettings
from services.ingest.wiring import build
from services.kernel import logs
from services.kernel.config import EXIT_CONFIGURATION, load
from services.kernel.rpc.server import serve
from services.kernel.telemetry import Telemetry

# A batch makes thousands of short-lived objects and no cycles: the default of 700 collects dozens of times a batch.
_COLLECT_AFTER = 50_000


async def run(settings: IngestSettings) -> None:
    """Serves from start to drained end."""
    telemetry = Telemetry.start(settings)
    ingest = await build(settings, telemetry)
    try:
        await serve(ingest.server, ready=ingest.ready())
    finally:
        await ingest.close()
        await asyncio.to_thread(telemetry.shutdown)


def main() -> None:
    """The process; exits with 78 where the annex is not the signed one: starting again would change nothing."""
    settings = load(IngestSettings)
    logs.configure(settings)
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    try:
        uvloop.run(run(settings))
    except AnnexMismatchError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201 -- for whoever started the process
        raise SystemExit(EXIT_CONFIGURATION) from None


if __name__ == "__main__":
    main()
