"""What the read RPCs ask of the read model, within one read transaction; every question takes the guard's Grant.

A map question scans the buckets that its area and period meet. Where a fact is one point and one period the index
decides; elsewhere the index gives candidates, and the fact's own periods and shape decide.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

from planier.analytics.v1.analytics_pb2 import ChangeKind
from planier.common.v1 import fact_pb2
from sqlalchemy import Connection

from services.analytics import columns, states
from services.analytics.area import Area
from services.analytics.bulk import marks, run, run_in_pages
from services.analytics.counting import Counted, counted
from services.analytics.placement import CELL_RESOLUTION, FAR_WEST, microseconds_of, parent, shape_of, westernmost
from services.analytics.projections import code_of
from services.analytics.reading import remembered
from services.analytics.segments import Ints
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE, Counts, Minimums, Tally
from services.kernel.guard.grant import Grant
from services.kernel.registry import Registry

PAGE = 20_000
# Rows fetched before it is known how many there are.
_FEW = 100

_PLAIN = "p.position, p.starts_us, p.ends_us, p.longitude, p.latitude, p.source, p.kind, p.status, p.cell, p.bucket"
_COLUMNS = _PLAIN + ", p.west, p.south, p.east, p.north"
# Plain facts have no box: SQLite need not look for it in each row.
_PLAIN += ", NULL, NULL, NULL, NULL"
_SCAN = (
    " FROM fact_buckets b CROSS JOIN @table p WHERE b.plain = ? AND b.west >= ? AND b.west <= ? AND b.east >= ?"
    " AND b.south <= ? AND b.north >= ? AND p.bucket = b.bucket AND p.source = b.source"
    " AND p.starts_us < ? AND p.starts_us > ? - b.span_us AND p.ends_us > ?"
)
_POINT = " AND p.longitude BETWEEN ? AND ? AND p.latitude BETWEEN ? AND ?"
# Every fact of a bucket that lies within the area does, so that only the others' are compared.
_WHOLE = " AND b.west >= ? AND b.east <= ? AND b.south >= ? AND b.north <= ?"
_EDGE = _POINT + " AND NOT (" + _WHOLE.removeprefix(" AND ") + ")"
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
_END_OF_TIME = 2**63 - 1

# _COLUMNS in order; body last, None where the fact is one point and one period.
Found = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MapQuery:
    """Instants in microseconds since 1970, the period half-open; an empty filter means all that the caller may see.

    `nothing`: some filter was left with nothing ticked, so that nothing passes. `states` are relative to `state_at_us`.
    """

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
    states: tuple[int, ...] = ()
    state_at_us: int = 0
    nothing: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """Features in columns, with what their numbers stand for: codes, and titles."""

    held: Mapping[str, Ints]
    sources: Sequence[int]
    kinds: Sequence[int]
    instruments: Sequence[int]
    titles: Sequence[str]

    @property
    def count(self) -> int:
        """The number of features."""
        return len(self.held["position"])

    @classmethod
    def of(cls, found: columns.Found) -> "Shown":
        """What was found, copied: the columns move on."""
        known, held = found.columns, found.shown()
        titles = [known.titles[code] for code in held["title"].tolist()]
        sources, kinds, instruments = (tuple(one.values) for one in (known.sources, known.kinds, known.instruments))
        return cls(held, sources, kinds, instruments, titles)


@dataclass(frozen=True, slots=True)
class MapAnswer:
    """Either features in order of (start, fact id), each a Found and its details, or what may be shown of counts."""

    features: tuple[tuple[Found, tuple[Any, ...]], ...] = ()
    # The features, instead, as the columns in memory hold them.
    shown: Shown | None = None
    resolution: int = 0
    counts: Counts[int] | None = None
    # What the codes stand for.
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of features, or what the counts sum to."""
        if self.counts is not None:
            return self.counts.total
        return len(self.features) if self.shown is None else self.shown.count


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """One version of a fact."""

    position: int
    change: ChangeKind.ValueType
    recorded_us: int
    fact: fact_pb2.Fact


