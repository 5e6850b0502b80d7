"""25 million facts served end to end beside 2.5 million: QueryMap through gRPC, and what its process holds in memory.

BENCH_MAP_LONG=1 runs it: 8 GB of disk, 6 GB of memory, half an hour. The read models are filled table by table with
the rows that the projection makes, as a check on a small one shows, because a rebuild by events of this size takes
half an hour by itself (58 microseconds of processor time a fact, as at 2.5 million; bench/map.py measures it). Bodies
are of one sample fact of each source and kind, and titles are not searchable: no map question reads either.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from planier.common.v1 import fact_pb2

from bench.harness import Row, medians, row
from bench.map import FACTS, TIMES, agree, duckdb_over, folder_here, from_sql, p99, served
from bench.map_data import END, KINDS, SOURCES, TITLED, Ints, Points, events, index_rows, points, viewports
from services.analytics.columns import FIELDS
from services.analytics.companions import SLOT_US, WHOLE, cell_of
from services.analytics.placement import bucket_of
from services.analytics.projections import FactProjection, code_of
from services.analytics.reading import open_for_reading
from services.analytics.wiring import open_for_writing
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS

_CHUNK = 100_000
_FILLED = ("fact_names", "fact_buckets", "fact_placements", "fact_history", "fact_arrivals")
_SHOWN = "position, fact_id, revision, change, recorded_us, instrument, bucket, source, starts_us, title"


def rows() -> list[Row]:
    """The same 200 kinds of looks at both sizes; the small one in the same run."""
    if not os.environ.get("BENCH_MAP_LONG"):
        print("map-long: left out (BENCH_MAP_LONG=1 runs it)")
        return []
    _check()
    with ExitStack() as stack:
        folder = stack.enter_context(folder_here())
        small, large = points(FACTS), points(TIMES * FACTS)
        looks, far_looks = viewports(small), viewports(large)
        urls = [f"sqlite:///{folder}/{name}.db" for name in ("small", "large")]
        fill(small, urls[0])
        fill(large, urls[1])
        (folder / "few").mkdir()
        (folder / "many").mkdir()
        duck = stack.enter_context(duckdb_over(large, folder))
        del small, large
        few, _ = stack.enter_context(served(urls[0], folder / "few"))
        many, server = stack.enter_context(served(urls[1], folder / "many"))
        engine = open_for_reading(urls[1])
        stack.callback(engine.dispose)
        sql = from_sql(engine, None)
        for look in looks:
            few(look)
        agree([duck, many, sql], far_looks)
        before, after, peer, in_sql = medians(
            partial(p99, few, looks),
            partial(p99, many, far_looks),
            partial(p99, duck, far_looks),
            partial(p99, sql, far_looks),
        )
        held = _memory(server)
    print(f"  the serving process: {', '.join(f'{name} {size:.2f} GiB' for name, size in held.items())}")
    name, of = f"viewport through gRPC, {TIMES} times the facts: p99", "DuckDB, time-ordered table"
    count = f"{TIMES * FACTS:,} facts"
    return [
        row(name, after, "ms", f"the same on {FACTS:,}", before, "<= 5"),
        row(f"{name} ", after, "ms", of, peer, "<= 3"),
        row(f"viewport, SQL, {TIMES} times the facts: p99", in_sql, "ms", of, peer, ""),
        row(f"process that serves {count}", held["VmRSS"], "GiB", "the limit of GiB", 4.0, "<= 1"),
        row(f"of it, beside pages of the file, {count}", held["RssAnon"], "GiB", "the limit of GiB", 4.0, "<= 1"),
    ]


def fill(data: Points, url: str) -> None:
    """A read model of these facts, as the projection would have made it."""
    writer = open_for_writing(url)
    ProjectionRunner(writer, FactProjection())
    writer.dispose()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    # A bench may lose its file.
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-65536")
    names = (*SOURCES, *KINDS, "city-rules")
    _insert(connection, "fact_names", sorted((code_of(name), name) for name in names))
    buckets: set[tuple[int, int]] = set()
    arrivals: dict[tuple[int, int, int], int] = {}
    by_position = np.empty((2, len(data)), np.int64)
    for chunk in index_rows(data, _CHUNK):
        table = dict(zip(FIELDS, chunk, strict=True))
        by_position[:, table["position"] - 1] = table["bucket"], table["source"]
        pairs = np.unique(chunk[:2].T, axis=0).tolist()
        buckets.update((source, bucket) for bucket, source in pairs)
        _count(arrivals, table)
        shown = (table[name].tolist() for name in ("cell", "longitude", "latitude", "kind", "status", "recorded_us"))
        key = (table[name].tolist() for name in ("bucket", "source", "starts_us", "position", "ends_us"))
        nothing = [None] * chunk.shape[1]
        _insert(connection, "fact_placements", zip(*key, *shown, *(nothing,) * 4, strict=True))
    _insert(connection, "fact_buckets", sorted((source, *bucket_of(bucket)) for source, bucket in buckets))
    _insert(connection, "fact_arrivals", sorted((*key, count) for key, count in arrivals.items()))
    _insert(connection, "fact_versions", _versions(data, by_position))
    identities = ((position.to_bytes(16, "big"), position) for position in range(1, len(data) + 1))
    _insert(connection, "fact_history", identities)
    state = ("bench", len(data), GENESIS)
    connection.execute("UPDATE projections SET store_id = ?, position = ?, digest = ?", state)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _count(arrivals: dict[tuple[int, int, int], int], table: dict[str, Ints]) -> None:
    keys = np.stack([table["source"], table["bucket"], table["recorded_us"] // SLOT_US], axis=1)
    found, counts = np.unique(keys, axis=0, return_counts=True)
    for (source, bucket, slot), count in zip(found.tolist(), counts.tolist(), strict=True):
        for place in (WHOLE, cell_of(bucket)):
            arrivals[source, place, slot] = arrivals.get((source, place, slot), 0) + count


def _versions(data: Points, by_position: Ints) -> Iterator[tuple[Any, ...]]:
    bodies = [[_sample(source, kind) for kind in range(len(KINDS))] for source in range(len(SOURCES))]
    instrument = code_of("city-rules")
    titled = [source in TITLED for source in SOURCES]
    for first in range(0, len(data), _CHUNK):
        part = slice(first, first + _CHUNK)
        columns = (data.source[part], data.kind[part], data.second[part], *by_position[:, part])
        for position, (source, kind, second, bucket, code) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), first + 1
        ):
            key, learnt = position.to_bytes(16, "big"), END * 1_000_000 + position * 200
            title = f"Chantier {position % 997}" if titled[source] else ""
            body = bodies[source][kind]
            yield position, key, 1, 1, learnt, instrument, 0, 0, bucket, code, second * 1_000_000, title, body


def _sample(source: int, kind: int) -> bytes:
    fact = fact_pb2.Fact(source=SOURCES[source], source_id="B-12345678", revision=1, kind=KINDS[kind])
    fact.geometry.point.longitude, fact.geometry.point.latitude = 5.3698, 43.2965
    period = fact.periods.add()
    period.start.seconds, period.end.seconds = END - 60, END
    fact.instrument_id, fact.status = "city-rules", fact_pb2.FACT_STATUS_ENDED
    return fact.SerializeToString()


def _insert(connection: sqlite3.Connection, table: str, given: Iterable[tuple[Any, ...]]) -> None:
    width = len(connection.execute(f"SELECT * FROM {table} LIMIT 0").description)  # noqa: S608 -- our own names
    marks = ", ".join("?" * width)
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", given)  # noqa: S608
    connection.commit()


def _check(count: int = 20_000) -> None:
    """On a few facts, the tables that were filled are those of the projection."""
    data = points(count)
    with tempfile.TemporaryDirectory() as name:
        made, told = Path(name) / "made.db", Path(name) / "told.db"
        fill(data, f"sqlite:///{made}")
        writer = open_for_writing(f"sqlite:///{told}")
        runner = ProjectionRunner(writer, FactProjection())
        (batch,) = events(data, count)
        runner.advance("bench", GENESIS, batch, bytes(32))
        writer.dispose()
        with sqlite3.connect(made) as ours, sqlite3.connect(told) as theirs:
            queries = [f"SELECT * FROM {table}" for table in _FILLED]  # noqa: S608 -- our own names
            for query in (*queries, f"SELECT {_SHOWN} FROM fact_versions"):  # noqa: S608
                assert ours.execute(query).fetchall() == theirs.execute(query).fetchall(), query


def _memory(process: int) -> dict[str, float]:
    """GiB by name in the process's status: all that is resident; beside files; most that ever was."""
    status = Path(f"/proc/{process}/status").read_text()
    wanted = ("VmRSS", "RssAnon", "RssFile", "VmHWM")
    lines = (line.split() for line in status.splitlines())
    return {line[0][:-1]: int(line[1]) / 2**20 for line in lines if line and line[0][:-1] in wanted}
