"""The map against the words of its contract, applied one by one to the events."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import h3.api.basic_int as h3
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planier.analytics.v1.analytics_pb2 import (
    FACT_STATE_CANCELLED,
    FACT_STATE_PAST,
    FACT_STATE_PLANNED,
    FACT_STATE_UNDER_WAY,
    BoundingBox,
    FactState,
)
from planier.common.v1 import fact_pb2
from planier.ingest.v1 import events_pb2
from sqlalchemy import Engine

from services.analytics.area import Area, area_of_box, area_of_polygon
from services.analytics.packing import pack
from services.analytics.placement import E7, place, shape_of
from services.analytics.projections import FactProjection
from services.analytics.queries import MapQuery, fact_versions, query_map
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog


@pytest.fixture(autouse=True, scope="module")
def small_lots() -> Iterator[None]:
    """Lots of words that a log of a few events fills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.analytics.postings.LOT", 4)
        yield


SOURCES = ("works", "markets", "demonstrations")
KINDS = ("ROAD_WORKS", "MARKET", "PROTEST_MARCH")
STATUSES = (
    fact_pb2.FACT_STATUS_DECLARED,
    fact_pb2.FACT_STATUS_CONFIRMED,
    fact_pb2.FACT_STATUS_ENDED,
    fact_pb2.FACT_STATUS_PROHIBITED,
)
STATES = (FACT_STATE_PLANNED, FACT_STATE_UNDER_WAY, FACT_STATE_PAST, FACT_STATE_CANCELLED)
TITLES = ("Travaux rue Paradis", "Marché de la Plaine", "", "Réfection de chaussée", "Travaux de réfection")
# Steps of 0.002 degree (160 to 220 m).
STEP = 20_000
T = TypeVar("T")
# Small ranges, so that facts and questions meet, most of all at their edges; a few far ones for the large classes.
longitudes = st.one_of(st.integers(0, 6), st.integers(0, 120)).map(lambda step: (53_000_000 + step * STEP) / E7)
latitudes = st.one_of(st.integers(0, 6), st.integers(0, 90)).map(lambda step: (432_000_000 + step * STEP) / E7)
places = st.tuples(longitudes, latitudes)
hours = st.one_of(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1440)).map(
    lambda hour: NEW_YEAR_US + hour * HOUR_US
)
spans = st.one_of(st.integers(1, 4), st.integers(1, 4), st.integers(5, 5000)).map(lambda hour: hour * HOUR_US)
periods = st.lists(st.tuples(hours, spans).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1, max_size=3)


def rectangle(corner: tuple[float, float], width: int, height: int) -> fact_pb2.Polygon:
    (west, south), east, north = corner, corner[0] + width * STEP / E7, corner[1] + height * STEP / E7
    return built.polygon((west, south), (east, south), (east, north), (west, north))


rectangles = st.builds(rectangle, places, st.integers(1, 6), st.integers(1, 12))
triangles = st.builds(
    lambda corner, width, height: built.polygon(
        corner, (corner[0] + width * STEP / E7, corner[1]), (corner[0], corner[1] + height * STEP / E7)
    ),
    places,
    st.integers(1, 60),
    st.integers(1, 60),
)
lines = st.lists(places, min_size=2, max_size=4, unique=True).map(lambda points: built.line(*points))
geometries = st.one_of(
    places.map(lambda place: built.point(*place)),
    places.map(lambda place: built.point(*place)),
    lines,
    rectangles.map(lambda polygon: fact_pb2.Geometry(polygon=polygon)),
    st.lists(rectangles, min_size=1, max_size=2).map(
        lambda polygons: fact_pb2.Geometry(multi_polygon=fact_pb2.MultiPolygon(polygons=polygons[:1]))
    ),
)
bodies = st.tuples(
    st.sampled_from(SOURCES), st.sampled_from(KINDS), st.sampled_from(STATUSES), geometries, periods, st.integers(0, 12)
)
steps = st.lists(
    st.tuples(st.sampled_from(["declare", "declare", "amend", "amend", "cancel", "erase"]), bodies, st.integers(0, 2)),
    min_size=10,
    max_size=30,
)