def query_map(
    connection: Connection, grant: Grant, query: MapQuery, minimums: Minimums = NONE, snapshot: Snapshot | None = None
) -> MapAnswer:
    """The facts of the granted sources that meet area and period: features up to the limit, else cells."""
    sources = permitted(grant, query.sources)
    if query.nothing or not sources:
        return MapAnswer()
    asked, held = Scan(connection, query, sources, snapshot), Held(query.limit, minimums)
    held.takes_columns = True
    asked.all(held)
    tally = held.tally if held.overflown else None
    names = remembered(connection, "names", _names)
    if tally is not None:
        resolution, rolled = roll_up(tally, query.cell_budget)
        return MapAnswer(resolution=resolution, counts=rolled.shown(), names=names)
    if held.shown is not None:
        return MapAnswer(shown=held.shown, names=names)
    return MapAnswer(_with_details(connection, held.rows), names=names)


def _names(connection: Connection) -> Mapping[int, str]:
    return {row[0]: row[1] for row in run(connection, "SELECT code, text FROM fact_names", ())}


def scan(
    connection: Connection,
    query: MapQuery,
    sources: Sequence[str],
    minimums: Minimums = NONE,
    snapshot: Snapshot | None = None,
) -> tuple[list[Found], Tally[int] | None]:
    """The index rows that match, in no order; above the limit none, and all of them counted by fine cell."""
    held = Held(query.limit, minimums)
    Scan(connection, query, sources, snapshot).all(held)
    return held.rows, held.tally if held.overflown else None


def fact_versions(
    connection: Connection, grant: Grant, fact_id: str, as_of_us: int | None = None
) -> tuple[KnownVersion, ...]:
    """The versions known at that instant, oldest first; none where the fact is unknown or its source not granted."""
    bound = _END_OF_TIME if as_of_us is None else as_of_us
    rows = run(connection, _HISTORY, (bytes.fromhex(fact_id), bound))
    versions = tuple(KnownVersion(row[0], row[1], row[2], fact_pb2.Fact.FromString(row[3])) for row in rows)
    return versions if all(version.fact.source in grant.sources for version in versions) else ()


def minimums_of(registry: Registry) -> Minimums:
    """The kinds whose counts have a minimum above one (annex 1), by their codes."""
    return {
        (code_of(kind.source), code_of(kind.name)): kind.minimum_count
        for source in registry.sources.values()
        for kind in source.kinds.values()
        if kind.minimum_count > 1
    }


def permitted(grant: Grant, asked: Sequence[str]) -> tuple[str, ...]:
    """The granted sources among those asked for, all of them where none is named."""
    return _ordered(grant.sources, tuple(asked))


@lru_cache(maxsize=1_000)
def _ordered(granted: frozenset[str], asked: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(granted.intersection(asked) if asked else granted))


def roll_up(tally: Tally[int], budget: int) -> tuple[int, Tally[int]]:
    """Counts at the finest resolution of at most `budget` cells (or the coarsest there is); the sum is kept."""
    resolution, cells = CELL_RESOLUTION, tally.places()
    while len(cells) > budget and resolution > 0:
        resolution -= 1
        ancestors = {cell: parent(cell, resolution) for cell in cells}
        tally, cells = tally.at(ancestors), set(ancestors.values())
    return resolution, tally


class Held:
    """Rows as long as they may be shown one by one, counts by fine cell from then on."""

    def __init__(self, limit: int, minimums: Minimums) -> None:
        self.limit = limit
        self.rows: list[Found] = []
        self.tally: Tally[int] = Tally(minimums)
        self.overflown = False
        # Whether features may be left as columns where nothing but them was found.
        self.takes_columns = False
        self.shown: Shown | None = None

    def add(self, rows: list[Found]) -> None:
        """Rows that match."""
        self.rows += rows
        if self.overflown or len(self.rows) > self.limit:
            self._overflow()

    def gather(self, counts: Iterable[Counted]) -> None:
        """Counts by cell."""
        self._overflow()
        for one in counts:
            self.tally.add_all((one.source, one.kind), one.cells, one.counts)

    def _overflow(self) -> None:
        self.overflown = True
        for row in self.rows:
            self.tally.add(row[8], (row[5], row[6]))
        self.rows = []


