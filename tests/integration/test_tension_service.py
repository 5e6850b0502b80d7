"""QueryTension over a real read model: what is answered, withheld, refused and recorded; as of; either engine alike."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import h3.api.basic_int as h3
import numpy as np
import protovalidate
import pytest
import shapely
import typer
from planier.analytics.v1 import analytics_pb2 as pb
from planier.analytics.v1 import tension_pb2
from planier.common.v1 import fact_pb2
from planier.common.v1.release_pb2 import PURPOSE_TENSION

from services.analytics.coverage import CoverageReader
from services.analytics.projections import FactProjection
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.tension.desk import TensionDesk, question_of
from services.analytics.wiring import open_for_writing
from services.cli.tension import layer_of, read_layer
from services.kernel.clock import SystemClock, from_microseconds
from services.kernel.errors import Problem
from services.kernel.guard.grant import Grant
from services.kernel.guard.options import methods_of
from services.kernel.layers import LayerFolder, Zone
from services.kernel.projection import ProjectionRunner
from services.kernel.rpc.call import Call, Invocation
from services.kernel.store.base import GENESIS
from services.kernel.territory import Territory
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog
from tests.fixtures.outside import QUARTIERS
from tests.fixtures.tension import REGISTRY, ROOT, disk

MARSEILLE = Territory.load(ROOT / "deploy" / "territory" / "marseille.json")
METHOD = next(
    method for method in methods_of(pb.DESCRIPTOR.services_by_name["AnalyticsService"]) if method.name == "QueryTension"
)
DAY_US = 24 * HOUR_US
CITY = disk(5)
SOURCES = ("residents-reports", "municipal-police-reports", "demonstrations", "official-visits")


def log_of(city: np.ndarray, *extra: fact_pb2.Fact) -> IngestLog:
    """As many noises in each cell (row) and month (column) as the table says, then the rest."""
    log, number = IngestLog(), 0
    for cell, months in zip(CITY, city.tolist(), strict=True):
        latitude, longitude = h3.cell_to_latlng(h3.cell_to_center_child(cell, 10))
        for month, count in enumerate(months):
            for _ in range(count):
                number += 1
                starts = NEW_YEAR_US + (month * 30 + number % 29) * DAY_US
                log.declare(noise(f"n{number}", longitude, latitude, starts))
    for one in extra:
        log.declare(one)
    return log


def noise(name: str, longitude: float, latitude: float, starts_us: int, **more: object) -> fact_pb2.Fact:
    asked = {"source": "residents-reports", "kind": "NOISE", **more}
    periods = ((starts_us, starts_us + HOUR_US),)
    return built.fact(name, geometry=built.point(longitude, latitude), periods=periods, **asked)  # type: ignore[arg-type]


def city() -> np.ndarray:
    table = np.random.default_rng(1).poisson(2.0, (len(CITY), 12))
    table[:7] += 4
    return table


def grant(*sources: str) -> Grant:
    return replace(built.granted(*sources), purpose=PURPOSE_TENSION)


def call(*sources: str) -> Call:
    return Call(Invocation(METHOD, "", "", "", "", ""), grant(*sources))


def request(**more: object) -> pb.QueryTensionRequest:
    box = pb.BoundingBox(west=5.2, south=43.1, east=5.6, north=43.4)
    asked = pb.QueryTensionRequest(box=box, **more)  # type: ignore[arg-type]
    asked.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + 360 * DAY_US))
    return asked


Open = Callable[[str, IngestLog], TensionDesk]


@pytest.fixture
async def open_desk(tmp_path: Path) -> AsyncIterator[Open]:
    closing: list[Callable[[], None]] = []

    def opened(url: str, log: IngestLog) -> TensionDesk:
        writer = open_for_writing(url)
        ProjectionRunner(writer, FactProjection()).advance(log.store_id, GENESIS, log.events, log.head().digest)
        model = ReadModel(open_for_reading(url), lambda: True)
        closing.extend((model.close, writer.dispose))
        return TensionDesk(
            model,
            REGISTRY,
            MARSEILLE,
            coverage=CoverageReader(),
            clock=SystemClock(),
            layers=LayerFolder(tmp_path / "layers"),
        )

    yield opened
    for close in closing:
        close()


@pytest.fixture
def desk(open_desk: Open, tmp_path: Path) -> TensionDesk:
    return open_desk(f"sqlite:///{tmp_path}/analytics.db", log_of(city()))


async def test_a_zone_says_all_that_it_rests_on(desk: TensionDesk) -> None:
    asked = call(*SOURCES)
    answer = await desk.answer(request(method=True), asked)
    (zone,) = [zone for zone in answer.zones if zone.side == tension_pb2.TENSION_SIDE_HOT]
    assert CITY[0] in zone.cells
    assert h3.latlng_to_cell(zone.latitude_e7 / 1e7, zone.longitude_e7 / 1e7, 9) in zone.cells
    assert zone.z > 4
    assert 0 < zone.p <= zone.q < 0.001
    assert 0 < zone.p_permutation <= 0.05
    table = city()
    members = [CITY.index(cell) for cell in zone.cells]
    assert zone.count == table[members].sum()
    assert zone.exposure == pytest.approx(zone.surface_km2 * 12)
    assert zone.raw_rate == pytest.approx(zone.count / zone.exposure)
    assert 0 < zone.smoothed_rate < zone.raw_rate
    (counted,) = zone.counts
    assert (counted.source, counted.kind, counted.count) == ("residents-reports", "NOISE", zone.count)
    assert counted.nature == tension_pb2.SOURCE_NATURE_REPORTED
    assert counted.newest_recorded_at.ToMicroseconds() > counted.newest_start.ToMicroseconds() - 360 * DAY_US
    assert (zone.only_discovered, zone.fragile, len(zone.checks)) == (False, False, 3)
    assert zone.pattern in (tension_pb2.TREND_PATTERN_PERSISTENT, tension_pb2.TREND_PATTERN_SPORADIC)
    assert zone.opinion.moran == tension_pb2.MORAN_QUADRANT_HIGH_HIGH
    share = zone.surface_km2 / sum(h3.cell_area(cell, "km^2") for cell in CITY)
    assert 1 < zone.opinion.relative_risk < zone.count / (table.sum() * share)
    assert zone.opinion.agrees == (zone.opinion.disagreement == "")
    assert zone.reason.startswith("Faits anormalement nombreux")
    method = answer.method
    assert (method.support, method.units, method.family, method.steps, method.step_days) == ("h3-9", 91, 91, 12, 30)
    assert (method.alpha, method.permutations, method.annex_hash) == (0.05, 999, REGISTRY.hash)
    assert method.code_version.startswith("planier ")
    assert (answer.total, answer.zones_withheld) == (table.sum(), 0)
    assert answer.clusters[0].in_zone
    assert any("enregistrés" in caution for caution in answer.cautions)


async def test_the_look_is_described_and_holds_no_source_that_may_not_feed(desk: TensionDesk) -> None:
    asked = call(*SOURCES)
    layer = tension_pb2.TensionUnit(name="Le Panier", polygons=[built.polygon((5.3, 43.2), (5.45, 43.2), (5.45, 43.4))])
    answer = await desk.answer(request(kinds=["NOISE"], layer=[layer]), asked)
    assert list(asked.data.sources) == ["residents-reports"]
    assert list(asked.data.kinds) == ["NOISE"]
    assert asked.data.count == len(answer.zones)
    assert asked.data_position is not None
    assert asked.data.filters["step"] == "TENSION_STEP_UNSPECIFIED"
    assert len(asked.data.filters["layer_sha256"]) == 64
    assert "Panier" not in str(asked.data)
    assert [check.support for check in answer.zones[0].checks] == ["h3-8", "h3-10", "h3-9-ring-2", "polygons"]


async def test_asked_again_the_answer_is_there_until_something_new_is_known(
    desk: TensionDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await desk.answer(request(), call(*SOURCES))
    monkeypatch.setattr(desk, "_study", None)
    again = call(*SOURCES)
    assert await desk.answer(request(), again) == first
    assert again.data.count == len(first.zones)
    assert again.data_position is not None
    # Who may see less has another answer.
    with pytest.raises(TypeError):
        await desk.answer(request(), call("municipal-police-reports"))


async def test_another_purpose_is_refused(desk: TensionDesk) -> None:
    asked = Call(Invocation(METHOD, "", "", "", "", ""), built.granted(*SOURCES))
    with pytest.raises(Problem) as refused:
        await desk.answer(request(), asked)
    assert (refused.value.code, refused.value.clause) == (grpc.StatusCode.PERMISSION_DENIED, "art6.purpose")


async def test_demonstrations_and_visits_change_nothing_whatever_is_granted(open_desk: Open, tmp_path: Path) -> None:
    latitude, longitude = h3.cell_to_latlng(CITY[40])
    crowd = [
        noise(f"{kind}{number}", longitude, latitude, NEW_YEAR_US + number * DAY_US, source=source, kind=kind)
        for source, kind in (("demonstrations", "PROTEST_MARCH"), ("official-visits", "OFFICIAL_VISIT"))
        for number in range(200)
    ]
    with_them = open_desk(f"sqlite:///{tmp_path}/a.db", log_of(city(), *crowd))
    without = open_desk(f"sqlite:///{tmp_path}/b.db", log_of(city()))
    asked = call(*SOURCES)
    answer = await with_them.answer(request(), asked)
    assert answer == await without.answer(request(), call(*SOURCES))
    assert set(asked.data.sources).isdisjoint({"demonstrations", "official-visits"})
    only = await with_them.answer(request(sources=["demonstrations", "official-visits"]), call(*SOURCES))
    assert (only.total, list(only.zones)) == (0, [])
    assert only.summary.startswith("Aucune zone significative")


async def test_as_of_is_what_was_known_then(open_desk: Open, tmp_path: Path) -> None:
    """The zone's facts are learnt last, some others are amended away and cancelled: earlier instants do not know."""
    table = city()
    quiet = table.copy()
    quiet[:7] -= 4
    log = log_of(quiet)
    known = log.at_us
    before = [event for event in log.events if event.recorded_at_us <= known]
    for number in range(300):
        latitude, longitude = h3.cell_to_latlng(h3.cell_to_center_child(CITY[number % 7], 10))
        log.declare(noise(f"late{number}", longitude, latitude, NEW_YEAR_US + number * DAY_US))
    key = log.declare(noise("gone", longitude, latitude, NEW_YEAR_US))
    log.cancel(key, 2)
    moved = noise("n1", 5.5, 43.2, NEW_YEAR_US, revision=2)
    log.amend(moved)
    prefix = IngestLog()
    prefix.store_id, prefix.events = log.store_id, before
    now = open_desk(f"sqlite:///{tmp_path}/now.db", log)
    then = open_desk(f"sqlite:///{tmp_path}/then.db", prefix)
    past = request(method=True)
    past.as_of.FromMicroseconds(known)
    assert await now.answer(past, call(*SOURCES)) == await then.answer(request(method=True), call(*SOURCES))
    present = await now.answer(request(), call(*SOURCES))
    assert present.total == quiet.sum() + 300
    assert any(CITY[0] in zone.cells for zone in present.zones)