@st.composite
def logs(draw: st.DrawFn) -> IngestLog:
    """A log that ingest could have written: only what is declared is amended, nothing follows an erasure."""
    log, alive = IngestLog(), dict[str, fact_pb2.Fact]()
    for number, (step, body, wait_us) in enumerate(draw(steps)):
        source, kind, status, geometry, when, pick = body
        if step == "declare" or not alive:
            declared = built.fact(
                f"n{number}",
                source=source,
                kind=kind,
                geometry=geometry,
                periods=when,
                status=status,
                title=TITLES[number % len(TITLES)],
            )
            alive[log.declare(declared, wait_us)] = declared
            continue
        key = list(alive)[pick % min(3, len(alive))]
        before = alive[key]
        changed = built.fact(
            before.source_id,
            source=before.source,
            kind=kind,
            geometry=geometry,
            periods=when,
            status=status,
            revision=before.revision + 1,
            title=TITLES[pick % len(TITLES)],
        )
        if step == "amend":
            log.amend(changed, wait_us)
            alive[key] = changed
        elif step == "cancel":
            log.cancel(key, before.revision + 1, wait_us)
            del alive[key]
        else:
            log.erase(key, wait_us)
            del alive[key]
    return log


sides = st.one_of(st.integers(0, 5), st.integers(0, 90))


@st.composite
def areas(draw: st.DrawFn) -> Area:
    if draw(st.booleans()):
        (west, south), (width, height) = draw(places), draw(st.tuples(sides, sides))
        east, north = west + width * STEP / E7, south + height * STEP / E7
        return area_of_box(BoundingBox(west=west, south=south, east=east, north=north))
    return area_of_polygon(draw(st.one_of(rectangles, triangles)))


def maybe(filters: st.SearchStrategy[list[T]]) -> st.SearchStrategy[list[T]]:
    return st.one_of(st.just([]), st.just([]), filters)


queries = st.builds(
    lambda area, start, span, sources, kinds, statuses, as_of, since, limit, budget, states, moment: MapQuery(
        area,
        start,
        start + span,
        tuple(sources),
        tuple(kinds),
        tuple(statuses),
        None if as_of is None else NEW_YEAR_US + as_of,
        None if since is None else NEW_YEAR_US + since,
        limit,
        budget,
        tuple(states),
        moment,
    ),
    areas(),
    hours,
    spans,
    maybe(st.lists(st.sampled_from((*SOURCES, "unknown")), max_size=2, unique=True)),
    maybe(st.lists(st.sampled_from(KINDS), max_size=2)),
    maybe(st.lists(st.sampled_from((*STATUSES, fact_pb2.FACT_STATUS_CANCELLED)), max_size=2, unique=True)),
    st.none() | st.integers(0, 30),
    st.none() | st.none() | st.integers(0, 15),
    st.sampled_from([2000, 2000, 3, 1]),
    st.sampled_from([5000, 4, 1]),
    maybe(st.lists(st.sampled_from(STATES), min_size=1, max_size=2, unique=True)),
    hours,
)
grants = st.one_of(st.just(list(SOURCES)), st.lists(st.sampled_from(SOURCES), min_size=1, unique=True))


@dataclass(frozen=True)
class Known:
    """One fact as replayed from the events."""

    fact: fact_pb2.Fact
    recorded_us: int


def replay(events: list[StoredEvent], as_of_us: int | None) -> dict[str, Known]:
    """What was known at an instant, but for what was erased since."""
    known: dict[str, Known] = {}
    erased = set()
    for event in events:
        if event.type.endswith("FactErased"):
            erased.add(event.stream)
        if event.payload is None or (as_of_us is not None and event.recorded_at_us > as_of_us):
            continue
        if event.type.endswith("FactDeclared"):
            known[event.stream] = Known(events_pb2.FactDeclared.FromString(event.payload).fact, event.recorded_at_us)
        elif event.type.endswith("FactAmended"):
            known[event.stream] = Known(events_pb2.FactAmended.FromString(event.payload).fact, event.recorded_at_us)
        elif event.type.endswith("FactCancelled"):
            cancelled = fact_pb2.Fact()
            cancelled.CopyFrom(known[event.stream].fact)
            cancelled.status = fact_pb2.FACT_STATUS_CANCELLED
            cancelled.revision = events_pb2.FactCancelled.FromString(event.payload).revision
            known[event.stream] = Known(cancelled, event.recorded_at_us)
    return {stream.removeprefix("fact-"): what for stream, what in known.items() if stream not in erased}


