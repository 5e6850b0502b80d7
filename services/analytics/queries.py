"""What the read RPCs ask of the read model, within one read transaction; every question takes the guard's Grant.

A map question scans the buckets that its area and period meet. Where a fact is one point and one period the index
decides; elsewhere the index gives candidates, and the fact's own periods and shape decide.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planier.analytics.v1.analytics_pb2 import ChangeKind
from planier.common.v1 import fact_pb2
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import marks, run, run_in_pages
from services.analytics.placement import CELL_RESOLUTION, microseconds_of, parent, shape_of
from services.analytics.projections import code_of
from services.kernel.guard.grant import Grant

PAGE = 20_000

_COLUMNS = (
    "p.position, p.starts_us, p.ends_us, p.longitude, p.latitude, p.source, p.kind, p.status, p.cell, p.bucket,"
    " p.west, p.south, p.east, p.north"
)
_SCAN = (
    " FROM fact_buckets b CROSS JOIN @table p WHERE b.plain = ? AND b.west <= ? AND b.east >= ? AND b.south <= ?"
    " AND b.north >= ? AND p.bucket = b.bucket AND p.source = b.source"
    " AND p.starts_us < ? AND p.starts_us > ? - b.span_us AND p.ends_us > ?"
)
_POINT = " AND p.longitude BETWEEN ? AND ? AND p.latitude BETWEEN ? AND ?"
_BOX = " AND p.west <= ? AND p.east >= ? AND p.south <= ? AND p.north >= ?"
_DETAILS = "SELECT v.position, v.fact_id, v.revision, v.recorded_us, v.instrument, v.title, v.attendance_minimum,"
_DETAILS += " v.attendance_maximum FROM "
_DETAILS_SQLITE = _DETAILS + "json_each(?) j CROSS JOIN fact_versions v ON v.position = j.value"
_DETAILS_POSTGRES = _DETAILS + "fact_versions v WHERE v.position = ANY(?)"
_BODIES_SQLITE = "SELECT v.position, v.body FROM json_each(?) j CROSS JOIN fact_versions v ON v.position = j.value"
_BODIES_POSTGRES = "SELECT v.position, v.body FROM fact_versions v WHERE v.position = ANY(?)"
_HISTORY = (
    "SELECT v.position, v.change, v.recorded_us, v.body FROM fact_history h"
    " JOIN fact_versions v ON v.position = h.position WHERE h.fact_id = ? AND v.recorded_us <= ? ORDER BY v.position"
)
_SEVERAL_PERIODS = 0x8000
_END_OF_TIME = 2**63 - 1

# _COLUMNS in order; body last, None where the fact is one point and one period.
Found = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MapQuery:
    """Instants in microseconds since 1970, the period half-open; an empty filter means all that the caller may see."""

    area: Area
    starts_us: int
    ends_us: int
    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    as_of_us: int | None = None
    changed_since_us: int | None = None
    limit: int = 2000
    cell_budget: int = 5000


@dataclass(frozen=True, slots=True)
class MapAnswer:
    """Either features in order of (start, fact id), each a Found and its details, or exact counts by cell."""

    total: int
    features: tuple[tuple[Found, tuple[Any, ...]], ...] = ()
    resolution: int = 0
    cells: tuple[tuple[int, int], ...] = ()
    # What the codes in `features` stand for.
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """One version of a fact."""

    position: int
    change: ChangeKind.ValueType
    recorded_us: int
    fact: fact_pb2.Fact


def query_map(connection: Connection, grant: Grant, query: MapQuery) -> MapAnswer:
    """The facts of the granted sources that meet area and period: features up to the limit, else cells."""
    sources = permitted(grant, query.sources)
    if not sources:
        return MapAnswer(total=0)
    scan = _Scan(connection, query, sources)
    tally = _Tally(query.limit)
    for table in ("fact_placements",) if query.as_of_us is None else ("fact_placements", "fact_superseded"):
        scan.plain(table, tally)
        scan.others(table, tally)
    if tally.overflown:
        resolution, cells = roll_up(tally.counts, query.cell_budget)
        return MapAnswer(tally.counts.total(), (), resolution, cells)
    names = {row[0]: row[1] for row in run(connection, "SELECT code, text FROM fact_names", ())}
    return MapAnswer(len(tally.rows), _with_details(connection, tally.rows), names=names)


def fact_versions(
    connection: Connection, grant: Grant, fact_id: str, as_of_us: int | None = None
) -> tuple[KnownVersion, ...]:
    """The versions known at that instant, oldest first; none where the fact is unknown or its source not granted."""
    bound = _END_OF_TIME if as_of_us is None else as_of_us
    rows = run(connection, _HISTORY, (bytes.fromhex(fact_id), bound))
    versions = tuple(KnownVersion(row[0], row[1], row[2], fact_pb2.Fact.FromString(row[3])) for row in rows)
    return versions if all(version.fact.source in grant.sources for version in versions) else ()


def permitted(grant: Grant, asked: Sequence[str]) -> tuple[str, ...]:
    """The granted sources among those asked for, all of them where none is named."""
    return tuple(sorted(grant.sources.intersection(asked) if asked else grant.sources))


def roll_up(counts: Counter[int], budget: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Counts by cell at the finest resolution of at most `budget` cells (or the coarsest there is); the sum is kept."""
    resolution = CELL_RESOLUTION
    while len(counts) > budget and resolution > 0:
        resolution -= 1
        coarser: Counter[int] = Counter()
        for cell, count in counts.items():
            coarser[parent(cell, resolution)] += count
        counts = coarser
    return resolution, tuple(sorted(counts.items()))


