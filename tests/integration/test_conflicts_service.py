"""Conflicts and the agenda over a real read model and a real store of steps: what is answered, to whom, as of when."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import shapely
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1 import agenda_pb2, conflicts_pb2
from planier.analytics.v1 import analytics_pb2 as pb
from planier.analytics.v1.coverage_pb2 import RHYTHM_SILENT, Coverage
from planier.common.v1 import fact_pb2
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, PURPOSE_SITUATION, PURPOSE_TENSION, Purpose

from services.analytics.conflicts.projection import Crossing
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.subjects import Metres
from services.analytics.placement import shape_of
from services.analytics.projections import FactProjection
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.wiring import open_for_writing
from services.kernel.clock import from_microseconds
from services.kernel.errors import Problem
from services.kernel.guard.options import methods_of
from services.kernel.projection import ProjectionRunner
from services.kernel.rpc.call import Call, Invocation
from services.kernel.store.base import GENESIS
from services.kernel.store.opening import open_store
from services.kernel.store.sql import SqlEventStore
from services.kernel.territory import Territory
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog
from tests.fixtures.store import HandClock

METHODS = {method.name: method for method in methods_of(pb.DESCRIPTOR.services_by_name["AnalyticsService"])}
DAY_US = 24 * HOUR_US
# 2026-01-10T08:00:00Z, 09:00 in Marseille.
START = NEW_YEAR_US + 9 * DAY_US + 8 * HOUR_US
SOURCES = ("demonstrations", "works", "sports-events", "traffic-bylaws", "weather-warnings", "markets")
ROUTE = built.line((5.3700, 43.3000), (5.3800, 43.3000))
CROSSING_ROUTE = built.line((5.3750, 43.2990), (5.3750, 43.3010))
KIND = conflicts_pb2


def march(**more: object) -> fact_pb2.Fact:
    asked = {"source": "demonstrations", "kind": "PROTEST_MARCH", "geometry": ROUTE, "attendance": (800, 1200), **more}
    return built.fact("march", periods=((START, START + 3 * HOUR_US),), **asked)  # type: ignore[arg-type]


def works(starts_us: int = START + HOUR_US, **more: object) -> fact_pb2.Fact:
    when = ((starts_us, starts_us + 10 * HOUR_US),)
    return built.fact("works", kind="ROADWORKS", geometry=CROSSING_ROUTE, periods=when, **more)  # type: ignore[arg-type]


@dataclass
class Desk:
    """The servicer, and what feeds it."""

    servicer: AnalyticsServicer
    runner: ProjectionRunner
    store: SqlEventStore
    clock: HandClock
    log: IngestLog
    applied: int = 0

    def follow(self) -> None:
        events = self.log.events[self.applied :]
        before = self.log.events[self.applied - 1].digest if self.applied else GENESIS
        self.runner.advance(self.log.store_id, before, events, events[-1].digest)
        self.applied = len(self.log.events)
        self.clock.shown = from_microseconds(self.log.at_us + 1)

    async def conflicts(
        self, *sources: str, party: str = "CITY", purpose: Purpose.ValueType = PURPOSE_CROSSING, **more: object
    ) -> Sequence[conflicts_pb2.Conflict]:
        request = pb.QueryConflictsRequest(**more)  # type: ignore[arg-type]
        request.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + 30 * DAY_US))
        call = call_of("QueryConflicts", *(sources or SOURCES), purpose=purpose, party=party)
        answer = await self.servicer.QueryConflicts(request, call)
        assert answer.total == len(answer.conflicts) == call.data.count
        assert call.data_position == self.log.head()
        return answer.conflicts

    async def one(self, **more: object) -> conflicts_pb2.Conflict:
        (found,) = await self.conflicts(**more)  # type: ignore[arg-type]
        return found

    async def acknowledge(
        self, seen: conflicts_pb2.Conflict, *sources: str, **who: str
    ) -> conflicts_pb2.ConflictState.ValueType:
        request = conflicts_pb2.AcknowledgeConflictRequest(conflict_id=seen.conflict_id, fingerprint=seen.fingerprint)
        call = call_of("AcknowledgeConflict", *(sources or SOURCES), purpose=PURPOSE_CROSSING, **who)
        self.servicer.describe_AcknowledgeConflict(request, call)
        answer = await self.servicer.AcknowledgeConflict(request, call)
        assert await self.is_covered(answer.coverage, seen)
        return answer.state

    async def resolve(
        self, seen: conflicts_pb2.Conflict, kind: fact_pb2.MeasureKind.ValueType = fact_pb2.MEASURE_KIND_ROUTE_CHANGE
    ) -> conflicts_pb2.ConflictState.ValueType:
        request = conflicts_pb2.ResolveConflictRequest(conflict_id=seen.conflict_id, fingerprint=seen.fingerprint)
        request.measure.kind, request.measure.reference = kind, "P-2026/12"
        call = call_of("ResolveConflict", *SOURCES, purpose=PURPOSE_CROSSING)
        self.servicer.describe_ResolveConflict(request, call)
        answer = await self.servicer.ResolveConflict(request, call)
        assert await self.is_covered(answer.coverage, seen)
        return answer.state

    async def is_covered(self, told: Coverage, seen: conflicts_pb2.Conflict) -> bool:
        """Whether a step was told what a look at the conflict's rule around it is told."""
        (longitude, latitude) = shapely.get_coordinates(shape_of(seen.overlap))[0]
        request = pb.QueryConflictsRequest(rules=[seen.rule_id])
        request.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + 30 * DAY_US))
        request.box.west = request.box.east = longitude
        request.box.south = request.box.north = latitude
        look = await self.servicer.QueryConflicts(
            request, call_of("QueryConflicts", *SOURCES, purpose=PURPOSE_CROSSING)
        )
        return bool(told.sources) and told == look.coverage

    async def agenda(self, *sources: str, **more: object) -> pb.GetAgendaResponse:
        call = call_of("GetAgenda", *(sources or SOURCES), purpose=PURPOSE_SITUATION)
        return await self.servicer.GetAgenda(pb.GetAgendaRequest(**more), call)  # type: ignore[arg-type]


