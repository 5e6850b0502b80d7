"""The facts that feed tension, read in columns within one read transaction, under the guard's Grant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from planier.common.v1 import fact_pb2
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import marks, run_in_pages
from services.analytics.projections import code_of
from services.analytics.snapshot import Snapshot
from services.analytics.tension.facts import Facts, Feed, feeds
from services.kernel.guard.grant import Grant
from services.kernel.registry import Registry

PAGE = 20_000
# What did not take place.
_NOT_COUNTED = (fact_pb2.FACT_STATUS_CANCELLED, fact_pb2.FACT_STATUS_PROHIBITED)

_TAKEN = ("kind", "cell", "longitude", "latitude", "starts_us", "recorded_us", "status")
_SCAN = (
    "SELECT p.source, p.kind, p.cell, p.longitude, p.latitude, p.starts_us, p.recorded_us"
    " FROM fact_buckets b CROSS JOIN @table p WHERE b.west <= ? AND b.east >= ? AND b.south <= ? AND b.north >= ?"
    " AND p.bucket = b.bucket AND p.source = b.source AND p.starts_us >= ? AND p.starts_us < ?"
    " AND p.longitude BETWEEN ? AND ? AND p.latitude BETWEEN ? AND ?"
)


@dataclass(frozen=True, slots=True)
class TensionQuery:
    """Facts whose representative point is in the area and that begin in [starts_us, ends_us), in microseconds."""

    area: Area
    starts_us: int
    ends_us: int
    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    as_of_us: int | None = None


def feeding(grant: Grant, registry: Registry, query: TensionQuery) -> tuple[Feed, ...]:
    """The kinds that are asked for, that the caller may see, and that may feed tension."""
    sources = grant.sources.intersection(query.sources) if query.sources else grant.sources
    return feeds(registry, sources, query.kinds)


def read_facts(
    connection: Connection, grant: Grant, registry: Registry, query: TensionQuery, snapshot: Snapshot | None = None
) -> Facts:
    """The facts of those kinds as known at the query's instant; cancelled and prohibited ones are not among them.

    What is current and of one point and one period comes from the columns, where they stand at this very position.
    """
    fed = feeding(grant, registry, query)
    if not fed:
        return _of_rows((), [])
    if query.as_of_us is not None:
        tables = ("fact_placements", "fact_superseded")
        facts = _of_rows(fed, [page for table in tables for page in _pages(connection, fed, query, table)])
    elif (plain := from_columns(connection, fed, query, snapshot)) is not None:
        return plain.beside(_inside(query, _of_rows(fed, _pages(connection, fed, query, others=True))))
    else:
        facts = _of_rows(fed, _pages(connection, fed, query))
    return _inside(query, facts)


def _inside(query: TensionQuery, facts: Facts) -> Facts:
    if query.area.is_box or not len(facts):
        return facts
    return facts.where(query.area.meets_points(facts.longitude.tolist(), facts.latitude.tolist()))


def from_columns(
    connection: Connection, fed: tuple[Feed, ...], query: TensionQuery, snapshot: Snapshot | None
) -> Facts | None:
    """The plain facts, from the columns; None where they do not stand at this very position."""
    if snapshot is None:
        return None
    sources = sorted({code_of(feed.source) for feed in fed})
    kinds = sorted({code_of(feed.kind) for feed in fed})
    with snapshot.columns(connection) as known:
        if known is None:
            return None
        found = known.select(query.area, (query.starts_us, query.ends_us), sources, kinds, (), ((), 0))
        taken = found.taken(_TAKEN)
        cells = np.array(known.cells.values, np.int64).astype(np.uint64)
        feed_of = np.full((len(known.sources.values), len(known.kinds.values)), -1, np.int16)
        for index, one in enumerate(fed):
            source, kind = known.sources.find(code_of(one.source)), known.kinds.find(code_of(one.kind))
            if source >= 0 and kind >= 0:
                feed_of[source, kind] = index
    feed = feed_of[taken["source"], taken["kind"]]
    facts = Facts(
        fed,
        cells,
        feed,
        taken["cell"].astype(np.int64),
        taken["longitude"],
        taken["latitude"],
        taken["starts_us"],
        taken["recorded_us"],
    )
    # What began before the period is in the columns' answer, but counts in the period in which it began.
    counted = (feed >= 0) & (facts.starts_us >= query.starts_us) & ~np.isin(taken["status"], _NOT_COUNTED)
    return facts.where(counted)


def _pages(
    connection: Connection,
    fed: Sequence[Feed],
    query: TensionQuery,
    table: str = "fact_placements",
    *,
    others: bool = False,
) -> list[np.ndarray]:
    """Rows of one table; `others`: only facts of several periods or of a shape."""
    area = query.area
    sources = sorted({code_of(feed.source) for feed in fed})
    kinds = sorted({code_of(feed.kind) for feed in fed})
    sql = _SCAN.replace("@table", table)
    sql += f" AND b.source IN ({marks(len(sources))}) AND p.kind IN ({marks(len(kinds))})"
    sql += f" AND p.status NOT IN ({marks(len(_NOT_COUNTED))})"
    values: list[object] = [area.east, area.west, area.north, area.south, query.starts_us, query.ends_us]
    values += [area.west, area.east, area.south, area.north, *sources, *kinds, *_NOT_COUNTED]
    if others:
        sql += " AND b.plain = 0"
    if query.as_of_us is not None:
        sql += " AND p.recorded_us <= ?"
        values.append(query.as_of_us)
        if table == "fact_superseded":
            sql += " AND p.superseded_us > ?"
            values.append(query.as_of_us)
    return [np.array(page, np.int64) for page in run_in_pages(connection, sql, values, PAGE)]


def _of_rows(fed: tuple[Feed, ...], pages: Sequence[np.ndarray]) -> Facts:
    """Rows as columns; a kind of one source that shares its name with another source's is not taken for it."""
    rows = np.concatenate(pages) if pages else np.zeros((0, 7), np.int64)
    feed = np.full(len(rows), -1, np.int16)
    for index, one in enumerate(fed):
        feed[(rows[:, 0] == code_of(one.source)) & (rows[:, 1] == code_of(one.kind))] = index
    cells, cell = np.unique(rows[:, 2], return_inverse=True)
    facts = Facts(
        fed,
        cells.astype(np.uint64),
        feed,
        cell.astype(np.int64),
        rows[:, 3].astype(np.int32),
        rows[:, 4].astype(np.int32),
        rows[:, 5],
        rows[:, 6],
    )
    return facts.where(feed >= 0)
