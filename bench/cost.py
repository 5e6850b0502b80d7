"""What a fact costs each process on its way, in processor time and bytes written: where the next change should look."""

import asyncio

from bench.harness import Row
from bench.ingest import FACTS, ingest_facts
from bench.system import System, running

PROCESSES = ("ingest", "analytics", "access", "audit", "broker")


def rows() -> list[Row]:
    """Batches of 500 in a closed loop on SQLite, into tables that already hold as many facts."""
    with running() as system:
        asyncio.run(ingest_facts(system))
        before = {name: _spent(system, name) for name in PROCESSES}
        asyncio.run(ingest_facts(system))
        after = {name: _spent(system, name) for name in PROCESSES}
    found = []
    for name in PROCESSES:
        cpu, written = ((after[name][part] - before[name][part]) / FACTS for part in (0, 1))
        found.append(Row(f"cost of a declared fact, {name}: processor", 1e6 * cpu, "us"))
        found.append(Row(f"cost of a declared fact, {name}: written to the disk", written, "bytes"))
    return found


def _spent(system: System, name: str) -> tuple[float, float]:
    return system.cpu(name), system.written(name)