async def test_few_facts_are_withheld(open_desk: Open, tmp_path: Path) -> None:
    table = np.zeros((len(CITY), 12), int)
    table[0, 0] = 3
    desk = open_desk(f"sqlite:///{tmp_path}/few.db", log_of(table))
    answer = await desk.answer(request(), call(*SOURCES))
    assert (answer.total, [count.withheld for count in answer.counts]) == (0, [True])
    assert not answer.counts[0].HasField("newest_recorded_at")
    assert list(answer.zones) == []


async def test_the_area_and_the_period_bound_the_facts(desk: TensionDesk) -> None:
    latitude, longitude = h3.cell_to_latlng(CITY[0])
    corners = ((longitude - 0.01, latitude), (longitude + 0.01, latitude - 0.01), (longitude, latitude + 0.01))
    triangle = built.polygon(*corners)
    asked = request()
    asked.polygon.CopyFrom(triangle)
    asked.period.CopyFrom(built.period(NEW_YEAR_US + 30 * DAY_US, NEW_YEAR_US + 90 * DAY_US))
    answer = await desk.answer(asked, call(*SOURCES))
    points = [shapely.Point(*reversed(h3.cell_to_latlng(h3.cell_to_center_child(cell, 10)))) for cell in CITY]
    inside = [shapely.Polygon(corners).intersects(point) for point in points]
    assert answer.total == city()[inside, 1:3].sum() > 0
    assert answer.method.steps == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"step": tension_pb2.TENSION_STEP_DAY}, "period"),
        ({"by_layer": True}, "layer"),
        ({"layer": [tension_pb2.TensionUnit(name="x", polygons=[built.polygon((5, 43), (6, 43), (5, 43))])]}, "layer"),
    ],
)
async def test_a_question_that_cannot_be_answered_names_its_field(
    desk: TensionDesk, change: dict[str, object], field: str
) -> None:
    asked = request(**change)
    asked.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + 500 * DAY_US))
    with pytest.raises(Problem) as refused:
        await desk.answer(asked, call(*SOURCES))
    assert (refused.value.reason, refused.value.violations[0].field) == ("TENSION_INVALID", field)