class _Tally:
    """Rows as long as they may be shown one by one, counts by fine cell from then on."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[Found] = []
        self.counts: Counter[int] = Counter()
        self.overflown = False

    def add(self, rows: list[Found]) -> None:
        self.rows += rows
        if self.overflown or len(self.rows) > self.limit:
            self._overflow()

    def add_counts(self, counts: dict[int, int]) -> None:
        self._overflow()
        self.counts.update(counts)

    def _overflow(self) -> None:
        self.overflown = True
        self.counts.update(row[8] for row in self.rows)
        self.rows = []


class _Scan:
    """The statements of one map question."""

    def __init__(self, connection: Connection, query: MapQuery, sources: Sequence[str]) -> None:
        self._connection = connection
        self._query = query
        area = query.area
        self._bounds = (area.east, area.west, area.north, area.south, query.ends_us, query.starts_us, query.starts_us)
        self._filter, self._values = _filters(query, sources)

    def plain(self, table: str, tally: _Tally) -> None:
        """Facts of one point and one period."""
        area, limit = self._query.area, tally.limit
        body = self._body(table, _POINT)
        values = (1, *self._bounds, area.west, area.east, area.south, area.north, *self._values_of(table))
        if not area.is_box:
            for page in run_in_pages(self._connection, "SELECT " + _COLUMNS + body, values, PAGE):
                inside = area.meets_points([row[3] for row in page], [row[4] for row in page])
                tally.add([row for row, is_in in zip(page, inside, strict=True) if is_in])
            return
        if not tally.overflown:
            few = run(self._connection, "SELECT " + _COLUMNS + body + " LIMIT ?", (*values, limit + 1))
            if len(few) <= limit:
                tally.add(few)
                return
        counts = run(self._connection, "SELECT p.cell, COUNT(*)" + body + " GROUP BY p.cell", values)
        tally.add_counts({cell: count for cell, count in counts})  # noqa: C416 -- Row is not a tuple of two to mypy

    def others(self, table: str, tally: _Tally) -> None:
        """Facts with a shape or with several periods: the index gives candidates, their bodies decide."""
        area = self._query.area
        sql = "SELECT " + _COLUMNS + self._body(table, _BOX)
        values = (0, *self._bounds, area.east, area.west, area.north, area.south, *self._values_of(table))
        for page in run_in_pages(self._connection, sql, values, PAGE):
            tally.add(list(self._certain(page)))

    def _certain(self, page: Sequence[Found]) -> Iterator[Found]:
        query, open_questions = self._query, []
        bodies = _by_position(self._connection, _BODIES_SQLITE, _BODIES_POSTGRES, [row[0] for row in page])
        for row in page:
            body = bytes(bodies[row[0]][1])
            several, inside = row[9] & _SEVERAL_PERIODS, query.area.holds_box(*row[10:14])
            if not several and inside:
                yield (*row, body)
                continue
            fact = fact_pb2.Fact.FromString(body)
            if several and not _meets(fact.periods, query.starts_us, query.ends_us):
                continue
            if inside:
                yield (*row, body)
            else:
                open_questions.append((row, body, shape_of(fact.geometry)))
        if open_questions:
            found = query.area.meets_shapes([shape for _, _, shape in open_questions])
            for (row, body, _), is_in in zip(open_questions, found, strict=True):
                if is_in:
                    yield (*row, body)

    def _body(self, table: str, place: str) -> str:
        past = " AND p.superseded_us > ?" if table == "fact_superseded" else ""
        return _SCAN.replace("@table", table) + place + self._filter + past

    def _values_of(self, table: str) -> tuple[object, ...]:
        return (*self._values, self._query.as_of_us) if table == "fact_superseded" else self._values


def _filters(query: MapQuery, sources: Sequence[str]) -> tuple[str, tuple[object, ...]]:
    sql, values = "", []
    codes = (
        ("b.source", [code_of(source) for source in sources]),
        ("p.kind", [code_of(kind) for kind in query.kinds]),
        ("p.status", list(query.statuses)),
    )
    for column, wanted in codes:
        if wanted:
            sql += " AND " + column + " IN (" + marks(len(wanted)) + ")"
            values += wanted
    if query.changed_since_us is not None:
        sql += " AND p.recorded_us >= ?"
        values.append(query.changed_since_us)
    if query.as_of_us is not None:
        sql += " AND p.recorded_us <= ?"
        values.append(query.as_of_us)
    return sql, tuple(values)


def _meets(periods: Sequence[fact_pb2.Period], starts_us: int, ends_us: int) -> bool:
    return any(
        microseconds_of(period.start) < ends_us and microseconds_of(period.end) > starts_us for period in periods
    )


def _with_details(connection: Connection, rows: Sequence[Found]) -> tuple[tuple[Found, tuple[Any, ...]], ...]:
    details = _by_position(connection, _DETAILS_SQLITE, _DETAILS_POSTGRES, [row[0] for row in rows])
    pairs = [(row, details[row[0]]) for row in rows]
    pairs.sort(key=lambda pair: (pair[0][1], pair[1][1]))
    return tuple(pairs)


def _by_position(
    connection: Connection, sqlite: str, postgres: str, positions: Sequence[int]
) -> dict[int, tuple[Any, ...]]:
    """Rows of `version` by position: the list goes as one value, so that the statement is the same for any length."""
    if connection.dialect.name == "postgresql":
        rows = run(connection, postgres, (list(positions),))
    else:
        rows = run(connection, sqlite, (json.dumps(positions),))
    return {row[0]: row for row in rows}