def call_of(
    method: str, *sources: str, purpose: Purpose.ValueType, party: str = "CITY", subject: str = "agent"
) -> Call:
    grant = built.granted(*sources, purpose=purpose, party=party, subject=subject)
    return Call(Invocation(METHODS[method], "", "", "", "", ""), grant)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    """An empty read model and an empty store of steps, on either engine, the two in one database on PostgreSQL."""
    in_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/analytics.db" if in_file else request.getfixturevalue("postgres_url")
    steps_url = f"sqlite:///{tmp_path}/steps.db" if in_file else url
    rules, territory = Rules.load(), Territory.load(Path("deploy/territory/marseille.json"))
    writer = open_for_writing(url)
    runner = ProjectionRunner(writer, FactProjection(crossing=Crossing(rules, Metres(territory.epsg))))
    clock = HandClock(from_microseconds(NEW_YEAR_US))
    store = open_store(steps_url, clock=clock)
    model = ReadModel(open_for_reading(url), lambda: True)
    servicer = AnalyticsServicer(model, built.desks(model, store, clock))
    yield Desk(servicer, runner, store, clock, IngestLog())
    model.close()
    store.close()
    writer.dispose()


def factors_of(conflict: conflicts_pb2.Conflict) -> dict[str, float | str]:
    return {
        conflicts_pb2.SeverityFactorKind.Name(one.kind).removeprefix("SEVERITY_FACTOR_KIND_"): one.choice or one.value
        for one in conflict.factors
    }


async def test_a_conflict_gives_its_rule_place_window_factors_and_what_measure_is_missing(desk: Desk) -> None:
    desk.log.declare(march(measures=[(fact_pb2.MEASURE_KIND_BARRIERS, "B-1")]))
    desk.log.declare(works(attributes={"roadway": "SIDEWALK"}))
    desk.follow()
    found = await desk.one()
    assert (found.rule_id, found.rule_version, found.label) == ("route-works", 1, "Parcours et travaux")
    assert [fact.kind for fact in found.facts] == ["PROTEST_MARCH", "ROADWORKS"]
    (window,) = found.windows
    assert (window.start.ToMicroseconds(), window.end.ToMicroseconds()) == (START + HOUR_US, START + 3 * HOUR_US)
    around = found.overlap.polygon.rings[0].points
    # Each within 10 m of both: 20 m around the crossing, whose longitude is 5.375.
    assert all(abs(point.longitude - 5.375) < 0.00014 and abs(point.latitude - 43.3) < 0.0001 for point in around)
    assert factors_of(found) == {
        "DURATION": 2.0,
        "WINDOWS": 1.0,
        "DISTANCE": 0.0,
        "ATTENDANCE": 1200.0,
        "ATTRIBUTE": "SIDEWALK",
    }
    assert [(one.kind, one.reference) for one in found.measures_present] == [(fact_pb2.MEASURE_KIND_BARRIERS, "B-1")]
    assert list(found.measures_missing) == [fact_pb2.MEASURE_KIND_ROUTE_CHANGE, fact_pb2.MEASURE_KIND_POSTPONEMENT]
    assert found.state == KIND.CONFLICT_STATE_DETECTED
    assert found.detected_at.ToMicroseconds() == desk.log.events[-1].recorded_at_us