class Scan:
    """The statements of one map question."""

    def __init__(
        self, connection: Connection, query: MapQuery, sources: Sequence[str], snapshot: Snapshot | None = None
    ) -> None:
        self._connection = connection
        self._query = query
        self._sources = [code_of(source) for source in sources]
        # What is superseded or was learnt at some moment is in SQL only.
        in_columns = query.as_of_us is None and query.changed_since_us is None
        self._snapshot = snapshot if in_columns else None
        # Most questions are about what is known now, and never look at what is superseded.
        self.tables = ("fact_placements",) if query.as_of_us is None else ("fact_placements", "fact_superseded")
        area = query.area
        # Of plain facts, and of others: where the buckets begin that the area may meet.
        self._wests = (westernmost(area.west, area.south, area.east, area.north), FAR_WEST)
        self._bounds = (area.east, area.west, area.north, area.south, query.ends_us, query.starts_us, query.starts_us)
        self._filter, self._values = _filters(query, self._sources)

    def all(self, held: Held) -> None:
        """Everything that matches; what SQL alone knows first, so that what is in columns may stay there."""
        for table in self.tables:
            self.others(table, held)
            self.plain(table, held)

    def rows(self, table: str, held: Held) -> None:
        """Facts of one point and one period, every one of them, a page at a time."""
        area = self._query.area
        body, values = self._plain(table, _POINT, area.west, area.east, area.south, area.north)
        for page in run_in_pages(self._connection, "SELECT " + _PLAIN + body, values, PAGE):
            if area.is_box:
                held.add(list(page))
                continue
            inside = area.meets_points([row[3] for row in page], [row[4] for row in page])
            held.add([row for row, is_in in zip(page, inside, strict=True) if is_in])

    def plain(self, table: str, held: Held) -> None:
        """Facts of one point and one period."""
        if self._from_columns(held):
            return
        area, limit = self._query.area, held.limit
        if not area.is_box:
            self.rows(table, held)
            return
        if held.overflown:
            held.gather(self._counted(table, held))
            return
        body, values = self._plain(table, _POINT, area.west, area.east, area.south, area.north)
        pages = run_in_pages(self._connection, "SELECT " + _PLAIN + body + " LIMIT ?", (*values, limit + 1), _FEW)
        found = list(next(pages, ()))
        if len(found) == _FEW:
            # A row fetched costs what ten counted ones cost: how many there are is known before more are fetched.
            counts = list(self._counted(table, held))
            if sum(sum(one.counts) for one in counts) > limit:
                held.gather(counts)
                return
            found += chain.from_iterable(pages)
        if len(found) > limit:
            held.gather(self._counted(table, held))
        else:
            held.add(found)

    def _counted(self, table: str, held: "Held") -> Iterator[Counted]:
        guarded = {kind for kind in held.tally.minimums if kind[0] in self._sources}
        area = self._query.area
        box = (area.west, area.east, area.south, area.north)
        parts = (self._plain(table, _WHOLE, *box), self._plain(table, _EDGE, *box, *box))
        return counted(self._connection, parts, guarded)

    def _plain(self, table: str, place: str, *edges: int) -> tuple[str, tuple[object, ...]]:
        """The statement's body about facts of one point and one period that are so placed, and its values."""
        values = (1, self._wests[0], *self._bounds, *edges, *self._values_of(table, plain=True))
        return self._body(table, place, plain=True), values

    def in_columns(self, take: Callable[[columns.Found], None]) -> bool:
        """Gives the plain facts that match, from the columns; False where they do not stand at this very position."""
        if self._snapshot is None:
            return False
        query = self._query
        with self._snapshot.columns(self._connection) as known:
            if known is None:
                return False
            kinds = [code_of(kind) for kind in query.kinds]
            states_at = query.states, query.state_at_us
            period = query.starts_us, query.ends_us
            take(known.select(query.area, period, self._sources, kinds, query.statuses, states_at))
        return True

    def _from_columns(self, held: Held) -> bool:
        def take(found: columns.Found) -> None:
            if held.overflown or found.count > held.limit:
                held.gather(found.counted(held.tally.minimums))
            elif held.takes_columns and not held.rows:
                held.shown = Shown.of(found)
            else:
                held.add(found.rows())

        return self.in_columns(take)

    def others(self, table: str, held: Held) -> None:
        """Facts with a shape or with several periods: the index gives candidates, their bodies decide."""
        area = self._query.area
        sql = "SELECT " + _COLUMNS + self._body(table, _BOX, plain=False)
        place = (0, self._wests[1], *self._bounds, area.east, area.west, area.north, area.south)
        values = (*place, *self._values_of(table, plain=False))
        for page in run_in_pages(self._connection, sql, values, PAGE):
            held.add(list(self._certain(page)))

    def certain(self, positions: Sequence[int]) -> list[Found]:
        """Of the versions at these positions, those that match: learnt by the asked moment, not superseded by then."""
        query, matching = self._query, []
        wanted = set(self._sources)
        for table in self.tables:
            for row, learnt_us, ended_us in _placed(self._connection, table, positions):
                known = query.as_of_us is None or (learnt_us <= query.as_of_us < (ended_us or _END_OF_TIME))
                if known and row[5] in wanted and row[1] < query.ends_us and row[2] > query.starts_us:
                    matching.append(row)
        plain = [row for row in matching if row[10] is None]
        inside = query.area.holds_points([row[3] for row in plain], [row[4] for row in plain])
        others = (row for row in matching if row[10] is not None and query.area.meets_box(*row[10:14]))
        kept = [row for row, is_in in zip(plain, inside, strict=True) if is_in]
        return kept + list(self._certain(list(others)))

    def _certain(self, page: Sequence[Found]) -> Iterator[Found]:
        query, open_questions = self._query, []
        bodies = _by_position(self._connection, _BODIES_SQLITE, _BODIES_POSTGRES, [row[0] for row in page])
        for row in page:
            body = bytes(bodies[row[0]][1])
            several, inside = row[9] & states.SEVERAL_PERIODS, query.area.holds_box(*row[10:14])
            if not several and inside:
                yield (*row, body)
                continue
            fact = fact_pb2.Fact.FromString(body)
            if several and not _meets(fact, query):
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

    def _body(self, table: str, place: str, *, plain: bool) -> str:
        past = " AND p.superseded_us > ?" if table == "fact_superseded" else ""
        query = self._query
        state = " AND " + states.condition(query.states, query.state_at_us, plain=plain)[0] if query.states else ""
        return _SCAN.replace("@table", table) + place + self._filter + state + past

    def _values_of(self, table: str, *, plain: bool) -> tuple[object, ...]:
        query = self._query
        state = states.condition(query.states, query.state_at_us, plain=plain)[1] if query.states else ()
        past = (query.as_of_us,) if table == "fact_superseded" else ()
        return (*self._values, *state, *past)


