"""The servicer's other answers over a real read model: filters, coverage, search, zones, watch."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import h3.api.basic_int as h3
import pytest
from planier.analytics.v1 import analytics_pb2 as pb
from planier.analytics.v1.coverage_pb2 import RHYTHM_SILENT, RHYTHM_UNKNOWN, RHYTHM_USUAL
from planier.common.v1 import fact_pb2
from planier.common.v1.release_pb2 import StorePosition

from services.analytics.coverage import CoverageReader
from services.analytics.projections import FactProjection, code_of
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.signal import Signal
from services.analytics.snapshot import Snapshot
from services.analytics.watching import Watches
from services.analytics.wiring import open_for_writing
from services.kernel.clock import from_microseconds
from services.kernel.errors import Problem
from services.kernel.guard.options import methods_of
from services.kernel.layers import LayerFolder, zones_of
from services.kernel.projection import ProjectionRunner
from services.kernel.rpc.call import Call, Invocation
from services.kernel.store.base import GENESIS, Position
from services.kernel.store.opening import open_store
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog

METHODS = {method.name: method for method in methods_of(pb.DESCRIPTOR.services_by_name["AnalyticsService"])}
MARSEILLE = pb.BoundingBox(west=5.2, south=43.1, east=5.6, north=43.4)
DAY_US = 24 * HOUR_US
EAST = built.point(5.45, 43.3)


def call_of(method: str, *sources: str) -> Call:
    return Call(Invocation(METHODS[method], "", "", "", "", ""), built.granted(*sources))


class StillClock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now_us = NEW_YEAR_US

    def now(self) -> datetime:
        return from_microseconds(self.now_us)


@dataclass
class Desk:
    """A servicer, the log it follows, and the means to move both."""

    servicer: AnalyticsServicer
    log: IngestLog
    runner: ProjectionRunner
    signal: Signal
    clock: StillClock
    layers: LayerFolder
    model: ReadModel
    applied: int = 0

    def apply(self) -> None:
        """What the follower does."""
        before = self.log.events[self.applied - 1].digest if self.applied else GENESIS
        events = self.log.events[self.applied :]
        self.runner.advance(self.log.store_id, before, events, events[-1].digest)
        self.applied = len(self.log.events)
        self.clock.now_us = max(self.clock.now_us, self.log.at_us)
        self.signal.give()

    async def map(self, *sources: str, **more: object) -> pb.QueryMapResponse:
        request = pb.QueryMapRequest(box=MARSEILLE, **more)  # type: ignore[arg-type]
        if not request.HasField("period"):
            request.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + 365 * DAY_US))
        return await self.servicer.QueryMap(request, call_of("QueryMap", *sources))

    async def search(self, words: str, **more: object) -> pb.SearchFactsResponse:
        request = pb.SearchFactsRequest(words=words, **more)  # type: ignore[arg-type]
        return await self.servicer.SearchFacts(request, call_of("SearchFacts", "works", "markets"))


@pytest.fixture(params=["sql", "columns"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    url = f"sqlite:///{tmp_path}/analytics.db"
    writer = open_for_writing(url)
    runner = ProjectionRunner(writer, FactProjection())
    model = ReadModel(open_for_reading(url), lambda: True)
    snapshot = Snapshot(open_for_reading(url)) if request.param == "columns" else None
    signal, clock, layers = Signal(), StillClock(), LayerFolder(tmp_path / "layers")
    minimums = {(code_of("offences"), code_of("PERSON_OFFENCE")): 3}
    steps = open_store(f"sqlite:///{tmp_path}/steps.db", clock=clock)
    servicer = AnalyticsServicer(
        model,
        built.desks(model, steps, clock),
        clock=clock,
        minimums=minimums,
        snapshot=snapshot,
        layers=layers,
        signal=signal,
    )
    yield Desk(servicer, IngestLog(), runner, signal, clock, layers, model)
    model.close()
    if snapshot is not None:
        snapshot.close()
    steps.close()
    writer.dispose()


async def test_a_filter_with_nothing_ticked_gives_an_empty_map_and_one_not_used_all_of_it(desk: Desk) -> None:
    desk.log.declare(built.fact("a"))
    desk.apply()
    assert (await desk.map("works")).total == 1
    for name in pb.MapFilter.values()[1:]:
        empty = await desk.map("works", empty_filters=[name])
        assert (empty.total, empty.WhichOneof("content"), len(empty.coverage.sources)) == (0, "features", 1)


async def test_states_are_relative_to_now_or_to_the_moment_asked(desk: Desk) -> None:
    desk.log.declare(built.fact("a", periods=[(NEW_YEAR_US + DAY_US, NEW_YEAR_US + 2 * DAY_US)]))
    desk.apply()
    seen = []
    for day in (0, 1, 2):
        desk.clock.now_us = NEW_YEAR_US + day * DAY_US
        seen += [state for state in pb.FactState.values()[1:] if (await desk.map("works", states=[state])).total]
    assert seen == [pb.FACT_STATE_PLANNED, pb.FACT_STATE_UNDER_WAY, pb.FACT_STATE_PAST]
    request = pb.QueryMapRequest(states=[pb.FACT_STATE_UNDER_WAY])
    request.state_at.FromMicroseconds(NEW_YEAR_US + DAY_US)
    assert (await desk.map("works", states=request.states, state_at=request.state_at)).total == 1


async def test_rare_kinds_are_not_counted_and_that_is_said(desk: Desk) -> None:
    for number in range(5):
        desk.log.declare(built.fact(str(number)))
    for number in range(2):
        desk.log.declare(built.fact(str(number), source="offences", kind="PERSON_OFFENCE"))
    desk.apply()
    answer = await desk.map("works", "offences", limit=1)
    assert (answer.total, list(answer.cells.counts), list(answer.withheld.kinds)) == (5, [5], ["PERSON_OFFENCE"])
    desk.log.declare(built.fact("2", source="offences", kind="PERSON_OFFENCE", geometry=EAST))
    desk.apply()
    answer = await desk.map("works", "offences", limit=1)
    # Three in all, in no cell three: withheld from the cells, and neither cell can be read off the total.
    assert (answer.total, sorted(answer.cells.counts), answer.withheld.count) == (8, [5], 3)


async def test_guarded_and_other_kinds_are_counted_together_in_each_of_several_places(desk: Desk) -> None:
    # By place: so many of a kind with a minimum of three, and of another kind of the same source.
    places = ((5.30, 4, 2), (5.38, 3, 1), (5.45, 5, 0), (5.50, 0, 7))
    for longitude, guarded, others in places:
        for number, kind in enumerate(["PERSON_OFFENCE"] * guarded + ["PROPERTY_OFFENCE"] * others):
            name, where = f"{longitude}-{number}", built.point(longitude, 43.3)
            desk.log.declare(built.fact(name, source="offences", kind=kind, geometry=where))
    desk.apply()
    cells = (await desk.map("offences", limit=1)).cells
    expected = {h3.latlng_to_cell(43.3, longitude, 10): guarded + others for longitude, guarded, others in places}
    assert dict(zip(cells.cells, cells.counts, strict=True)) == expected


async def test_every_answer_says_which_sources_have_fallen_silent(desk: Desk) -> None:
    for hour in range(40):
        desk.log.declare(built.fact(str(hour)), HOUR_US)
    desk.log.declare(built.fact("m", source="markets", kind="MARKET", geometry=EAST))
    desk.apply()
    sources = ("markets", "offences", "works")
    rhythms = {one.source: one.rhythm for one in (await desk.map(*sources)).coverage.sources}
    assert rhythms == {"markets": RHYTHM_UNKNOWN, "offences": RHYTHM_UNKNOWN, "works": RHYTHM_USUAL}
    desk.clock.now_us += 3 * DAY_US
    west = pb.BoundingBox(west=5.36, south=43.29, east=5.38, north=43.31)
    request = pb.QueryMapRequest(box=west, period=built.period(NEW_YEAR_US, NEW_YEAR_US + DAY_US))
    covered = (await desk.servicer.QueryMap(request, call_of("QueryMap", *sources))).coverage.sources
    assert [one.rhythm for one in covered] == [RHYTHM_UNKNOWN, RHYTHM_UNKNOWN, RHYTHM_SILENT]
    # The market is heard of, but not from here; of offences nothing ever was.
    assert [one.HasField("last_recorded") for one in covered] == [True, False, True]
    assert [one.HasField("last_recorded_in_area") for one in covered] == [False, False, True]


async def test_words_are_found_without_accents_with_slips_and_from_their_beginning(desk: Desk) -> None:
    desk.log.declare(built.fact("a", title="Travaux rue de la République"))
    desk.log.declare(built.fact("b", title="Réfection de chaussée, rue Paradis"))
    desk.log.declare(built.fact("c", title="Marché de la Plaine", source="markets", kind="MARKET"))
    desk.log.declare(built.fact("d", title="Travaux secrets", source="offences"))
    desk.apply()
    found = {}
    for words in ("republique", "REPUBLIQE", "trav repu", "chausée paradis", "marche", "travaux paradis", "secrets"):
        answer = await desk.search(words)
        found[words] = ([title.split()[0] for title in answer.features.titles], list(answer.slips))
    assert found == {
        "republique": (["Travaux"], [0]),
        "REPUBLIQE": (["Travaux"], [1]),
        "trav repu": (["Travaux"], [0]),
        "chausée paradis": (["Réfection"], [1]),
        "marche": (["Marché"], [0]),
        "travaux paradis": ([], []),
        "secrets": ([], []),
    }


async def test_the_record_of_a_search_holds_words_of_titles_and_no_others(desk: Desk) -> None:
    desk.log.declare(built.fact("a", title="Travaux rue Paradis"))
    desk.apply()
    call = call_of("SearchFacts", "works")
    await desk.servicer.SearchFacts(pb.SearchFactsRequest(words="travaux dupont"), call)
    assert "dupont" not in str(call.data)
    await desk.servicer.SearchFacts(pb.SearchFactsRequest(words="travau"), call)
    assert call.data.filters["words"] == "travaux"


SQUARES = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"c": code, "n": name},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[west, 43.2], [west + 0.1, 43.2], [west + 0.1, 43.4], [west, 43.4], [west, 43.2]]],
            },
        }
        for code, name, west in (("1", "Belsunce", 5.3), ("2", "La Pointe-Rouge", 5.4))
    ],
}


async def test_a_place_is_a_zone_of_a_layer_and_counts_are_by_zone(desk: Desk) -> None:
    desk.layers.keep("quartiers", zones_of(SQUARES, "c", "n"), from_microseconds(NEW_YEAR_US))
    for number, longitude in enumerate((5.35, 5.36, 5.45, 5.55)):
        desk.log.declare(built.fact(str(number), title=f"Chantier {number}", geometry=built.point(longitude, 43.3)))
    desk.apply()
    answer = await desk.search("chantier", place="pointe rouge")
    assert (answer.zone, list(answer.features.titles)) == ("La Pointe-Rouge", ["Chantier 2"])
    assert len((await desk.search("", place="belsunse")).features.titles) == 2
    with pytest.raises(Problem, match="PLACE_UNKNOWN"):
        await desk.search("chantier", place="Endoume")
    request = pb.CountByZoneRequest(layer="quartiers", period=built.period(NEW_YEAR_US, NEW_YEAR_US + DAY_US))
    counted = await desk.servicer.CountByZone(request, call_of("CountByZone", "works"))
    assert [(zone.code, zone.count) for zone in counted.zones] == [("1", 2), ("2", 1)]
    # The fourth lies beyond the layer's box.
    assert (counted.outside, counted.total) == (0, 3)
    request.as_of.FromMicroseconds(NEW_YEAR_US - 1)
    with pytest.raises(Problem, match="LAYER_UNKNOWN"):
        await desk.servicer.CountByZone(request, call_of("CountByZone", "works"))


async def test_a_watch_begins_at_its_cursor_and_tells_every_change_as_it_comes(desk: Desk) -> None:
    key = desk.log.declare(built.fact("a"))
    desk.apply()
    request = pb.WatchMapRequest(box=MARSEILLE)
    stream = desk.servicer.WatchMap(request, call_of("WatchMap", "works"))
    begun = await anext(stream)
    assert (begun.cursor.position, list(begun.changes)) == (1, [])
    coming = asyncio.ensure_future(anext(stream))
    desk.log.amend(built.fact("a", revision=2, status=fact_pb2.FACT_STATUS_CONFIRMED))
    desk.log.declare(built.fact("hidden", source="offences"))
    desk.log.amend(built.fact("a", revision=3, geometry=built.point(2.35, 48.85)))
    desk.apply()
    told = await coming
    assert [(change.kind, change.fact_id, change.version.position) for change in told.changes] == [
        (pb.MAP_CHANGE_KIND_PRESENT, key, 2),
        (pb.MAP_CHANGE_KIND_GONE, key, 0),
    ]
    assert told.cursor == StorePosition(store_id=desk.log.store_id, position=4, digest=desk.log.head().digest)
    desk.log.erase(key)
    desk.apply()
    assert (await anext(stream)).facts_erased
    await stream.aclose()


async def test_a_cursor_that_the_store_never_had_is_refused(desk: Desk) -> None:
    desk.log.declare(built.fact("a"))
    desk.apply()
    head = desk.log.head()
    for cursor in (
        StorePosition(store_id="f" * 32, position=1),
        StorePosition(store_id=head.store_id, position=2),
        StorePosition(store_id=head.store_id, position=1, digest=b"x" * 32),
    ):
        request = pb.WatchMapRequest(box=MARSEILLE, cursor=cursor)
        with pytest.raises(Problem, match="CURSOR_DIVERGED") as refused:
            await anext(desk.servicer.WatchMap(request, call_of("WatchMap", "works")))
        assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_the_layer_file_is_what_was_imported(tmp_path: Path) -> None:
    folder = LayerFolder(tmp_path)
    kept = folder.keep("quartiers", zones_of(SQUARES, "c", "n"), datetime(2026, 1, 1, tzinfo=UTC))
    assert (
        json.loads((tmp_path / f"{kept.hash}.geojson").read_text())["features"][0]["properties"]["name"] == "Belsunce"
    )


async def test_a_cursor_that_ingest_does_not_know_is_refused(desk: Desk) -> None:
    async def never_had(place: Position) -> bool:
        return place.digest != b"x" * 32

    for number in range(2):
        desk.log.declare(built.fact(str(number)))
    desk.apply()
    watches = Watches(desk.model, desk.signal, never_had, CoverageReader(), desk.clock)
    for digest, refused in ((b"x" * 32, True), (desk.log.events[0].digest, False)):
        cursor = StorePosition(store_id=desk.log.store_id, position=1, digest=digest)
        stream = watches.watch(pb.WatchMapRequest(box=MARSEILLE, cursor=cursor), call_of("WatchMap", "works"))
        if refused:
            with pytest.raises(Problem, match="CURSOR_DIVERGED"):
                await anext(stream)
        else:
            assert (await anext(stream)).cursor.position == 1
            await stream.aclose()
