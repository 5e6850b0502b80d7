"""The life of a service's process: settings, door, wiring, serving, closing; where it cannot, one line on why."""

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

import uvloop
from sqlalchemy.exc import SQLAlchemyError

from services.kernel import logs
from services.kernel.clock import SystemClock
from services.kernel.config import EXIT_CONFIGURATION, CannotStart, Settings, load
from services.kernel.guard.guard import Guard
from services.kernel.rpc.door import Door
from services.kernel.rpc.server import Server, serve
from services.kernel.telemetry import Telemetry

MOST_WORDS = 300
# A batch makes thousands of short-lived objects and no cycles: the default of 700 collects dozens of times a batch.
COLLECT_AFTER = 50_000

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What a service's wiring makes."""

    @property
    def server(self) -> Server:
        """Its server, not started."""
        ...

    @property
    def guard(self) -> Guard:
        """Its guard, which records whom the door turned away."""
        ...

    def ready(self) -> Awaitable[None]:
        """Done once the service may say that it serves."""
        ...

    async def close(self) -> None:
        """Records what is still to be recorded, then lets go of everything; once the server is drained."""
        ...


Build = Callable[[Settings, Telemetry], Awaitable[Service]]


def main(settings_type: type[Settings], build: Build[Settings], *, turn: float = 0.005) -> None:
    """Runs the process until it is asked to stop; exits with 78 where starting again would change nothing.

    `turn`: seconds for which a busy thread may keep the interpreter's lock from the others (Python's own is 5 ms).
    """
    settings = load(settings_type)
    logs.configure(settings)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    sys.setswitchinterval(turn)
    ending_with_words(lambda: uvloop.run(_run(settings, build)))


def ending_with_words(life: Callable[[], None]) -> None:
    """Runs a process's life; where it fails, one line says why, and the status whether starting again may help."""
    try:
        life()
    except Exception as error:  # noqa: BLE001 -- whatever it is, whoever started the process reads why it ended
        _give_up(error)


async def _run(settings: Settings, build: Build[Settings]) -> None:
    telemetry = Telemetry.start(settings)
    try:
        # Before any channel or store: gRPC takes its settings at its first use.
        door = Door.open(SystemClock(), telemetry)
        service = await build(settings, telemetry)
        try:
            await serve(service.server, ready=service.ready(), door=door, attempts=service.guard.attempts)
        finally:
            await service.close()
    finally:
        await asyncio.to_thread(telemetry.shutdown)


def _give_up(error: Exception) -> NoReturn:
    logger.critical("process ended", exc_info=error)
    words = " ".join(_words(error).split())[:MOST_WORDS]
    print(f"cannot go on: {words}", file=sys.stderr)  # noqa: T201 -- for whoever started the process
    final = isinstance(error, CannotStart | FileNotFoundError | PermissionError | ValueError | TypeError)
    raise SystemExit(EXIT_CONFIGURATION if final else 1) from None


def _words(error: Exception) -> str:
    """What is wrong. A driver's own text is left out: it may hold a URL or what a statement held."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, SQLAlchemyError):
        return f"the database cannot be used ({type(error).__name__}); the line before this one says where"
    # What these say of a file or an address that the settings name; requests and their contents never come this far.
    if type(error).__module__.startswith("services.") or type(error) in (ValueError, TypeError, RuntimeError, OSError):
        return f"{error}" or type(error).__name__
    return f"{type(error).__module__}.{type(error).__qualname__}; the line before this one says where"