def _placed(connection: Connection, table: str, positions: Sequence[int]) -> Iterator[tuple[Found, int, int | None]]:
    """Index rows of versions by position, with when each was learnt and, in the past, superseded."""
    ended = "p.superseded_us" if table == "fact_superseded" else "NULL"
    join = (
        f" JOIN {table} p ON p.bucket = v.bucket AND p.source = v.source AND p.starts_us = v.starts_us"
        " AND p.position = v.position"
    )
    columns_ = f"SELECT {_COLUMNS}, p.recorded_us, {ended} FROM "  # noqa: S608 -- our own names
    sqlite = columns_ + "json_each(?) j CROSS JOIN fact_versions v ON v.position = j.value" + join
    postgres = columns_ + "fact_versions v" + join + " WHERE v.position = ANY(?)"
    for row in _by_position(connection, sqlite, postgres, positions).values():
        yield tuple(row[:14]), row[14], row[15]


def _filters(query: MapQuery, sources: Sequence[int]) -> tuple[str, tuple[object, ...]]:
    sql, values = "", []
    codes = (
        ("b.source", list(sources)),
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


def _meets(fact: fact_pb2.Fact, query: MapQuery) -> bool:
    """Whether a fact of several periods meets the question's period, in one of its states."""
    periods = [(microseconds_of(period.start), microseconds_of(period.end)) for period in fact.periods]
    if query.states and states.state_of(periods, fact.status, query.state_at_us) not in query.states:
        return False
    return any(start < query.ends_us and end > query.starts_us for start, end in periods)


def details_of(connection: Connection, positions: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """What is shown of versions beside their index rows, by position: _DETAILS."""
    return _by_position(connection, _DETAILS_SQLITE, _DETAILS_POSTGRES, positions)


def _with_details(connection: Connection, rows: Sequence[Found]) -> tuple[tuple[Found, tuple[Any, ...]], ...]:
    details = details_of(connection, [row[0] for row in rows])
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
