"""The servicer over a real read model: what is answered, and what the record will say was looked at."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from planier.analytics.v1 import analytics_pb2 as pb
from planier.common.v1 import fact_pb2

from services.analytics.projections import FactProjection
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.wiring import open_for_writing
from services.kernel.clock import SystemClock
from services.kernel.errors import Problem
from services.kernel.guard.options import methods_of
from services.kernel.projection import ProjectionRunner
from services.kernel.rpc.call import Call, Invocation
from services.kernel.store.base import GENESIS
from services.kernel.store.opening import open_store
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog

TERRITORY = Path("deploy/territory/marseille.json")
METHODS = {method.name: method for method in methods_of(pb.DESCRIPTOR.services_by_name["AnalyticsService"])}
BOX = pb.BoundingBox(west=5.2, south=43.1, east=5.6, north=43.4)


def call_of(method: str, *sources: str) -> Call:
    return Call(Invocation(METHODS[method], "", "", "", "", ""), built.granted(*sources) if sources else None)


@pytest.fixture
def log() -> IngestLog:
    """Works that were amended then cancelled, and a demonstration."""
    log = IngestLog()
    key = log.declare(built.fact("a", title="Rue de la République"))
    log.amend(built.fact("a", revision=2, status=fact_pb2.FACT_STATUS_CONFIRMED))
    log.declare(built.fact("b", source="demonstrations", kind="PROTEST_MARCH"))
    log.cancel(key, 3)
    return log


@pytest.fixture
async def servicer(log: IngestLog, tmp_path: Path) -> AsyncIterator[AnalyticsServicer]:
    """The servicer over a read model that stands at the end of the log."""
    url = f"sqlite:///{tmp_path}/analytics.db"
    writer = open_for_writing(url)
    ProjectionRunner(writer, FactProjection()).advance(log.store_id, GENESIS, log.events, log.head().digest)
    model = ReadModel(open_for_reading(url), lambda: True)
    store = open_store(f"sqlite:///{tmp_path}/steps.db", clock=SystemClock())
    yield AnalyticsServicer(model, built.desks(model, store))
    model.close()
    store.close()
    writer.dispose()


def request(**more: object) -> pb.QueryMapRequest:
    asked = pb.QueryMapRequest(box=BOX, **more)  # type: ignore[arg-type]
    asked.period.CopyFrom(built.period(NEW_YEAR_US, NEW_YEAR_US + HOUR_US))
    return asked


async def test_a_map_answer_cites_the_position_it_was_read_at_and_describes_the_look(
    servicer: AnalyticsServicer, log: IngestLog
) -> None:
    call = call_of("QueryMap", "works", "markets")
    asked = request(sources=["works", "demonstrations"], statuses=[fact_pb2.FACT_STATUS_CANCELLED])
    response = await servicer.QueryMap(asked, call)
    assert (response.total, list(response.features.sources)) == (1, ["works"])
    assert list(response.features.instruments) == ["city-rules"]
    assert call.data_position == log.head()
    assert (list(call.data.sources), call.data.count) == (["works"], 1)
    assert (call.data.area.west, call.data.area.north) == (5.2, 43.4)
    assert call.data.period_start == asked.period.start
    assert dict(call.data.filters) == {"limit": "2000", "statuses": "FACT_STATUS_CANCELLED"}


async def test_only_sources_that_are_not_permitted_give_an_empty_map(servicer: AnalyticsServicer) -> None:
    call = call_of("QueryMap", "works")
    response = await servicer.QueryMap(request(sources=["demonstrations"]), call)
    assert response.total == 0
    assert response.WhichOneof("content") == "features"
    assert list(call.data.sources) == []


async def test_more_than_the_limit_gives_cells_whose_sum_is_the_total(servicer: AnalyticsServicer) -> None:
    response = await servicer.QueryMap(request(limit=1), call_of("QueryMap", "works", "demonstrations"))
    assert response.WhichOneof("content") == "cells"
    assert (response.total, sum(response.cells.counts)) == (2, 2)


async def test_a_fact_comes_with_its_history(servicer: AnalyticsServicer) -> None:
    key, call = built.fact_id("works", "a"), call_of("GetFact", "works")
    response = await servicer.GetFact(pb.GetFactRequest(fact_id=key), call)
    assert [version.change for version in response.versions] == [
        pb.CHANGE_KIND_DECLARED,
        pb.CHANGE_KIND_AMENDED,
        pb.CHANGE_KIND_CANCELLED,
    ]
    assert [version.fact.revision for version in response.versions] == [1, 2, 3]
    assert [version.position for version in response.versions] == [1, 2, 4]
    assert response.versions[2].fact.status == fact_pb2.FACT_STATUS_CANCELLED
    assert (list(call.data.references), list(call.data.kinds)) == ([key], ["ROAD_WORKS"])


async def test_a_fact_as_of_an_instant_ends_its_history_there(servicer: AnalyticsServicer, log: IngestLog) -> None:
    asked = pb.GetFactRequest(fact_id=built.fact_id("works", "a"))
    asked.as_of.FromMicroseconds(log.events[1].recorded_at_us)
    response = await servicer.GetFact(asked, call_of("GetFact", "works"))
    assert len(response.versions) == 2
    asked.as_of.FromMicroseconds(log.events[0].recorded_at_us - 1)
    with pytest.raises(Problem) as absent:
        await servicer.GetFact(asked, call_of("GetFact", "works"))
    assert absent.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_fact_that_is_not_permitted_is_as_unknown_as_one_that_is_not_there(servicer: AnalyticsServicer) -> None:
    problems = []
    for key in (built.fact_id("demonstrations", "b"), "0" * 32):
        call = call_of("GetFact", "works")
        with pytest.raises(Problem) as refused:
            await servicer.GetFact(pb.GetFactRequest(fact_id=key), call)
        problems.append((refused.value.code, refused.value.reason, refused.value.message))
        # The look is recorded all the same, by the id that was asked for.
        assert list(call.data.references) == [key]
        assert not call.data.kinds
    assert problems[0] == problems[1]


async def test_the_position_is_given_to_whoever_waits_for_a_write(servicer: AnalyticsServicer, log: IngestLog) -> None:
    response = await servicer.GetPosition(pb.GetPositionRequest(), call_of("GetPosition"))
    head = log.head()
    assert (response.projected.store_id, response.projected.position) == (head.store_id, head.position)
    assert response.projected.digest == head.digest


async def test_an_area_whose_rings_cross_is_refused(servicer: AnalyticsServicer) -> None:
    crossing = built.polygon((5.3, 43.2), (5.4, 43.3), (5.4, 43.2), (5.3, 43.3))
    asked = request()
    asked.polygon.CopyFrom(crossing)
    with pytest.raises(Problem, match="AREA_INVALID"):
        await servicer.QueryMap(asked, call_of("QueryMap", "works"))