def state_in_words(fact: fact_pb2.Fact, moment_us: int) -> FactState.ValueType:
    """The four states as the contract words them."""
    if fact.status in (fact_pb2.FACT_STATUS_CANCELLED, fact_pb2.FACT_STATUS_PROHIBITED):
        return FACT_STATE_CANCELLED
    periods = [(period.start.ToMicroseconds(), period.end.ToMicroseconds()) for period in fact.periods]
    if all(start > moment_us for start, _ in periods):
        return FACT_STATE_PLANNED
    if fact.status == fact_pb2.FACT_STATUS_ENDED or all(end <= moment_us for _, end in periods):
        return FACT_STATE_PAST
    return FACT_STATE_UNDER_WAY if any(start <= moment_us < end for start, end in periods) else FACT_STATE_PLANNED


def expected(events: list[StoredEvent], granted: list[str], query: MapQuery) -> dict[str, Known]:
    """The contract of QueryMap, clause by clause."""
    return {
        key: known
        for key, known in replay(events, query.as_of_us).items()
        if known.fact.source in granted
        and (not query.sources or known.fact.source in query.sources)
        and (not query.kinds or known.fact.kind in query.kinds)
        and (not query.statuses or known.fact.status in query.statuses)
        and (not query.states or state_in_words(known.fact, query.state_at_us) in query.states)
        and (query.changed_since_us is None or known.recorded_us >= query.changed_since_us)
        and any(
            period.start.ToMicroseconds() < query.ends_us and period.end.ToMicroseconds() > query.starts_us
            for period in known.fact.periods
        )
        and shapely.intersects(query.area.shape, shape_of(known.fact.geometry))
    }


def load(engine: Engine, log: IngestLog, batch: int) -> ProjectionRunner:
    runner = ProjectionRunner(engine, FactProjection())
    advance(runner, log, batch, 0, len(log.events))
    return runner


def advance(runner: ProjectionRunner, log: IngestLog, batch: int, start: int, end: int) -> None:
    for first in range(start, end, batch):
        events = log.events[first : min(first + batch, end)]
        before = log.events[first - 1].digest if first else GENESIS
        runner.advance(log.store_id, before, events, events[-1].digest)


def load_with_snapshot(engine: Engine, log: IngestLog, batch: int, loaded: int, merged: int) -> Snapshot:
    """Columns loaded after some events, that followed some more and merged, and then followed the rest."""
    runner = ProjectionRunner(engine, FactProjection())
    snapshot = Snapshot(engine, in_background=False)
    end = len(log.events)
    loaded, merged = sorted((min(loaded, end), min(merged, end)))
    advance(runner, log, batch, 0, loaded)
    snapshot.load()
    advance(runner, log, batch, loaded, merged)
    snapshot.catch_up()
    snapshot.merge()
    advance(runner, log, batch, merged, end)
    return snapshot


def check(
    engine: Engine, log: IngestLog, granted: list[str], query: MapQuery, snapshot: Snapshot | None = None
) -> None:
    wanted = expected(log.events, granted, query)
    with engine.begin() as connection:
        response = pack(query_map(connection, built.granted(*granted), query))
        if snapshot is not None:
            # To the byte: who asks cannot tell which of the two answered.
            assert pack(query_map(connection, built.granted(*granted), query, NONE, snapshot)) == response
            with snapshot.columns(connection) as known:
                assert known is not None
    assert response.total == len(wanted)
    if len(wanted) > query.limit:
        columns = response.cells
        assert sum(columns.counts) == len(wanted)
        cells = Counter(
            h3.latlng_to_cell(place(known.fact).latitude / E7, place(known.fact).longitude / E7, columns.resolution)
            for known in wanted.values()
        )
        if columns.resolution == 10:
            assert dict(zip(columns.cells, columns.counts, strict=True)) == cells
        assert len(columns.cells) <= query.cell_budget or columns.resolution == 0
        return
    features = response.features
    ordered = sorted(wanted, key=lambda key: (place(wanted[key].fact).starts_us, key))
    assert list(features.fact_ids) == ordered
    assert list(features.recorded_at_us) == [wanted[key].recorded_us for key in ordered]
    facts = [wanted[key].fact for key in ordered]
    assert [features.sources[index] for index in features.source_index] == [fact.source for fact in facts]
    assert [features.kinds[index] for index in features.kind_index] == [fact.kind for fact in facts]
    assert list(features.statuses) == [fact.status for fact in facts]
    assert list(features.revisions) == [fact.revision for fact in facts]
    assert list(features.titles) == [fact.title for fact in facts]
    assert list(features.period_counts) == [len(fact.periods) for fact in facts]
    starts = [start for fact in facts for start in sorted((p.start.seconds, p.end.seconds) for p in fact.periods)]
    assert list(zip(features.starts, features.ends, strict=True)) == starts
    shapes = [(index, fact.geometry) for index, fact in enumerate(facts) if not fact.geometry.HasField("point")]
    assert list(zip(features.shape_index, features.shapes, strict=True)) == shapes


