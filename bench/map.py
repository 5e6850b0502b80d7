"""Viewports over 2.5 million facts beside DuckDB and PostGIS: from SQL, from the columns, as of a moment, through gRPC.

BENCH_MAP_FACTS sets another number; bench/map_long.py goes to ten times it. Every way must find the same facts. A look
gives 2,000 facts at most; above that ours counts all of them by cell, and a peer stops.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import Period
from sqlalchemy import Connection, Engine

from bench.harness import ROUNDS, Row, medians, quantile, row
from bench.ingest import _bare_target, _closed_loop, bare_sqlite
from bench.map_data import END, SOURCES, Points, Viewport, events, points, viewports
from bench.system import WORK
from services.analytics.area import Area
from services.analytics.placement import E7
from services.analytics.projections import FactProjection
from services.analytics.queries import MapQuery, scan
from services.analytics.reading import open_for_reading
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE
from services.analytics.wiring import open_for_writing
from services.kernel.projection import ProjectionRunner
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.tls import TlsFiles
from services.kernel.store.base import GENESIS
from services.kernel.telemetry import Telemetry
from services.stack.certificates import issue
from tests.fixtures.stack import free_ports

FACTS = int(os.environ.get("BENCH_MAP_FACTS", "2500000"))
TIMES = 10
LIMIT = 2000
BATCH = 10_000
# Ours last a minute, so one that began just before a period still meets it; a peer has instants.
MINUTE = 60
BIN = Path("/usr/lib/postgresql/15/bin")
Look = Callable[[Viewport], int]
_SELECT = "SELECT lon, lat, ts, source, type FROM ev WHERE ts >= ? AND ts < ? AND lon BETWEEN ? AND ?"
_SELECT += f" AND lat BETWEEN ? AND ? AND source IN (?, ?, ?) LIMIT {LIMIT}"
_POSTGIS = "SELECT st_x(geom), st_y(geom), ts, source, type FROM ev"
_POSTGIS += " WHERE st_intersects(geom, st_makeenvelope(%s, %s, %s, %s, 4326)) AND ts >= %s AND ts < %s"
_POSTGIS += f" AND source = ANY(%s::int2[]) LIMIT {LIMIT}"


def rows() -> list[Row]:
    """Every figure of this file."""
    data = points(FACTS)
    looks = viewports(data)
    with ExitStack() as stack:
        folder = stack.enter_context(folder_here())
        url = f"sqlite:///{folder}/analytics.db"
        rebuilt, bare = _rebuild(data, url)
        engine = open_for_reading(url)
        stack.callback(engine.dispose)
        duck = stack.enter_context(duckdb_over(data, folder))
        ours, past = from_sql(engine, None), from_sql(engine, END * 2_000_000)
        snapshot = Snapshot(engine, in_background=False)
        snapshot.load()
        held = _from_columns(snapshot, engine)
        wire, _ = stack.enter_context(served(url, folder))
        ways = [duck, ours, past, held, wire]
        agree(ways, looks)
        peer, sql, as_of, columns, through = medians(*(partial(p99, way, looks) for way in ways))
        size = snapshot.size / len(data)
        found = [
            row("viewport, SQL: p99", sql, "ms", "DuckDB, time-ordered table", peer, "<= 2"),
            row("viewport, columns: p99", columns, "ms", "DuckDB, time-ordered table", peer, "<= 1"),
            row("viewport, as of a moment, SQL: p99", as_of, "ms", "DuckDB, time-ordered table", peer, ""),
            row("viewport through gRPC, details and packing: p99", through, "ms", "DuckDB, in process", peer, "<= 3"),
            row("read model rebuilt", rebuilt, "facts/s", "bare pipeline", bare, ">= 0.3"),
            Row("columns in memory", size, "MB/million"),
        ]
        found += _postgis_rows(data, looks, ours, held)
    return found


def agree(ways: Sequence[Look], looks: Sequence[Viewport]) -> None:
    """Also the warm-up: all ways find as many, up to the limit."""
    for look in looks:
        counts = {min(way(look), LIMIT) for way in ways}
        assert len(counts) == 1, (look, counts)


def p99(way: Look, looks: Sequence[Viewport]) -> float:
    """Milliseconds a look."""
    return _quantile(way, looks, 0.99)


def _quantile(way: Look, looks: Sequence[Viewport], q: float) -> float:
    taken = []
    for look in looks:
        begun = time.perf_counter()
        way(look)
        taken.append(1e3 * (time.perf_counter() - begun))
    return quantile(taken, q)


def _rebuild(data: Points, url: str) -> tuple[float, float]:
    """Facts a second of a rebuild, bulk and swap; of the bare pipeline, just before."""
    with bare_sqlite() as bare:
        pipeline = max(asyncio.run(_closed_loop(_bare_target(bare))) for _ in range(ROUNDS))
    writer = open_for_writing(url)
    rebuild = ProjectionRunner(writer, FactProjection()).begin_rebuild()
    spent, before = 0.0, GENESIS
    for number, batch in enumerate(events(data, BATCH)):
        after = number.to_bytes(32, "big")
        begun = time.perf_counter()
        rebuild.advance("bench", before, batch, after)
        spent += time.perf_counter() - begun
        before = after
    begun = time.perf_counter()
    rebuild.swap()
    spent += time.perf_counter() - begun
    writer.dispose()
    return len(data) / spent, pipeline


def _query(look: Viewport, as_of_us: int | None) -> MapQuery:
    area = Area(round(look.west * E7), round(look.south * E7), round(look.east * E7), round(look.north * E7))
    return MapQuery(area, look.begin * 10**6, look.end * 10**6, as_of_us=as_of_us, limit=LIMIT)


def _ours(connection: Connection, look: Viewport, as_of_us: int | None, snapshot: Snapshot | None) -> int:
    sources = [SOURCES[source] for source in look.sources]
    found, tally = scan(connection, _query(look, as_of_us), sources, NONE, snapshot)
    return len(found) if tally is None else tally.shown().total


def from_sql(engine: Engine, as_of_us: int | None) -> Look:
    """Ours, without the columns."""

    def look(viewport: Viewport) -> int:
        with engine.begin() as connection:
            return _ours(connection, viewport, as_of_us, None)

    return look


def _from_columns(snapshot: Snapshot, engine: Engine) -> Look:
    def look(viewport: Viewport) -> int:
        with engine.begin() as connection:
            return _ours(connection, viewport, None, snapshot)

    return look


@contextmanager
def duckdb_over(data: Points, folder: Path) -> Iterator[Look]:
    """The peer, over the facts in the order of time."""
    connection = duckdb.connect(str(folder / "peer.duckdb"))
    connection.execute("SET threads = 2")
    connection.register("arrays", _table(data))
    connection.execute("CREATE TABLE ev AS SELECT * FROM arrays")
    connection.execute("CHECKPOINT")

    def look(viewport: Viewport) -> int:
        box = (viewport.west, viewport.east, viewport.south, viewport.north)
        values = (viewport.begin - MINUTE + 1, viewport.end, *_grid(box), *viewport.sources)
        return len(connection.execute(_SELECT, values).fetchnumpy()["lon"])

    yield look
    connection.close()


def _grid(box: Sequence[float]) -> tuple[float, ...]:
    """Edges on the grid of 1e-7 degree, where ours compares."""
    return tuple(round(edge * E7) / E7 for edge in box)


def _table(data: Points) -> dict[str, Any]:
    source, kind = data.source.astype(np.int16), data.kind.astype(np.int16)
    return {"lon": data.longitude, "lat": data.latitude, "ts": data.second, "source": source, "type": kind}


@contextmanager
def served(url: str, folder: Path) -> Iterator[tuple[Look, int]]:
    """QueryMap over mTLS, the answer parsed; and the process of its own that serves it."""
    issue(folder / "pki", ("analytics", "workstation"))
    program = [sys.executable, "-m", "bench.map_server", url, str(folder / "pki")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child, asyncio.Runner() as runner:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        files = TlsFiles(*(folder / "pki" / name for name in ("workstation.pem", "workstation.key", "ca.pem")))
        channel = runner.run(_opened(port, files))
        query = AnalyticsServiceStub(channel).QueryMap

        async def ask(viewport: Viewport) -> int:
            answer = await query(_request(viewport), timeout=30)
            return int(answer.total)

        try:
            yield lambda viewport: runner.run(ask(viewport)), child.pid
            runner.run(channel.close())
        finally:
            child.terminate()


async def _opened(port: int, files: TlsFiles) -> Any:
    return open_channel(f"127.0.0.1:{port}", files, Telemetry.off(), server_name="analytics")


def _request(look: Viewport) -> QueryMapRequest:
    box = BoundingBox(west=look.west, south=look.south, east=look.east, north=look.north)
    period = Period()
    period.start.seconds, period.end.seconds = look.begin, look.end
    request = QueryMapRequest(box=box, period=period, sources=[SOURCES[source] for source in look.sources])
    request.consultation.consultation_id = "5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0c"
    request.consultation.motive = "mesure"
    return request


def _postgis_rows(data: Points, looks: Sequence[Viewport], ours: Look, held: Look) -> list[Row]:
    if not (BIN / "initdb").exists() or not Path("/usr/share/postgresql/15/extension/postgis.control").exists():
        print("no PostGIS here (Debian: postgresql-15-postgis-3): its rows are left out")
        return []
    with _postgis(data) as peer:
        agree([peer, ours], looks)
        theirs, sql, columns = medians(*(partial(p99, way, looks) for way in (peer, ours, held)))
    name = "PostGIS, GiST(geom) + btree(source, ts)"
    return [
        row("viewport, SQL: p99 ", sql, "ms", name, theirs, "<= 0.15"),
        row("viewport, columns: p99 ", columns, "ms", name, theirs, "<= 0.15"),
    ]


@contextmanager
def _postgis(data: Points) -> Iterator[Look]:
    with _cluster() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION postgis")
        connection.execute("CREATE TABLE raw(lon float8, lat float8, ts int8, source int2, type int2)")
        table = _table(data)
        with connection.cursor().copy("COPY raw FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["float8", "float8", "int8", "int2", "int2"])
            for values in zip(*(column.tolist() for column in table.values()), strict=True):
                copy.write_row(values)
        connection.execute(
            "CREATE TABLE ev AS SELECT st_setsrid(st_makepoint(lon, lat), 4326) geom, ts, source, type FROM raw"
        )
        connection.execute("CREATE INDEX ON ev USING gist(geom)")
        connection.execute("CREATE INDEX ON ev(source, ts)")
        connection.execute("VACUUM ANALYZE ev")
        cursor = connection.cursor(binary=True)

        def look(viewport: Viewport) -> int:
            box = _grid((viewport.west, viewport.south, viewport.east, viewport.north))
            values = (*box, viewport.begin - MINUTE + 1, viewport.end, list(viewport.sources))
            return len(cursor.execute(_POSTGIS, values, prepare=True).fetchall())

        yield look


@contextmanager
def _cluster() -> Iterator[str]:
    """Debian's PostgreSQL in a folder of its own; as root it must run as the user postgres."""
    port = free_ports(1)
    with folder_here() as folder:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if as_user:
            shutil.chown(folder, "postgres")
        place = str(folder / "data")
        _quietly([*as_user, str(BIN / "initdb"), "-D", place, "-A", "trust", "-U", "bench"])
        options = f"-p {port} -k {folder} -c listen_addresses= -c shared_buffers=2GB -c max_wal_size=8GB -c jit=off"
        control = [*as_user, str(BIN / "pg_ctl"), "-D", place, "-w"]
        _quietly([*control, "-o", options, "start"])
        try:
            yield f"host={folder} port={port} user=bench dbname=postgres"
        finally:
            _quietly([*control, "-m", "immediate", "stop"])


def _quietly(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@contextmanager
def folder_here() -> Iterator[Path]:
    """A folder on the disk of the checkout, for as long as it is used."""
    WORK.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="map-", dir=WORK))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
