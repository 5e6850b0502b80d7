"""The RPCs of the map: question, answer with what it does not know, and what the record says was looked at."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from planier.analytics.v1.analytics_pb2 import (
    CountByZoneRequest,
    CountByZoneResponse,
    QueryMapRequest,
    QueryMapResponse,
    SearchFactsRequest,
    SearchFactsResponse,
    WatchMapRequest,
    WatchMapResponse,
)
from sqlalchemy import Connection

from services.analytics import asking
from services.analytics.coverage import CoverageReader
from services.analytics.packing import pack
from services.analytics.places import ZoneAnswers
from services.analytics.queries import permitted, query_map
from services.analytics.reading import ReadModel
from services.analytics.signal import Signal
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE, Minimums
from services.analytics.watching import Watches, not_asked
from services.kernel.clock import Clock, SystemClock, microseconds
from services.kernel.layers import LayerFolder
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position


class MapDesk:
    """Map, search, counts by zone and watches over one read model."""

    def __init__(
        self,
        model: ReadModel,
        *,
        clock: Clock | None = None,
        minimums: Minimums = NONE,
        snapshot: Snapshot | None = None,
        layers: LayerFolder | None = None,
        signal: Signal | None = None,
        has: Callable[[Position], Awaitable[bool]] = not_asked,
    ) -> None:
        self._model = model
        self._clock = clock or SystemClock()
        self._minimums = minimums
        self._snapshot = snapshot
        self._coverage = CoverageReader()
        self._zones = ZoneAnswers(model, self._clock, self._coverage, minimums, snapshot, layers)
        self._watches = Watches(model, signal or Signal(), has)

    async def query(self, request: QueryMapRequest, call: Call) -> QueryMapResponse:
        """Exact features up to the limit, else exact counts by cell; empty where no asked source is permitted."""
        now_us = microseconds(self._clock.now())
        query, grant = asking.map_query(request, now_us), call.granted
        asking.describe_map(request, query, call)

        def answer(connection: Connection) -> QueryMapResponse:
            response = pack(query_map(connection, grant, query, self._minimums, self._snapshot))
            sources = permitted(grant, query.sources)
            covered = self._coverage.read(connection, sources, query.area, now_us, query.as_of_us)
            response.coverage.CopyFrom(covered)
            return response

        call.data_position, response = await self._model.read(answer)
        call.data.count = response.total
        return response

    async def search(self, request: SearchFactsRequest, call: Call) -> SearchFactsResponse:
        """Facts by words and place, best first."""
        return await self._zones.search(request, call)

    async def count(self, request: CountByZoneRequest, call: Call) -> CountByZoneResponse:
        """Counts by zone of a reference layer."""
        return await self._zones.count(request, call)

    def watch(self, request: WatchMapRequest, call: Call) -> AsyncGenerator[WatchMapResponse, None]:
        """Changes within an area after a cursor, without end."""
        return self._watches.watch(request, call)