async def test_a_conflict_lives_from_detected_to_resolved_and_opens_again_when_its_facts_change(desk: Desk) -> None:
    desk.log.declare(march())
    desk.log.declare(works())
    desk.follow()
    seen = await desk.one()
    assert await desk.acknowledge(seen) == KIND.CONFLICT_STATE_ACKNOWLEDGED
    # Again: nothing more is kept.
    assert await desk.acknowledge(seen) == KIND.CONFLICT_STATE_ACKNOWLEDGED
    assert desk.store.head().position == 1
    desk.clock.turn(60)
    assert await desk.resolve(seen) == KIND.CONFLICT_STATE_RESOLVED
    resolved = await desk.one()
    assert [step.kind for step in resolved.steps] == [1, 2]
    assert (resolved.steps[1].subject, resolved.steps[1].organisation) == ("agent", "Direction")
    assert resolved.steps[1].measure.reference == "P-2026/12"
    between = from_microseconds(desk.log.at_us + 10)
    # The other party sees the step, not the name.
    assert [step.subject for step in (await desk.one(party="PREFECTURE")).steps] == ["", ""]

    # Another title changes nothing of the conflict; other hours do.
    desk.log.amend(works(revision=2, title="Rue de Rome"), wait_us=10**9)
    desk.follow()
    assert (await desk.one()).state == KIND.CONFLICT_STATE_RESOLVED
    desk.log.amend(works(starts_us=START, revision=3))
    desk.follow()
    reopened = await desk.one()
    assert reopened.conflict_id == seen.conflict_id
    assert reopened.state == KIND.CONFLICT_STATE_REOPENED
    assert reopened.detected_at == seen.detected_at
    with pytest.raises(Problem, match="CONFLICT_CHANGED"):
        await desk.acknowledge(seen)
    # As of a moment between the two steps: the first of them alone.
    then = await desk.one(as_of=between)
    assert (then.state, then.fingerprint) == (KIND.CONFLICT_STATE_ACKNOWLEDGED, seen.fingerprint)
    # Back at its old hours it is what was resolved.
    desk.log.amend(works(revision=4))
    desk.follow()
    assert (await desk.one()).state == KIND.CONFLICT_STATE_RESOLVED
    assert not await desk.conflicts(states=[KIND.CONFLICT_STATE_DETECTED])
    assert desk.store.verify() == ()


async def test_a_conflict_whose_measure_is_withdrawn_from_the_facts_is_open_again(desk: Desk) -> None:
    taken = [(fact_pb2.MEASURE_KIND_ROUTE_CHANGE, "P-2026/12")]
    desk.log.declare(march(measures=taken))
    desk.log.declare(works())
    desk.follow()
    desk.clock.turn(60)
    seen = await desk.one()
    assert await desk.resolve(seen) == KIND.CONFLICT_STATE_RESOLVED
    resolved_at = desk.clock.shown
    desk.log.amend(march(revision=2), wait_us=10**9)
    desk.follow()
    reopened = await desk.one(states=[KIND.CONFLICT_STATE_REOPENED])
    # What it is did not change: place, windows and factors are those that were resolved.
    assert reopened.fingerprint == seen.fingerprint
    assert (await desk.one(as_of=resolved_at)).state == KIND.CONFLICT_STATE_RESOLVED
    (day,) = (await desk.agenda(first_day="2026-01-10", days=1)).days
    assert attention(day.factors)["UNRESOLVED_CONFLICTS"] == (1, 0)
    # Nothing was written, and what the facts no longer have resolves nothing; somebody may take it on.
    assert desk.store.head().position == 1
    with pytest.raises(Problem, match="MEASURE_WITHDRAWN"):
        await desk.resolve(reopened)
    withdrawn_at = desk.clock.shown
    desk.clock.turn(60)
    assert await desk.acknowledge(reopened) == KIND.CONFLICT_STATE_ACKNOWLEDGED
    assert (await desk.one(as_of=withdrawn_at)).state == KIND.CONFLICT_STATE_REOPENED
    desk.log.amend(march(revision=3, measures=taken), wait_us=10**9)
    desk.follow()
    assert await desk.resolve(await desk.one()) == KIND.CONFLICT_STATE_RESOLVED


