"""Conflicts against the words of their rules, applied to every two versions; one by one against all at once."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planier.analytics.v1 import conflicts_pb2 as pb
from planier.common.v1 import fact_pb2
from pyproj import Transformer
from sqlalchemy import Engine, MetaData, select

from services.analytics.conflicts.crossing import near_pairs
from services.analytics.conflicts.projection import Crossing
from services.analytics.conflicts.queries import ConflictQuery, query_conflicts
from services.analytics.conflicts.register import Steps
from services.analytics.conflicts.rules import Rule, Rules
from services.analytics.conflicts.standing import windows_of
from services.analytics.conflicts.subjects import Columns, Metres, choices_of
from services.analytics.conflicts.tables import CrossingTables
from services.analytics.domain import Step
from services.analytics.placement import E7, microseconds_of, shape_of
from services.analytics.projections import FactProjection
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog

RULES = Rules.load()
LAMBERT93 = Transformer.from_crs(4326, 2154, always_xy=True)
CROSSING = Crossing(RULES, Metres(2154))
FULL = fact_pb2.Attribute(name="roadway", choice="FULL")
CLOSED = fact_pb2.Attribute(name="perimeter", choice="CLOSED")
KINDS = (
    ("demonstrations", "PROTEST_MARCH", ()),
    ("works", "ROADWORKS", (FULL,)),
    ("works", "CRANE", ()),
    ("markets", "REGULAR_MARKET", ()),
    ("official-visits", "OFFICIAL_VISIT", (CLOSED,)),
    ("sports-events", "RACE", (FULL,)),
    ("sports-events", "MATCH", ()),
    ("traffic-bylaws", "ROAD_CLOSURE", ()),
    ("traffic-bylaws", "ROAD_CLOSURE", ()),
    ("residents-reports", "NOISE", ()),
)
SOURCES = tuple(sorted({source for source, _, _ in KINDS}))
# Steps of 20 to 22 m and of half an hour: near misses abound, and some facts are far and long.
longitudes = st.one_of(st.integers(0, 3), st.integers(0, 3), st.integers(0, 900)).map(
    lambda step: (53_700_000 + step * 2_500) / E7
)
latitudes = st.one_of(st.integers(0, 3), st.integers(0, 3), st.integers(0, 900)).map(
    lambda step: (433_000_000 + step * 2_000) / E7
)
places = st.tuples(longitudes, latitudes)
halves = st.one_of(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3000)).map(
    lambda half: NEW_YEAR_US + half * HOUR_US // 2
)
spans = st.one_of(st.integers(1, 6), st.integers(1, 4000)).map(lambda half: half * HOUR_US // 2)
periods = st.lists(st.tuples(halves, spans).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1, max_size=3)
geometries = st.one_of(
    places.map(lambda place: built.point(*place)),
    st.lists(places, min_size=2, max_size=3, unique=True).map(lambda points: built.line(*points)),
    places.map(
        lambda corner: fact_pb2.Geometry(
            polygon=built.polygon(corner, (corner[0] + 0.001, corner[1]), (corner[0], corner[1] + 0.001))
        )
    ),
)
measures = st.sampled_from([(), (), (fact_pb2.Measure(kind=fact_pb2.MEASURE_KIND_TRAFFIC_BYLAW, reference="T1"),)])
bodies = st.tuples(st.sampled_from(KINDS), geometries, periods, measures, st.integers(0, 12))
steps = st.lists(
    st.tuples(st.sampled_from(["declare", "declare", "amend", "amend", "cancel", "erase"]), bodies, st.integers(0, 1)),
    min_size=6,
    max_size=20,
)


@st.composite
def logs(draw: st.DrawFn) -> IngestLog:
    """A log that ingest could have written, several events at one instant now and then."""
    log, alive = IngestLog(), dict[str, fact_pb2.Fact]()
    for number, (step, body, wait_us) in enumerate(draw(steps)):
        (source, kind, attributes), geometry, when, taken, pick = body
        if step == "declare" or not alive:
            fact = built.fact(f"n{number}", source=source, kind=kind, geometry=geometry, periods=when)
            fact.attributes.extend(attributes)
            fact.measures.extend(taken)
            alive[log.declare(fact, wait_us)] = fact
            continue
        key = list(alive)[pick % len(alive)]
        if step == "amend":
            changed = fact_pb2.Fact()
            changed.CopyFrom(alive[key])
            changed.revision += 1
            changed.geometry.CopyFrom(geometry)
            del changed.measures[:]
            changed.measures.extend(taken)
            del changed.periods[:]
            changed.periods.extend(built.period(*period) for period in when)
            log.amend(changed, wait_us)
            alive[key] = changed
            continue
        if step == "cancel":
            log.cancel(key, alive[key].revision + 1, wait_us)
        else:
            log.erase(key, wait_us)
        del alive[key]
    return log


def apply(engine: Engine, log: IngestLog, sizes: Sequence[int], upto: int | None = None) -> None:
    runner = ProjectionRunner(engine, FactProjection(crossing=CROSSING))
    events, before = log.events[:upto], GENESIS
    place = 0
    while events:
        size = sizes[place % len(sizes)]
        run, events = events[:size], events[size:]
        runner.advance(log.store_id, before, run, run[-1].digest)
        before, place = run[-1].digest, place + 1


TABLES = CrossingTables("", MetaData()).conflicts.metadata.sorted_tables


def rows_of(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {table.name: sorted(map(tuple, connection.execute(select(table)))) for table in TABLES}


def fresh_engine(folder: str, name: str) -> Engine:
    return open_engine(f"sqlite:///{folder}/{name}.db")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs(), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_each_version_against_its_neighbours_gives_what_all_against_all_give(log: IngestLog, sizes: list[int]) -> None:
    with TemporaryDirectory() as folder:
        one_by_one, at_once = fresh_engine(folder, "one"), fresh_engine(folder, "all")
        apply(one_by_one, log, sizes)
        for key in {event.stream.removeprefix("fact-") for event in log.events if event.type.endswith("FactErased")}:
            log.forget(key)
        runner = ProjectionRunner(at_once, FactProjection(crossing=CROSSING))
        runner.rebuild(lambda after: log.events[after:], store_id=log.store_id)
        assert rows_of(one_by_one) == rows_of(at_once)
        for engine in (one_by_one, at_once):
            engine.dispose()


WIDE = ConflictQuery(starts_us=0, ends_us=2**62)


def answer(
    engine: Engine, query: ConflictQuery = WIDE, sources: Sequence[str] = SOURCES, steps: Steps | None = None
) -> tuple[pb.Conflict, ...]:
    with engine.connect() as connection:
        return query_conflicts(connection, built.granted(*sources), RULES, steps or Steps(), query)


TAKEN = (fact_pb2.MEASURE_KIND_ROUTE_CHANGE, "P-1")


def version(name: str, revision: int, hours: int, *, has: bool) -> fact_pb2.Fact:
    """A march or the works that it meets, some hours later, with or without the measure."""
    source, kind = ("demonstrations", "PROTEST_MARCH") if name == "march" else ("works", "ROADWORKS")
    start = NEW_YEAR_US + hours * HOUR_US
    when, taken = ((start, start + 5 * HOUR_US),), [TAKEN] if has else []
    return built.fact(name, source=source, kind=kind, periods=when, revision=revision, measures=taken)


versions = st.lists(st.tuples(st.sampled_from(["march", "works"]), st.integers(0, 1), st.booleans()), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(amendments=versions, first=st.booleans(), at=st.integers(2, 8), kept=st.integers(2, 8))
def test_a_resolution_falls_when_its_conflict_changes_or_its_facts_lose_its_measure(
    amendments: list[tuple[str, int, bool]], first: bool, at: int, kept: int
) -> None:
    """Resolved when `at` events were known, looked at when `kept` were; as of then, and by a system stopped there."""
    log, had = IngestLog(), [{"march": first}, {"march": first, "works": False}]
    log.declare(version("march", 1, 0, has=first))
    log.declare(version("works", 1, 0, has=False))
    for revision, (name, hours, has) in enumerate(amendments, 2):
        log.amend(version(name, revision, hours, has=has))
        had.append({**had[-1], name: has})
    at = min(at, len(log.events))
    kept = max(at, min(kept, len(log.events)))
    with TemporaryDirectory() as folder:
        whole, stopped = fresh_engine(folder, "whole"), fresh_engine(folder, "stopped")
        apply(whole, log, [3])
        apply(stopped, log, [2], kept)
        instants = [log.events[count - 1].recorded_at_us for count in (at, kept)]
        (seen,) = answer(whole, replace(WIDE, as_of_us=instants[0]))
        who = ("https://idp.example", "agent", "CITY", "Direction", "record")
        steps = Steps(None, {seen.conflict_id: (Step("RESOLVED", instants[0], seen.fingerprint, *who, TAKEN),)})
        (now,) = answer(stopped, steps=steps)
        assert answer(whole, replace(WIDE, as_of_us=instants[1]), steps=steps) == (now,)
        lost = not any(had[kept - 1].values()) and any(any(each.values()) for each in had[:kept])
        stands = now.fingerprint == seen.fingerprint and not lost
        assert now.state == (pb.CONFLICT_STATE_RESOLVED if stands else pb.CONFLICT_STATE_REOPENED)
        for engine in (whole, stopped):
            engine.dispose()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs(), upto=st.integers(1, 20))
def test_as_of_an_instant_is_what_a_system_stopped_there_gives(log: IngestLog, upto: int) -> None:
    upto = min(upto, len(log.events))
    # All that was recorded at that instant.
    while upto < len(log.events) and log.events[upto].recorded_at_us == log.events[upto - 1].recorded_at_us:
        upto += 1
    for key in {event.stream.removeprefix("fact-") for event in log.events if event.type.endswith("FactErased")}:
        log.forget(key)
    with TemporaryDirectory() as folder:
        whole, stopped = fresh_engine(folder, "whole"), fresh_engine(folder, "stopped")
        apply(whole, log, [3])
        apply(stopped, log, [5], upto)
        then = replace(WIDE, as_of_us=log.events[upto - 1].recorded_at_us)
        assert answer(whole, then) == answer(stopped) == answer(stopped, then)
        for engine in (whole, stopped):
            engine.dispose()


def current(events: Sequence[StoredEvent]) -> dict[str, fact_pb2.Fact]:
    """The facts as they are at the end of a log, by the events' own words."""
    alive: dict[str, fact_pb2.Fact] = {}
    for event in events:
        message = built.message_of(event)
        if event.type.endswith(("FactDeclared", "FactAmended")):
            alive[message.fact_id] = message.fact
        else:
            alive.pop(message.fact_id, None)
    return alive


