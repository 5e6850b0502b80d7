"""The box that a request names reaches access's decision: a clearance bounded to areas permits no look outside them."""

from planier.access.v1.events_pb2 import Area
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest, QueryMapResponse
from planier.common.v1.fact_pb2 import Polygon

from services.kernel.rpc.call import Call
from tests.fixtures.guard import Bench, consultation

BOX = BoundingBox(west=5.3, south=43.2, east=5.4, north=43.3)


async def asked(request: QueryMapRequest) -> Bench:
    async def query(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        return QueryMapResponse()

    bench = Bench()
    await bench.guard.unary(bench.call("QueryMap"), request, query)
    return bench


async def test_the_box_of_a_look_is_asked_about_and_recorded_with_the_decision() -> None:
    bench = await asked(QueryMapRequest(consultation=consultation(), box=BOX))
    assert bench.access.items[0].area == Area(west=5.3, south=43.2, east=5.4, north=43.3)
    stated = bench.log.records[0].decision.area_asked
    assert (stated.west, stated.south, stated.east, stated.north) == (5.3, 43.2, 5.4, 43.3)


async def test_a_look_that_names_no_box_states_none() -> None:
    for request in (QueryMapRequest(consultation=consultation()), QueryMapRequest(polygon=Polygon())):
        request.consultation.CopyFrom(consultation())
        assert not (await asked(request)).access.items[0].HasField("area")