@pytest.mark.postgres
async def test_postgresql_gives_the_same_answer(open_desk: Open, desk: TensionDesk, postgres_url: str) -> None:
    other = open_desk(postgres_url, log_of(city()))
    asked = request(method=True)
    assert await other.answer(asked, call(*SOURCES)) == await desk.answer(asked, call(*SOURCES))
    asked.as_of.FromMicroseconds(NEW_YEAR_US + 900)
    assert await other.answer(asked, call(*SOURCES)) == await desk.answer(asked, call(*SOURCES))


def squares(*names: str) -> tuple[Zone, ...]:
    """Strips side by side around the city, by code."""
    edges = np.linspace(5.2, 5.6, len(names) + 1)
    return tuple(
        Zone(str(code), name, shapely.box(edges[code], 43.1, edges[code + 1], 43.5)) for code, name in enumerate(names)
    )


def given_with_the_question(zones: tuple[Zone, ...]) -> list[tension_pb2.TensionUnit]:
    rings = ((zone.name, shapely.get_coordinates(zone.shape)[:-1].tolist()) for zone in zones)
    return [tension_pb2.TensionUnit(name=name, polygons=[built.polygon(*ring)]) for name, ring in rings]


async def test_a_layer_is_named_instead_of_given_and_is_the_one_of_the_moment_asked(
    desk: TensionDesk, tmp_path: Path
) -> None:
    old, new = squares(*"abcdefgh"), squares("one", "two", "two", *"abcdefgh")
    folder = LayerFolder(tmp_path / "layers")
    first = folder.keep("quartiers", old, from_microseconds(NEW_YEAR_US + 2000))
    asked = call(*SOURCES)
    named = await desk.answer(request(layer_name="quartiers", by_layer=True), asked)
    assert asked.data.filters["layer"] == f"quartiers@{first.hash}"
    assert (named.layer.name, named.layer.hash) == ("quartiers", first.hash)
    named.ClearField("layer")
    given = await desk.answer(request(layer=given_with_the_question(old), by_layer=True), call(*SOURCES))
    assert named == given
    assert given.method.units == 8
    newest = folder.keep("quartiers", new, from_microseconds(NEW_YEAR_US + 4000))
    now = await desk.answer(request(layer_name="quartiers", by_layer=True), call(*SOURCES))
    assert (now.layer.hash, now.method.units) == (newest.hash, 11)
    past = request(layer_name="quartiers", by_layer=True)
    past.as_of.FromMicroseconds(NEW_YEAR_US + 3000)
    assert (await desk.answer(past, call(*SOURCES))).layer.hash == first.hash
    past.as_of.FromMicroseconds(NEW_YEAR_US + 1000)
    with pytest.raises(Problem, match="LAYER_UNKNOWN"):
        await desk.answer(past, call(*SOURCES))
    # Zones of one name show their codes.
    assert question_of(past, newest).names[:3] == ("one", "two (1)", "two (2)")
    with pytest.raises(protovalidate.ValidationError):
        protovalidate.validate(request(layer_name="quartiers", layer=given_with_the_question(old)))


