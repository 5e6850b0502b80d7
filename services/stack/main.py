"""`make run`: everything on this machine, with data to look at."""

import argparse
import asyncio
import fcntl
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import TextIO

from planier.ingest.v1.ingest_pb2 import OUTCOME_REFUSED
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from services.cli.cortege import declare
from services.cli.demo import today, write_demo
from services.cli.facts_file import read_facts
from services.cli.profile import Profile
from services.stack import founding, plan
from services.stack.certificates import issue
from services.stack.keys import create_keys
from services.stack.layout import CERTIFIED, PORTS, ROOT, SERVICES, WITNESSES, Layout
from services.stack.supervisor import Died, Process, Supervisor

PORT_BASE = 7400
DEMO_PAST = 5_000
DECLARED_BY = {"prefecture": "cortege", "city": "city-importer", "past": "city-importer"}

console = Console()

NEXT = """
Everything serves. In another terminal, with [bold].venv/bin[/bold] in your path:

  planier status                         what serves
  planier login --as duty-officer        sign in (also: dga, validator, second-validator, auditor, prefecture-officer)
  planier map --motive "prise de service"
  planier login --as auditor
  planier audit replay                   every look, yours included
  planier audit verify                   recompute the whole log

Logs are in {logs}/; Ctrl-C stops everything."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the local stack until Ctrl-C; 1 where a part could not start or died."""
    options = _options(arguments)
    layout = Layout(options.home.resolve(), options.port_base, options.territory.resolve())
    try:
        with _alone(layout) as held:
            return _run(layout, options, held)
    except (Hindered, OSError) as trouble:
        said = trouble if isinstance(trouble, Hindered) else f"{trouble.filename}: {trouble.strerror}"
        console.print(f"[red]{escape(str(said))}[/red]", highlight=False, soft_wrap=True)
        return 1


class Hindered(Exception):  # noqa: N818 -- what the person at the terminal reads
    """Something of this machine is in the way; says what, and what to do."""


def _alone(layout: Layout) -> TextIO:
    """The installation's lock, let go with this process however it ends. Hindered where another holds it."""
    layout.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = (layout.home / "supervisor").open("a+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        holder = held.read()
        held.close()
        message = (
            f"{layout.home} is in use: it runs already (process {holder}); stop that with Ctrl-C, or give a --home"
        )
        raise Hindered(message) from None
    for name in PORTS:
        try:
            socket.create_server(("127.0.0.1", layout.port(name))).close()
        except OSError:
            held.close()
            message = f"port {layout.port(name)}, for {name}, is taken by another program; give another --port-base"
            raise Hindered(message) from None
    return held


def _run(layout: Layout, options: argparse.Namespace, held: TextIO) -> int:
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    telemetry = {"OTLP_ENDPOINT": options.otlp_endpoint, "TRACE_RATIO": str(options.trace_ratio)}
    supervisor = Supervisor(layout.logs)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    layout.ready.unlink(missing_ok=True)
    try:
        start(layout, supervisor, stop, telemetry if options.otlp_endpoint else {})
        if not stop.is_set():
            populate(layout, stop, demo=options.demo, past=options.past)
        if not stop.is_set():
            layout.ready.write_text(str(os.getpid()))
            console.print(
                f"ready: {', '.join(f'{name} {layout.address(name)}' for name in SERVICES)}",
                highlight=False,
                soft_wrap=True,
            )
            console.print(NEXT.format(logs=layout.logs), highlight=False, soft_wrap=True)
            _watch(supervisor, stop)
    except (Died, TimeoutError) as trouble:
        console.print(f"[red]{escape(str(trouble))}[/red]", highlight=False, soft_wrap=True)
        return 1
    finally:
        layout.ready.unlink(missing_ok=True)
        console.print("stopping")
        supervisor.stop_all()
    return 0


def start(layout: Layout, supervisor: Supervisor, stop: threading.Event, extra: Mapping[str, str]) -> None:
    """Prepares the installation and starts every process, each once those it needs serve; `extra` settings for all."""
    issue(layout.pki, CERTIFIED)
    create_keys(layout.keys)
    layout.write_profile()
    witnesses = [plan.witness(layout, name, extra) for name in WITNESSES]
    _start(supervisor, [plan.broker(layout), plan.issuer(layout), *witnesses], stop)
    _start(supervisor, [plan.service(layout, name, extra) for name in ("audit", "access")], stop)
    if not stop.is_set() and asyncio.run(founding.found(layout)):
        asyncio.run(founding.clear(layout))
    _start(supervisor, [plan.service(layout, name, extra) for name in ("ingest", "analytics")], stop)


def populate(layout: Layout, stop: threading.Event, *, demo: bool, past: int) -> None:
    """Declares the demonstration data once, through the ingest RPC, as Cortège and the City's importer would.

    Stopped half-way, all of it is declared again at the next start; what was declared already is known by its ids.
    """
    done = layout.home / "demo" / "declared"
    if not demo or done.exists():
        return
    files = write_demo(layout.home / "demo", seed=1, day=today(), past=past, binary=True)
    profile = Profile.read(layout.profile)
    with Progress(console=console, transient=True) as progress:
        for name, count in files.items():
            task = progress.add_task(f"declaring {Path(name).stem}", total=count)
            asyncio.run(_declare(profile, Path(name), functools.partial(progress.advance, task), stop))
            if stop.is_set():
                return
    done.write_text(date.today().isoformat())  # noqa: DTZ011 -- a note for people


async def _declare(profile: Profile, path: Path, advance: Callable[[], None], stop: threading.Event) -> None:
    async for verdict in declare(profile, read_facts(path), DECLARED_BY[path.stem], "demonstration"):
        if verdict.outcome == OUTCOME_REFUSED:
            raise RuntimeError(f"demonstration data refused: {verdict}")
        advance()
        if stop.is_set():
            return


def _start(supervisor: Supervisor, processes: list[Process], stop: threading.Event) -> None:
    if stop.is_set():
        return
    for process in processes:
        supervisor.start(process)
    for process in processes:
        began = time.monotonic()
        with console.status(f"starting {process.name}"):
            supervisor.wait_until_serving(process.name)
        console.print(f"{process.name} serves ({time.monotonic() - began:.1f} s)", highlight=False)
        if stop.is_set():
            return


def _watch(supervisor: Supervisor, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        supervisor.check()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("var"), help="where everything is kept")
    parser.add_argument(
        "--port-base", type=int, default=PORT_BASE, help=f"first of {len(PORTS)} consecutive loopback ports"
    )
    territory = ROOT / "deploy" / "territory" / "marseille.json"
    parser.add_argument("--territory", type=Path, default=territory, help="the territory served")
    parser.add_argument("--no-demo", dest="demo", action="store_false", help="no demonstration data")
    parser.add_argument("--past", type=int, default=DEMO_PAST, help="past facts in the demonstration data")
    parser.add_argument("--otlp-endpoint", default="", help="where traces and metrics go, OTLP over HTTP")
    parser.add_argument("--trace-ratio", type=float, default=1.0, help="share of calls that begin a recorded trace")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