async def test_every_answer_says_what_it_does_not_know_as_the_map_does(desk: Desk) -> None:
    for hour in range(30):
        desk.log.declare(built.fact(f"w{hour}", kind="ROADWORKS", geometry=built.point(5.375, 43.3)), HOUR_US)
    then = from_microseconds(desk.log.at_us)
    march_id = desk.log.declare(march(), HOUR_US)
    desk.log.declare(built.fact("m", source="markets", kind="REGULAR_MARKET", geometry=built.point(5.45, 43.25)))
    desk.log.declare(built.fact("n", source="residents-reports", kind="NOISE", geometry=built.point(5.45, 43.25)))
    desk.follow()
    desk.clock.shown = from_microseconds(desk.log.at_us + 5 * DAY_US)
    granted = (*SOURCES, "residents-reports")
    near = pb.BoundingBox(west=5.36, south=43.29, east=5.39, north=43.31)
    world = pb.BoundingBox(west=-180, south=-90, east=180, north=90)
    month = built.period(NEW_YEAR_US, NEW_YEAR_US + 30 * DAY_US)
    crossed = {"demonstrations", "works", "sports-events", "traffic-bylaws", "markets"}
    expected = {
        "GetFact": {"demonstrations"},
        "GetAgenda": crossed | {"weather-warnings"},
        "QueryConflicts": crossed,
        "QueryTension": {"residents-reports"},
        "WatchMap": set(granted),
    }
    silent = 0
    for method, sources in expected.items():
        for as_of in (None, then) if method not in ("GetFact", "WatchMap") else (None,):
            purposes = {"QueryConflicts": PURPOSE_CROSSING, "QueryTension": PURPOSE_TENSION}
            call = call_of(method, *granted, purpose=purposes.get(method, PURPOSE_SITUATION))
            asked: dict[str, object] = {"fact_id": march_id} if method == "GetFact" else {"box": near}
            if method in ("QueryTension", "QueryConflicts"):
                asked["period"] = month
            if as_of is not None:
                asked["as_of"] = as_of
            answering = getattr(desk.servicer, method)(getattr(pb, f"{method}Request")(**asked), call)
            answer = await (anext(answering) if method == "WatchMap" else answering)
            box = world if method == "GetFact" else near
            drawn = pb.QueryMapRequest(box=box, period=month, sources=sorted(sources))
            if as_of is not None:
                drawn.as_of.FromDatetime(as_of)
            look = call_of("QueryMap", *granted, purpose=PURPOSE_SITUATION)
            assert {one.source for one in answer.coverage.sources} == sources, method
            assert answer.coverage == (await desk.servicer.QueryMap(drawn, look)).coverage, method
            silent += sum(one.rhythm == RHYTHM_SILENT for one in answer.coverage.sources)
    # The works, in three answers about the present.
    assert silent == 3


async def test_a_step_is_for_who_sees_the_conflict_of_the_city_and_with_a_measure_that_answers(desk: Desk) -> None:
    desk.log.declare(march())
    desk.log.declare(works())
    desk.follow()
    seen = await desk.one()
    with pytest.raises(Problem, match="CONFLICT_UNKNOWN") as unseen:
        await desk.acknowledge(seen, "works")
    assert unseen.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(Problem, match="CITY_ONLY"):
        await desk.acknowledge(seen, party="PREFECTURE")
    with pytest.raises(Problem, match="MEASURE_DOES_NOT_ANSWER"):
        await desk.resolve(seen, fact_pb2.MEASURE_KIND_TRAFFIC_BYLAW)
    assert desk.store.head().position == 0