def test_the_command_line_names_a_layer_or_gives_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quartiers.geojson"
    shape = json.loads(shapely.to_geojson(shapely.box(5.2, 43.1, 5.3, 43.2)))
    file.write_text(json.dumps({"features": [{"properties": {"nom": "Belsunce"}, "geometry": shape}]}))
    assert layer_of("", "nom") == ("", [])
    assert layer_of("quartiers", "nom") == ("quartiers", [])
    name, (unit,) = layer_of(str(file), "nom")
    assert (name, unit.name) == ("", "Belsunce")
    with pytest.raises(typer.BadParameter, match="no such file"):
        layer_of(str(tmp_path / "none.geojson"), "nom")


async def test_the_quartiers_of_marseille_as_units(open_desk: Open, tmp_path: Path) -> None:
    if not QUARTIERS.exists():
        pytest.skip("the quartiers are not beside the checkout")
    layer = read_layer(QUARTIERS, "nom")
    assert len(layer) == 111
    desk = open_desk(f"sqlite:///{tmp_path}/analytics.db", log_of(city() * 2))
    answer = await desk.answer(request(layer=layer, by_layer=True), call(*SOURCES))
    assert answer.method.support == "polygons"
    assert answer.method.units == 111
    names = {name for zone in answer.zones if zone.side == tension_pb2.TENSION_SIDE_HOT for name in zone.names}
    assert names <= {unit.name for unit in layer}
    assert names