def everywhere(log: IngestLog) -> MapQuery:
    box = BoundingBox(west=5, south=43, east=6, north=44)
    return MapQuery(area_of_box(box), NEW_YEAR_US, NEW_YEAR_US + 10**15)


relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@relaxed
@given(
    logs(),
    grants,
    st.lists(queries, min_size=8, max_size=12),
    st.sampled_from([1, 3, 1000]),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_map_answers_are_those_of_the_contract(
    log: IngestLog, granted: list[str], asked: list[MapQuery], batch: int, loaded: int, merged: int
) -> None:
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/analytics.db")
        snapshot = load_with_snapshot(engine, log, batch, loaded, merged)
        for query in (*asked, everywhere(log)):
            check(engine, log, granted, query, snapshot)
        engine.dispose()


@pytest.mark.postgres
def test_map_answers_are_the_same_on_postgresql(postgres_url: str) -> None:
    engine = open_engine(postgres_url)

    @settings(relaxed, max_examples=10)
    @given(logs(), grants, st.lists(queries, min_size=8, max_size=12), st.sampled_from([3, 1000]), st.integers(1, 30))
    def holds(log: IngestLog, granted: list[str], asked: list[MapQuery], batch: int, loaded: int) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        snapshot = load_with_snapshot(engine, log, batch, loaded, 20)
        for query in (*asked, everywhere(log)):
            check(engine, log, granted, query, snapshot)

    holds()
    engine.dispose()


@relaxed
@given(logs())
def test_erased_facts_leave_no_byte_and_a_rebuild_gives_the_same_rows(log: IngestLog) -> None:
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/analytics.db")
        runner = load(engine, log, 4)
        erased = {event.stream.removeprefix("fact-") for event in log.events if event.type.endswith("FactErased")}
        live = dump(engine)
        kept = "".join(str(row) for table, rows in live.items() if table != "fact_names" for row in rows)
        assert not [key for key in erased if str(bytes.fromhex(key)) in kept]
        for key in erased:
            with engine.begin() as connection:
                assert fact_versions(connection, built.granted(*SOURCES), key) == ()
            log.forget(key)
        runner.rebuild(lambda after: log.events[after : after + 5], store_id=log.store_id)
        rebuilt = dump(engine)
        assert set(rebuilt.pop("fact_names")) <= set(live.pop("fact_names"))
        assert rebuilt == live
        engine.dispose()


def dump(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.begin() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
            for name, table in FactProjection().metadata.tables.items()
        }


def test_two_sources_may_be_asked_while_one_is_withheld(tmp_path: Path) -> None:
    log = IngestLog()
    log.declare(built.fact("a", source="works"))
    log.declare(built.fact("b", source="demonstrations"))
    engine = open_engine(f"sqlite:///{tmp_path}/analytics.db")
    load(engine, log, 10)
    both = replace(everywhere(log), sources=("works", "demonstrations"))
    with engine.begin() as connection:
        assert query_map(connection, built.granted("works"), both).total == 1
        assert query_map(connection, built.granted("works"), replace(both, sources=("demonstrations",))).total == 0
    engine.dispose()
