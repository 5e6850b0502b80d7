"""Every process killed in turn while facts are declared and looked at; then nothing is missing, double or unrecorded.

`make chaos` runs it long. Kills come in an order that depends on the seed alone; their moments are as they come.
"""

import argparse
import asyncio
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from planier.analytics.v1.analytics_pb2 import GetPositionRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.audit.v1.audit_pb2 import GetCheckpointRequest
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.common.v1.release_pb2 import StorePosition
from planier.ingest.v1.ingest_pb2 import GetHeadRequest
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from rich.console import Console
from rich.table import Table

from bench.system import System
from services.cli import session
from services.cli.connection import channel
from services.cli.status import health
from services.kernel.errors import Problem
from services.kernel.keys import read_public_key
from services.stack import plan
from services.stack.layout import PORTS, ROOT, SERVICES, Layout
from services.stack.supervisor import Supervisor
from tests.chaos import findings
from tests.chaos.blows import PROCESSES, Blow, blows
from tests.chaos.declaring import Acknowledged, City, Prefecture
from tests.chaos.findings import Finding, finding
from tests.chaos.watching import Reader, Witness
from tests.fixtures.stack import free_ports

PEOPLE = ("duty-officer", "prefecture-officer")
CITY_SHARE = 0.75
# For a machine that does much else meanwhile; nothing is asserted of time.
PATIENCE = 90.0

console = Console(highlight=False, soft_wrap=True, width=150)


class Campaign:
    """One campaign over one running system, which it leaves stopped."""

    def __init__(self, system: System, seed: int, facts: int, planned: Sequence[Blow]) -> None:
        self._system = system
        self._profile = profile = system.profile
        self._blows = planned
        self._known = Acknowledged()
        city = round(facts * CITY_SHARE)
        self._city = City(profile, seed, city, self._known)
        self._prefecture = Prefecture(profile, seed, facts - city, self._known)
        self._readers = [Reader(profile, person, number) for number, person in enumerate(PEOPLE * 2)]
        self._witness = Witness(profile)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> list[Finding]:
        """Declares, looks and kills; then what must hold."""
        for person in PEOPLE:
            await session.sign_in(self._profile, person)
        stop = asyncio.Event()
        watching = [asyncio.create_task(reader.run(stop)) for reader in self._readers]
        watching.append(asyncio.create_task(self._witness.run(stop)))
        declaring = [asyncio.create_task(work) for work in (self._city.run(), self._prefecture.run())]
        self._tasks = [*watching, *declaring]
        try:
            for number, blow in enumerate(self._blows, 1):
                await self._turn(number, blow)
            await asyncio.gather(*declaring)
            recovered = await self._recovered()
            stop.set()
            await asyncio.gather(*watching)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tell()
        return [recovered, *await self._find()]

    async def _turn(self, number: int, blow: Blow) -> None:
        """The turn's declarations begin, the blow falls among them, and the turn ends when everybody goes on."""
        declarers: Sequence[City | Prefecture] = (self._city, self._prefecture)
        due = [each.total * number // len(self._blows) for each in declarers]
        before = self._done
        for each, end in zip(declarers, due, strict=True):
            await each.allowance.give(end - each.done)
        struck = before + (sum(due) - before) * blow.share
        await self._until(lambda: self._done >= struck, f"the declarations before blow {number}")
        await self._kill(blow)
        began, looked = time.monotonic(), [len(reader.looks) for reader in self._readers]

        def all_go_on() -> bool:
            looks = (len(reader.looks) > seen for reader, seen in zip(self._readers, looked, strict=True))
            return self._done >= sum(due) and all(looks) and self._relayed() >= max(self._known.positions.values())

        await self._until(all_go_on, f"everybody goes on after blow {number}, {blow.victim}")
        how = "killed twice" if blow.again_after else "killed"
        later = time.monotonic() - began
        console.print(
            f"{number:3} {blow.victim} {how}, down {blow.down:.1f} s; all go on {later:.1f} s after its start"
        )

    @property
    def _done(self) -> int:
        return self._city.done + self._prefecture.done

    def _relayed(self) -> int:
        """How far the bus was told, by ingest's own note."""
        connection = sqlite3.connect(f"file:{self._system.layout.database('ingest')}?mode=ro", uri=True)
        try:
            ((position,),) = connection.execute("SELECT position FROM bus_cursor")
        finally:
            connection.close()
        return int(position)

    async def _kill(self, blow: Blow) -> None:
        self._stop(blow)
        if blow.wipes:
            shutil.rmtree(self._system.layout.home / "jetstream")
        await asyncio.sleep(blow.down)
        self._start(blow)
        if blow.again_after:
            await asyncio.sleep(blow.again_after)
            self._stop(blow)
            self._start(blow)

    def _stop(self, blow: Blow) -> None:
        for name in blow.processes:
            self._system.supervisor.kill(name)

    def _start(self, blow: Blow) -> None:
        system = self._system
        for name in blow.processes:
            process = plan.broker(system.layout) if name == "broker" else plan.service(system.layout, name)
            system.supervisor.start(process)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits for as long as a machine may need; a client or a process that failed by itself ends the campaign."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self._system.supervisor.check()
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"never happened: {what}")
            await asyncio.sleep(0.02)

    async def _recovered(self) -> Finding:
        """All serve, none died by itself, and the read model stands where ingest's store does."""
        deadline, states = time.monotonic() + PATIENCE, dict[str, str]()
        head, projected = StorePosition(), StorePosition()
        while time.monotonic() < deadline:
            states = {name: await health(self._profile, name) for name in SERVICES}
            if set(states.values()) == {"SERVING"}:
                head, projected = await self._positions()
                if head == projected and head.position == self._relayed():
                    break
            await asyncio.sleep(0.2)
        self._system.supervisor.check()
        faults = [f"{name} {state}" for name, state in states.items() if state != "SERVING"]
        if head != projected or head.position != self._relayed():
            where = f"analytics at {projected.position}, the bus at {self._relayed()}"
            faults.append(f"ingest at {head.position}, {where}")
        return finding("all serve, at one position", f"position {head.position}", faults)

    async def _positions(self) -> tuple[StorePosition, StorePosition]:
        async with (
            channel(self._profile, "ingest", "analytics") as ingest,
            channel(self._profile, "analytics") as analytics,
        ):
            try:
                head = await IngestServiceStub(ingest).GetHead(GetHeadRequest(), timeout=5)
                position = await AnalyticsServiceStub(analytics).GetPosition(GetPositionRequest(), timeout=5)
            except Problem:
                return StorePosition(), StorePosition(position=1)
        return head.head, position.projected

    async def _find(self) -> list[Finding]:
        profile, looks = self._profile, [reader.looks for reader in self._readers]
        receipts = [*self._known.receipts, *(look.receipt for person in looks for look in person)]
        async with channel(profile, "audit") as opened:
            head = await AuditServiceStub(opened).GetCheckpoint(GetCheckpointRequest(), timeout=30)
        heads = [*(each for each in self._witness.heads if each.tree_size < head.tree_size), head]
        entries = await findings.replayed(profile)
        refused = [*self._known.denied, *(why for reader in self._readers for why in reader.refused)]
        found = [
            finding("refused only what was absent", f"{self._known.again} sent again", refused),
            findings.receipts(entries, receipts, read_public_key(profile.log_key)),
            findings.looks(entries, looks),
            await findings.proofs(profile, receipts, heads),
        ]
        found.append(self._stopped())
        return found + await asyncio.to_thread(findings.at_rest, self._system.layout, self._known, entries)

    def _stopped(self) -> Finding:
        """Every process ends by itself within its grace when asked to."""
        supervisor = self._system.supervisor
        children = {name: child for name, (_, child) in supervisor._running.items() if name in PROCESSES}
        supervisor.stop_all()
        faults = [f"{name} ended with {child.returncode}" for name, child in children.items() if child.returncode]
        return finding("all stop when asked", f"{len(children)} processes", faults)

    def _tell(self) -> None:
        failures: Counter[str] = self._known.failures + self._witness.failures
        for reader in self._readers:
            failures += reader.failures
        table = Table("calls that had no answer", "times")
        for name, count in failures.most_common():
            table.add_row(name, str(count))
        console.print(table)