async def test_conflicts_are_for_crossing_and_rest_on_granted_sources_alone(desk: Desk) -> None:
    desk.log.declare(march())
    desk.log.declare(works(attributes={"roadway": "FULL"}))
    desk.follow()
    with pytest.raises(Problem, match="PURPOSE_MISMATCH") as refused:
        await desk.conflicts(purpose=PURPOSE_SITUATION)
    assert refused.value.clause == "art6.purpose"
    assert {one.rule_id for one in await desk.conflicts()} == {"route-works", "works-bylaw"}
    assert {one.rule_id for one in await desk.conflicts("works", "traffic-bylaws")} == {"works-bylaw"}
    # That no by-law is there would tell of the by-laws.
    assert {one.rule_id for one in await desk.conflicts("works", "demonstrations")} == {"route-works"}
    assert not await desk.conflicts("works")
    box = pb.BoundingBox(west=5.3, south=43.2, east=5.37, north=43.4)
    assert not await desk.conflicts(box=box)
    assert len(await desk.conflicts(box=box, rules=["route-market"])) == 0


async def test_works_lack_their_bylaw_exactly_when_none_covers_them(desk: Desk) -> None:
    desk.log.declare(works(starts_us=START, attributes={"roadway": "FULL"}))
    near = built.point(5.3753, 43.3)
    hours = ((START, START + 2 * HOUR_US), (START + 4 * HOUR_US, START + 5 * HOUR_US))
    desk.log.declare(built.fact("b", source="traffic-bylaws", kind="ROAD_CLOSURE", geometry=near, periods=hours))
    desk.follow()
    found = await desk.one()
    assert [
        ((window.start.ToMicroseconds() - START) // HOUR_US, (window.end.ToMicroseconds() - START) // HOUR_US)
        for window in found.windows
    ] == [(2, 4), (5, 10)]
    assert factors_of(found)["DURATION"] == 7.0
    assert list(found.covering_fact_ids) == [built.fact_id("traffic-bylaws", "b")]
    detected_at = desk.log.events[0].recorded_at_us
    assert found.detected_at.ToMicroseconds() == detected_at
    whole = ((START, START + 10 * HOUR_US),)
    desk.log.amend(
        built.fact("b", source="traffic-bylaws", kind="ROAD_CLOSURE", geometry=near, periods=whole, revision=2),
        wait_us=1000,
    )
    desk.follow()
    assert not await desk.conflicts()
    then = await desk.one(as_of=from_microseconds(desk.log.at_us - 1))
    assert then == found


async def test_an_erased_fact_takes_its_conflicts_with_it_in_the_past_too(desk: Desk) -> None:
    key = desk.log.declare(march())
    desk.log.declare(works())
    desk.follow()
    before = from_microseconds(desk.log.at_us)
    desk.log.erase(key)
    desk.follow()
    assert not await desk.conflicts()
    assert not await desk.conflicts(as_of=before)


def attention(factors: Sequence[agenda_pb2.AttentionFactor]) -> dict[str, tuple[int, int]]:
    return {
        agenda_pb2.AttentionKind.Name(one.kind).removeprefix("ATTENTION_KIND_"): (one.value, one.maximum)
        for one in factors
    }


async def test_the_agenda_shows_day_by_day_what_happens_and_why_to_look_twice(desk: Desk) -> None:
    desk.log.declare(march())
    desk.log.declare(works())
    far = built.point(5.40, 43.25)
    nights = ((START, START + 2 * HOUR_US), (START + 30 * DAY_US, START + 31 * DAY_US))
    desk.log.declare(built.fact("m", source="markets", kind="REGULAR_MARKET", geometry=far, periods=nights))
    storm = fact_pb2.Geometry(polygon=built.polygon((5.36, 43.29), (5.38, 43.29), (5.38, 43.31), (5.36, 43.31)))
    desk.log.declare(
        built.fact(
            "w",
            source="weather-warnings",
            kind="STORM",
            geometry=storm,
            periods=((START + 5 * HOUR_US, START + 6 * HOUR_US),),
        )
    )
    desk.follow()
    answer = await desk.agenda(first_day="2026-01-09", days=3)
    assert [(day.day, len(day.entries)) for day in answer.days] == [
        ("2026-01-09", 0),
        ("2026-01-10", 3),
        ("2026-01-11", 0),
    ]
    starts = [entry.periods[0].start.ToMicroseconds() for entry in answer.entries]
    assert starts == [START, START, START + HOUR_US]
    assert all(entry.place for entry in answer.entries)
    by_kind = {entry.kind: entry for entry in answer.entries}
    conflict_id = (await desk.one()).conflict_id
    assert list(by_kind["PROTEST_MARCH"].conflict_ids) == [conflict_id]
    assert attention(by_kind["PROTEST_MARCH"].factors) == {
        "ATTENDANCE": (800, 1200),
        "SIMULTANEITY": (1, 0),
        "UNRESOLVED_CONFLICTS": (1, 0),
        "MISSING_MEASURES": (1, 0),
    }
    assert attention(by_kind["ROADWORKS"].factors)["WEATHER_WARNING"] == (1, 0)
    assert attention(by_kind["REGULAR_MARKET"].factors) == {}
    assert attention(answer.days[1].factors) == {
        "ATTENDANCE": (800, 1200),
        "SIMULTANEITY": (1, 0),
        "UNRESOLVED_CONFLICTS": (1, 0),
        "MISSING_MEASURES": (1, 0),
        "WEATHER_WARNING": (1, 0),
    }
    await desk.resolve(await desk.one())
    resolved = await desk.agenda(first_day="2026-01-09", days=3)
    assert "UNRESOLVED_CONFLICTS" not in attention(resolved.days[1].factors)
    # What is not granted is nowhere, its warnings and conflicts neither.
    partly = await desk.agenda("demonstrations", first_day="2026-01-09", days=3)
    (only,) = partly.entries
    assert (only.kind, list(only.conflict_ids)) == ("PROTEST_MARCH", [])
    assert attention(only.factors) == {"ATTENDANCE": (800, 1200)}
    for day in ("2026-02-30", "9999-12-31", "0001-01-01"):
        with pytest.raises(Problem, match="DAY_INVALID"):
            await desk.agenda(first_day=day)
    with pytest.raises(Problem, match="AS_OF_INVALID"):
        await desk.agenda(as_of=Timestamp(seconds=2**60))


async def test_the_agenda_is_the_coming_thirty_local_days_by_default(desk: Desk) -> None:
    desk.log.declare(march())
    desk.follow()
    # 23:30 in UTC is the next day in Marseille.
    desk.clock.shown = datetime(2026, 1, 9, 23, 30, tzinfo=UTC)
    answer = await desk.agenda()
    assert (len(answer.days), answer.days[0].day, answer.days[-1].day) == (30, "2026-01-10", "2026-02-08")
    assert list(answer.days[0].entries) == [0]


async def test_the_agenda_says_what_is_new_moved_or_cancelled_since_the_last_look(desk: Desk) -> None:
    for name in ("moved", "cancelled", "gone", "other", "same"):
        desk.log.declare(built.fact(name, source="markets", kind="REGULAR_MARKET", periods=((START, START + HOUR_US),)))
    desk.log.at_us += 1000
    since = from_microseconds(desk.log.at_us)

    def market(name: str, starts_us: int = START, **more: object) -> fact_pb2.Fact:
        when = ((starts_us, starts_us + HOUR_US),)
        return built.fact(name, source="markets", kind="REGULAR_MARKET", periods=when, revision=2, **more)  # type: ignore[arg-type]

    desk.log.amend(market("moved", START + HOUR_US))
    desk.log.cancel(built.fact_id("markets", "cancelled"), 2)
    desk.log.amend(market("gone", START + 40 * DAY_US))
    desk.log.amend(market("other", title="Marché"))
    then = from_microseconds(desk.log.at_us)
    desk.log.declare(built.fact("new", source="markets", kind="REGULAR_MARKET", periods=((START, START + HOUR_US),)))
    desk.follow()

    async def changes(**more: object) -> dict[str, str]:
        answer = await desk.agenda(first_day="2026-01-08", days=5, changed_since=since, **more)
        return {
            entry.fact_id: agenda_pb2.AgendaChange.Name(entry.change).removeprefix("AGENDA_CHANGE_")
            for entry in answer.entries
        }

    expected = {"moved": "MOVED", "cancelled": "CANCELLED", "gone": "MOVED", "other": "OTHER"}
    known_then = {built.fact_id("markets", name): change for name, change in expected.items()}
    assert await changes() == {**known_then, built.fact_id("markets", "new"): "NEW"}
    assert await changes(as_of=then) == known_then
    plain = await desk.agenda(first_day="2026-01-08", days=5)
    assert {entry.fact_id for entry in plain.entries} == {
        built.fact_id("markets", name) for name in ("moved", "other", "same", "new")
    }
    assert all(entry.change == agenda_pb2.AGENDA_CHANGE_UNSPECIFIED for entry in plain.entries)
