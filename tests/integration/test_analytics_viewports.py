"""What is kept between looks: given again as long as nothing changed, gone at once when something did."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from planier.analytics.v1.analytics_pb2 import FACT_STATE_PLANNED, QueryMapResponse

from services.analytics.area import Area
from services.analytics.companions import SLOT_US
from services.analytics.coverage import FEWEST, CoverageReader, Freshness, rhythm_of, unchanged_between
from services.analytics.packing import pack
from services.analytics.projections import FactProjection
from services.analytics.queries import MapQuery, query_map
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.suppression import NONE
from services.analytics.viewports import Viewports
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog

CITY = Area(53_000_000, 432_000_000, 54_000_000, 434_000_000)
QUERY = MapQuery(CITY, NEW_YEAR_US, NEW_YEAR_US + HOUR_US)
GRANT = built.granted("works", "markets")
LESS = built.granted("markets")


class Desk:
    """A log, what follows it, and who answers."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/analytics.db"
        self.writer = open_engine(url)
        self.runner = ProjectionRunner(self.writer, FactProjection())
        self.log = IngestLog()
        self.applied = 0
        self.model = ReadModel(open_for_reading(url), lambda: True)
        self.viewports = Viewports(self.model, CoverageReader(), NONE, None)
        self.asked = 0
        read = self.model.read_here

        def counted(question: object) -> object:
            self.asked += 1
            return read(question)  # type: ignore[arg-type]

        self.model.read_here = counted  # type: ignore[assignment,method-assign]

    def apply(self) -> None:
        events = self.log.events[self.applied :]
        before = self.log.events[self.applied - 1].digest if self.applied else GENESIS
        self.runner.advance(self.log.store_id, before, events, events[-1].digest)
        self.applied = len(self.log.events)

    async def titles(self, query: MapQuery = QUERY, grant: object = GRANT) -> list[str]:
        # A look comes in a turn of its own, as every call does.
        await asyncio.sleep(0)
        position, response = await self.viewports.answer(grant, query, NEW_YEAR_US)  # type: ignore[arg-type]
        assert position == self.log.head()
        return sorted(response.features.titles)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    desk.log.declare(built.fact("a", title="Première"))
    desk.log.declare(built.fact("b", title="Seconde", geometry=built.line((5.31, 43.21), (5.33, 43.23))))
    desk.apply()
    await desk.titles()
    yield desk
    desk.model.close()
    desk.writer.dispose()


async def test_the_same_look_is_not_asked_twice_and_a_viewport_beside_it_is_chosen_from_what_was_read(
    desk: Desk,
) -> None:
    assert await desk.titles() == ["Première", "Seconde"]
    beside = replace(QUERY, area=replace(CITY, west=CITY.west + 100, east=CITY.east + 50))
    assert await desk.titles(beside) == ["Première", "Seconde"]
    # The first read found the position; the second one read the neighbourhood.
    asked = desk.asked
    moved = replace(QUERY, area=replace(CITY, south=CITY.south + 200))
    assert await desk.titles(moved) == ["Première", "Seconde"]
    assert desk.asked == asked == 2


async def test_another_grant_is_another_look(desk: Desk) -> None:
    assert await desk.titles(grant=LESS) == []
    assert await desk.titles() == ["Première", "Seconde"]
    assert await desk.titles(grant=LESS) == []


@pytest.mark.parametrize("between", [QUERY, replace(QUERY, states=(FACT_STATE_PLANNED,)), replace(QUERY, nothing=True)])
async def test_what_changed_is_seen_whoever_looked_in_between(desk: Desk, between: MapQuery) -> None:
    beside = replace(QUERY, area=replace(CITY, west=CITY.west + 100))
    await desk.titles(beside)
    desk.log.amend(built.fact("a", revision=2, title="Changée"))
    desk.apply()
    await desk.titles(between)
    assert await desk.titles() == ["Changée", "Seconde"]
    assert await desk.titles(beside) == ["Changée", "Seconde"]
    desk.log.erase(built.fact_id("works", "a"))
    desk.apply()
    await desk.titles(between)
    assert await desk.titles(beside) == await desk.titles() == ["Seconde"]


async def test_forgetting_leaves_no_fact_in_memory(desk: Desk) -> None:
    await desk.titles()
    assert any(isinstance(kept.response, QueryMapResponse) for kept in desk.viewports._answers._kept.values())
    desk.viewports.forget()
    assert not desk.viewports._answers._kept
    assert not desk.viewports._neighbourhoods._held


async def test_a_shape_whose_box_alone_meets_the_viewport_is_not_in_it(desk: Desk) -> None:
    # The corner of the line's box that the line stays away from.
    corner = Area(53_220_000, 432_100_000, 53_300_000, 432_110_000)
    for area in (corner, replace(corner, north=432_250_000), replace(corner, west=53_100_000)):
        query = replace(QUERY, area=area)
        with desk.model._engine.begin() as connection:
            wanted = pack(query_map(connection, GRANT, query))
        for _ in range(3):
            _, response = await desk.viewports.answer(GRANT, query, NEW_YEAR_US)
            assert response.features == wanted.features
    assert "Seconde" not in await desk.titles(replace(QUERY, area=corner))


@pytest.mark.parametrize("at", [0, 10, 11, 1_000])
def test_rhythms_change_only_outside_of_the_instants_that_are_told(at: int) -> None:
    known = [
        Freshness(0, {}, 5 * SLOT_US),
        Freshness(100, {}, 20 * SLOT_US),
        Freshness(FEWEST, {}),
        Freshness(None, {}),
    ]
    first, last = unchanged_between(known, at * SLOT_US)

    def rhythms(moment: int) -> list[int]:
        return [rhythm_of(one.last, one.usual_us, moment) for one in known]

    assert first <= at * SLOT_US <= last
    assert rhythms(first) == rhythms(at * SLOT_US) == rhythms(last)
    assert first < -(2**60) or rhythms(first - 1) != rhythms(first)
    assert last > 2**60 or rhythms(last + 1) != rhythms(last)