class Unsound(Exception):  # noqa: N818 -- what was found
    """Something does not hold."""


@contextmanager
def fresh_system() -> Iterator[System]:
    """A system in a folder of its own, which stays where something went wrong."""
    home = Path(tempfile.mkdtemp(prefix="planier-chaos-"))
    layout = Layout(home, free_ports(len(PORTS)), ROOT / "deploy" / "territory" / "marseille.json")
    system = System(layout, Supervisor(layout.logs))
    try:
        system.start()
        yield system
    except BaseException:
        console.print(f"kept for a look: {home}")
        raise
    else:
        shutil.rmtree(home)
    finally:
        system.supervisor.stop_all()


def report(found: Sequence[Finding]) -> None:
    """Prints the table. Raises Unsound where something does not hold."""
    table = Table("", "what must hold", "on", title="after the campaign")
    for each in found:
        table.add_row("holds" if each.sound else "FAULT", each.check, each.measure)
        for fault in each.faults:
            table.add_row("", f"  {fault}", "")
    console.print(table)
    if not all(each.sound for each in found):
        raise Unsound


def main(arguments: list[str] | None = None) -> int:
    """Runs a campaign; 0 exactly when everything holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--facts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2, help="how often each process is killed")
    parser.add_argument("--down", type=float, default=6.0, help="longest time that a process stays down, in seconds")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    planned = blows(options.seed, options.rounds, options.down)
    console.print(f"seed {options.seed}, {options.facts} facts; kills: {', '.join(blow.victim for blow in planned)}")
    try:
        with fresh_system() as system:
            report(asyncio.run(Campaign(system, options.seed, options.facts, planned).run()))
    except Unsound:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