def told(rule: Rule, one: fact_pb2.Fact, other: fact_pb2.Fact) -> set[int]:
    """The half hours at which two facts collide under a rule, by its words alone."""
    shapes = [shapely.transform(shape_of(fact.geometry), project) for fact in (one, other)]
    if shapely.distance(*shapes) > rule.metres:
        return set()
    return halves_of(one, rule.margin_us) & halves_of(other, 0)


def project(
    degrees: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.column_stack(LAMBERT93.transform(degrees[:, 0], degrees[:, 1]))


def halves_of(fact: fact_pb2.Fact, margin_us: int) -> set[int]:
    step = HOUR_US // 2
    return {
        half
        for period in fact.periods
        for half in range(
            (microseconds_of(period.start) - margin_us) // step, (microseconds_of(period.end) + margin_us) // step
        )
    }


def takes(rule: Rule, fact: fact_pb2.Fact, *, left: bool) -> bool:
    return (rule.left if left else rule.right).takes(fact.source, fact.kind, choices_of(fact))


def expected(alive: dict[str, fact_pb2.Fact]) -> dict[tuple[str, tuple[str, ...]], set[int]]:
    found: dict[tuple[str, tuple[str, ...]], set[int]] = {}
    for rule in RULES.rules:
        if rule.needs:
            for key, fact in alive.items():
                if takes(rule, fact, left=True) and not fact.measures:
                    had = [told(rule, fact, other) for other in alive.values() if takes(rule, other, left=False)]
                    found[rule.rule_id, (key,)] = halves_of(fact, 0) - set().union(*had)
            continue
        for (one, first), (other, second) in combinations(sorted(alive.items()), 2):
            if takes(rule, first, left=True) and takes(rule, second, left=False):
                found[rule.rule_id, (one, other)] = told(rule, first, second)
            elif takes(rule, second, left=True) and takes(rule, first, left=False):
                found[rule.rule_id, (other, one)] = told(rule, second, first)
    return {key: when for key, when in found.items() if when}


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs())
def test_a_conflict_is_exactly_what_its_rule_says_of_the_facts(log: IngestLog) -> None:
    with TemporaryDirectory() as folder:
        engine = fresh_engine(folder, "model")
        apply(engine, log, [3])
        found = answer(engine)
        step = HOUR_US // 2
        actual = {
            (one.rule_id, tuple(fact.fact_id for fact in one.facts)): {
                half for start, end in windows_of(one) for half in range(start // step, end // step)
            }
            for one in found
        }
        assert actual == expected(current(log.events))
        assert len(actual) == len(found)
        partly = answer(engine, sources=("works", "demonstrations"))
        bylaw_rules = {rule.rule_id for rule in RULES.rules if rule.needs}
        assert partly == tuple(
            one
            for one in found
            if one.rule_id not in bylaw_rules and {fact.source for fact in one.facts} <= {"works", "demonstrations"}
        )
        engine.dispose()


@pytest.mark.parametrize("spread", [2_000.0, 100_000.0])
def test_near_pairs_are_those_that_comparing_every_two_gives(spread: float) -> None:
    random = np.random.default_rng(7)
    count = 300
    corners = random.uniform(0, spread, (count, 2)).round(-1)
    reach = np.where(random.random(count) < 0.05, spread, 40.0)
    ends = corners + random.uniform(0, 1, (count, 2)) * reach[:, None]
    shapes = np.array([shapely.LineString(pair) for pair in zip(corners, ends, strict=True)], dtype=object)
    shapes[::3] = shapely.points(corners[::3])
    starts = random.integers(0, 50, count)
    ones = np.uint64(1)
    columns = Columns(
        shapes,
        shapely.bounds(shapes),
        starts,
        starts + random.integers(1, 20, count),
        random.integers(0, 3, count),
        random.integers(3, 6, count),
        random.integers(0, 2, count).astype(np.uint64) * ones,
        random.integers(0, 2, count).astype(np.uint64) * ones,
    )
    left, right = near_pairs(columns, 50.0, 2)
    found = {frozenset(pair) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    assert len(found) == len(left)
    wanted = {
        frozenset(pair)
        for pair in combinations(range(count), 2)
        if near(columns, *pair) and shapely.distance(shapes[pair[0]], shapes[pair[1]]) <= 50.0
    }
    assert found == wanted
    assert wanted


def near(c: Columns, one: int, other: int) -> bool:
    meet = c.starts[one] - 2 < c.ends[other] + 2 and c.starts[other] - 2 < c.ends[one] + 2
    known = c.since[one] < c.until[other] and c.since[other] < c.until[one]
    return bool(meet and known and (c.left[one] & c.right[other]) | (c.left[other] & c.right[one]))


def test_the_rules_of_this_version_are_detected_by_this_version_of_the_projection() -> None:
    """Other rules detect other things: whoever changes them changes FactProjection.version too, so that it rebuilds."""
    assert (FactProjection.version, RULES.digest[:16]) == (4, "db798b4d3bbe568c")
