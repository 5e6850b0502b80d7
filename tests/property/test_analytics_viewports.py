"""Whatever is kept between two looks, each gets the answer that the read model alone would give at its position."""

import asyncio
import itertools
from collections.abc import Awaitable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from planier.analytics.v1.analytics_pb2 import QueryMapResponse
from planier.common.v1 import fact_pb2

from services.analytics.area import Area
from services.analytics.coverage import CoverageReader
from services.analytics.packing import pack
from services.analytics.projections import FactProjection
from services.analytics.queries import MapQuery, permitted, query_map
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.suppression import NONE
from services.analytics.viewports import Viewports
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS, Position
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog

SOURCES = ("works", "markets")
KINDS = {"works": "ROAD_WORKS", "markets": "MARKET"}
STEP = 20_000
WEST, SOUTH = 53_000_000, 432_000_000
steps = st.integers(0, 6)
places = st.tuples(steps, steps)


def degrees(place: tuple[int, int]) -> tuple[float, float]:
    return (WEST + place[0] * STEP) / 1e7, (SOUTH + place[1] * STEP) / 1e7


def shape(place: tuple[int, int], form: int) -> fact_pb2.Geometry:
    far = (place[0] + 3, place[1] + 1)
    return built.point(*degrees(place)) if form < 2 else built.line(degrees(place), degrees(far))


facts = st.tuples(st.sampled_from(SOURCES), places, st.integers(0, 2), st.integers(1, 2))
boxes = st.builds(
    lambda corner, width, height: Area(
        WEST + corner[0] * STEP,
        SOUTH + corner[1] * STEP,
        WEST + (corner[0] + width) * STEP,
        SOUTH + (corner[1] + height) * STEP,
    ),
    places,
    st.integers(0, 4),
    st.integers(0, 4),
)
questions = st.builds(
    lambda area, sources, limit, states, later: MapQuery(
        area,
        NEW_YEAR_US,
        NEW_YEAR_US + HOUR_US,
        sources=sources,
        limit=limit,
        states=states,
        state_at_us=NEW_YEAR_US,
        changed_since_us=later,
    ),
    boxes,
    st.sampled_from(((), ("works",), ("markets", "works"))),
    st.sampled_from((2000, 2000, 3)),
    st.sampled_from(((), (), (1,))),
    st.sampled_from((None, None, NEW_YEAR_US)),
)
# A look, or a fact that arrives, or one that is erased.
acts = st.one_of(
    st.tuples(st.just("look"), questions, st.sampled_from((SOURCES, ("works",)))),
    st.tuples(st.just("look"), questions, st.sampled_from((SOURCES, ("works",)))),
    st.tuples(st.just("look"), questions, st.sampled_from((SOURCES, ("works",)))),
    st.tuples(st.just("declare"), facts, st.none()),
    st.tuples(st.just("erase"), st.integers(0, 5), st.none()),
)


class World:
    """An event log, its read model, and who answers about it."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/analytics.db"
        self.writer = open_engine(url)
        self.runner = ProjectionRunner(self.writer, FactProjection())
        self.log = IngestLog()
        self.keys: list[str] = []
        self.applied = 0
        self.model = ReadModel(open_for_reading(url), lambda: True)
        self.viewports = Viewports(
            self.model, CoverageReader(monotonic=itertools.count(0.0, 10.0).__next__), NONE, None
        )

    def declare(self, fact: tuple[str, tuple[int, int], int, int]) -> None:
        source, place, form, periods = fact
        self.keys.append(
            self.log.declare(
                built.fact(
                    f"f{len(self.keys)}",
                    source=source,
                    kind=KINDS[source],
                    geometry=shape(place, form),
                    periods=[
                        (NEW_YEAR_US + day * 24 * HOUR_US, NEW_YEAR_US + (day * 24 + 2) * HOUR_US)
                        for day in range(periods)
                    ],
                )
            )
        )

    def erase(self, index: int) -> None:
        if index < len(self.keys):
            self.log.erase(self.keys.pop(index))

    def apply(self) -> None:
        events = self.log.events[self.applied :]
        if events:
            before = self.log.events[self.applied - 1].digest if self.applied else GENESIS
            self.runner.advance(self.log.store_id, before, events, events[-1].digest)
            self.applied = len(self.log.events)

    async def look(self, query: MapQuery, sources: tuple[str, ...], now_us: int) -> None:
        grant = built.granted(*sources)
        looks: list[Awaitable[tuple[Position, QueryMapResponse]]] = [
            self.viewports.answer(grant, query, now_us) for _ in range(2)
        ]
        for position, response in await asyncio.gather(*looks):
            assert position == self.log.head()
            with self.model._engine.begin() as connection:
                wanted = pack(query_map(connection, grant, query))
                given_ = permitted(grant, query.sources)
                covered = CoverageReader().read(connection, given_, query.area, now_us, None)
            wanted.coverage.CopyFrom(covered)
            assert response == wanted

    def close(self) -> None:
        self.model.close()
        self.writer.dispose()


@given(st.lists(facts, min_size=1, max_size=8), st.lists(acts, min_size=2, max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_look_gets_what_the_read_model_holds(
    first: list[tuple[str, tuple[int, int], int, int]], then: list[tuple[str, object, object]]
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for fact in first:
            world.declare(fact)
        world.apply()
        try:
            asyncio.run(_live(world, then))
        finally:
            world.close()


async def _live(world: World, acts_: list[tuple[str, object, object]]) -> None:
    now_us = NEW_YEAR_US
    for act, what, who in acts_:
        event(act)
        now_us += HOUR_US
        if act == "look":
            assert isinstance(what, MapQuery)
            assert isinstance(who, tuple)
            await world.look(what, who, now_us)
        elif act == "declare":
            world.declare(what)  # type: ignore[arg-type]
            world.apply()
        else:
            world.erase(what)  # type: ignore[arg-type]
            world.apply()
