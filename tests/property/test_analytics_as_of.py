"""As of a past moment, every answer is the one that a system stopped at that moment would have given."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from tempfile import TemporaryDirectory

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from services.analytics.area import Area
from services.analytics.bulk import run
from services.analytics.coverage import CoverageReader
from services.analytics.packing import pack, pack_features
from services.analytics.placement import E7, place, polygon_of
from services.analytics.queries import MapAnswer, MapQuery, query_map
from services.analytics.search import search
from services.analytics.suppression import NONE
from services.analytics.watch import PAGE, Watched, changes_after
from services.analytics.zones import OUTSIDE, ZoneFinder, count_by_zone
from services.kernel.layers import Layer, Zone
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import NEW_YEAR_US, IngestLog
from tests.property.test_analytics_map import (
    KINDS,
    SOURCES,
    areas,
    everywhere,
    expected,
    grants,
    load,
    load_with_snapshot,
    logs,
    queries,
    rectangles,
    relaxed,
    replay,
    small_lots,
)

__all__ = ["small_lots"]

WORDS = ("travaux", "refecton", "paradis", "plaine marche", "trav", "")
MINUTE_US = 60_000_000
layers = st.lists(rectangles, min_size=1, max_size=4).map(
    lambda shapes: Layer(
        "squares",
        "0" * 64,
        datetime(2026, 1, 1, tzinfo=UTC),
        tuple(Zone(str(index), str(index), polygon_of(polygon)) for index, polygon in enumerate(shapes)),
    )
)


def spread_out(log: IngestLog) -> None:
    """Four minutes between two events, so that spans of arrivals are cut anywhere."""
    for index, event in enumerate(log.events):
        log.events[index] = event._replace(recorded_at_us=NEW_YEAR_US + (index + 1) * 4 * MINUTE_US)


def stopped(log: IngestLog, at_us: int) -> IngestLog:
    """The log of a system stopped at that moment, without what was erased since."""
    prefix = IngestLog()
    prefix.store_id = log.store_id
    erased = {event.stream for event in log.events if event.type.endswith("FactErased")}
    prefix.events = [
        event._replace(payload=None) if event.stream in erased else event
        for event in log.events
        if event.recorded_at_us <= at_us
    ]
    return prefix


def answers(connection: Connection, granted: Sequence[str], query: MapQuery, layer: Layer, now_us: int) -> list[object]:
    """Every answer that this part gives, as it leaves."""
    grant, finder = built.granted(*granted), ZoneFinder(layer)
    covered = CoverageReader().read(connection, granted, query.area, now_us, query.as_of_us)
    found: list[object] = [pack(query_map(connection, grant, query)), covered]
    names = {row[0]: row[1] for row in run(connection, "SELECT code, text FROM fact_names", ())}
    for words in WORDS:
        hits = search(connection, grant, words, query)
        found.append((pack_features(MapAnswer(hits.features, names=names)), hits.slips, hits.more))
    counted = count_by_zone(connection, grant, replace(query, area=finder.area), finder)
    found.append((dict(counted.shown), counted.withheld, counted.rare))
    return found


@settings(relaxed, max_examples=15)
@given(logs(), st.integers(0, 40), grants, queries, layers)
def test_every_answer_as_of_an_instant_is_that_of_a_system_stopped_then(
    log: IngestLog, step: int, granted: list[str], query: MapQuery, layer: Layer
) -> None:
    spread_out(log)
    at_us = NEW_YEAR_US + step * 3 * MINUTE_US
    with TemporaryDirectory() as folder:
        whole, past = (open_engine(f"sqlite:///{folder}/{name}.db") for name in ("whole", "past"))
        load(whole, log, 1000)
        load(past, stopped(log, at_us), 1000)
        with whole.begin() as now, past.begin() as then:
            for asked in (query, everywhere(log)):
                present = replace(asked, as_of_us=None, changed_since_us=None)
                seen = answers(now, granted, replace(present, as_of_us=at_us), layer, at_us)
                assert seen == answers(then, granted, present, layer, at_us)
        whole.dispose()
        past.dispose()


@pytest.mark.postgres
def test_answers_are_the_same_on_both_databases(postgres_url: str) -> None:
    postgres = open_engine(postgres_url)

    @settings(relaxed, max_examples=8)
    @given(logs(), st.none() | st.integers(0, 40), grants, queries, layers)
    def holds(log: IngestLog, step: int | None, granted: list[str], query: MapQuery, layer: Layer) -> None:
        spread_out(log)
        as_of_us = None if step is None else NEW_YEAR_US + step * 3 * MINUTE_US
        _emptied(postgres)
        with TemporaryDirectory() as folder:
            sqlite = open_engine(f"sqlite:///{folder}/analytics.db")
            for engine in (sqlite, postgres):
                load(engine, log, 7)
            with sqlite.begin() as here, postgres.begin() as there:
                for asked in (replace(query, as_of_us=as_of_us), replace(everywhere(log), as_of_us=as_of_us)):
                    now_us = NEW_YEAR_US + 10**12
                    one = answers(here, granted, asked, layer, now_us)
                    assert one == answers(there, granted, asked, layer, now_us)
            sqlite.dispose()

    holds()
    postgres.dispose()


@settings(relaxed, max_examples=25)
@given(logs(), grants, queries, layers, st.integers(1, 30))
def test_counts_by_zone_are_those_of_the_contract(
    log: IngestLog, granted: list[str], query: MapQuery, layer: Layer, loaded: int
) -> None:
    finder = ZoneFinder(layer)
    asked = replace(query, area=finder.area)
    wanted: dict[int, int] = {}
    for known in expected(log.events, granted, asked).values():
        where = place(known.fact)
        point = shapely.Point(where.longitude / E7, where.latitude / E7)
        zone = next((index for index, zone in enumerate(layer.zones) if zone.shape.intersects(point)), OUTSIDE)
        wanted[zone] = wanted.get(zone, 0) + 1
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/analytics.db")
        snapshot = load_with_snapshot(engine, log, 5, loaded, 20)
        with engine.begin() as connection:
            for columns in (None, snapshot):
                counted = count_by_zone(connection, built.granted(*granted), asked, finder, NONE, columns)
                assert dict(counted.shown) == wanted
        engine.dispose()


@settings(relaxed, max_examples=25)
@given(
    logs(),
    grants,
    areas(),
    st.lists(st.sampled_from(KINDS), max_size=2, unique=True),
    st.lists(st.integers(0, 30), max_size=6),
    st.sampled_from([1, 3, PAGE]),
)
def test_a_watch_cut_anywhere_loses_nothing_and_tells_nothing_twice(
    log: IngestLog, granted: list[str], area: Area, kinds: list[str], cuts: list[int], page: int
) -> None:
    """A client that begins at a cursor, is cut off and resumes at its last one, ends with the map that is there."""
    watched, grant = Watched(area, (), tuple(kinds)), built.granted(*granted)
    shown: dict[str, int] = {}
    told: list[int] = []
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.analytics.watch.PAGE", page)
        engine = open_engine(f"sqlite:///{folder}/analytics.db")
        cursor = 0
        for cut in (*sorted({min(cut, len(log.events)) for cut in cuts} - {0}), len(log.events)):
            load(engine, _until(log, cut), 4)
            # What the stream would have sent after this page is lost with the connection: the next begins here again.
            while True:
                with engine.begin() as connection:
                    changes = changes_after(connection, grant, watched, cursor)
                for change in changes.changes:
                    if change.version is None:
                        shown.pop(change.fact_id, None)
                        continue
                    told.append(change.version.position)
                    shown[change.fact_id] = change.version.position
                if changes.erased:
                    alive = replay(_until(log, cut).events, None)
                    shown = {key: position for key, position in shown.items() if key in alive}
                cursor = changes.position
                if changes.whole:
                    break
        engine.dispose()
    assert told == sorted(set(told))
    everything = MapQuery(area, -(2**62), 2**62, kinds=tuple(kinds))
    assert set(shown) == set(expected(log.events, [name for name in granted if name in SOURCES], everything))


def _until(log: IngestLog, cut: int) -> IngestLog:
    part = IngestLog()
    part.store_id, part.events = log.store_id, log.events[:cut]
    return part


def _emptied(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
