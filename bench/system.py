"""Our system under measurement: a whole local stack without demonstration data, in a folder of its own."""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.cli.profile import Profile
from services.stack import founding, plan
from services.stack.certificates import issue
from services.stack.keys import create_keys
from services.stack.layout import CERTIFIED, ROOT, WITNESSES, Layout
from services.stack.supervisor import Supervisor
from tests.fixtures.stack import free_ports

WORK = Path(os.environ.get("BENCH_WORK", tempfile.gettempdir())) / "planier-bench"


@dataclass(slots=True)
class System:
    """Four services, a broker and an identity provider."""

    layout: Layout
    supervisor: Supervisor
    telemetry: dict[str, str] = field(default_factory=dict)
    databases: dict[str, str] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """What its clients need."""
        return Profile.read(self.layout.profile)

    def start(self) -> None:
        """Starts everything and signs, grants and confirms what a look needs."""
        issue(self.layout.pki, CERTIFIED)
        create_keys(self.layout.keys)
        self.layout.write_profile()
        witnesses = [plan.witness(self.layout, name) for name in WITNESSES]
        for process in (plan.broker(self.layout), plan.issuer(self.layout), *witnesses):
            self.supervisor.start(process)
            self.supervisor.wait_until_serving(process.name)
        for name in ("audit", "access"):
            self.supervisor.start(plan.service(self.layout, name, self.settings(name)))
        for name in ("audit", "access"):
            self.supervisor.wait_until_serving(name)
        asyncio.run(founding.found(self.layout))
        asyncio.run(founding.clear(self.layout))
        for name in ("ingest", "analytics"):
            self.supervisor.start(plan.service(self.layout, name, self.settings(name)))
        for name in ("ingest", "analytics"):
            self.supervisor.wait_until_serving(name)

    def settings(self, name: str) -> dict[str, str]:
        """Settings beside the stack's own."""
        database = {"DATABASE_URL": self.databases[name]} if name in self.databases else {}
        return {**self.telemetry, **database}

    def resident(self, name: str) -> float:
        """Resident memory of a process in MiB."""
        pages = int(Path(f"/proc/{self.supervisor.pid(name)}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu(self, name: str) -> float:
        """CPU seconds that a process has used."""
        text = Path(f"/proc/{self.supervisor.pid(name)}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def written(self, name: str) -> int:
        """Bytes that a process has had written to the disk."""
        lines = Path(f"/proc/{self.supervisor.pid(name)}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    def projected(self) -> Callable[[], int]:
        """How far analytics has committed, read from its own SQLite file as any reader would see it."""
        connection = self.sqlite("analytics")
        query = "SELECT coalesce(max(position), 0) FROM projections"
        return lambda: int(connection.execute(query).fetchone()[0])

    def sqlite(self, service: str) -> sqlite3.Connection:
        """A reader's connection to a service's own file."""
        return sqlite3.connect(f"file:{self.layout.database(service)}?mode=ro", uri=True)


@contextmanager
def running(telemetry: dict[str, str] | None = None, databases: dict[str, str] | None = None) -> Iterator[System]:
    """A fresh system, stopped and deleted at the end."""
    WORK.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="system-", dir=WORK))
    territory = ROOT / "deploy" / "territory" / "marseille.json"
    layout = Layout(home, free_ports(6), territory)
    system = System(layout, Supervisor(layout.logs), telemetry or {}, databases or {})
    try:
        system.start()
        yield system
    finally:
        system.supervisor.stop_all()
        shutil.rmtree(home, ignore_errors=True)
