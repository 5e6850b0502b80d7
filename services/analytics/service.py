"""The gRPC servicer of analytics: request → question → answer, with what was looked at described for the record."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1 import conflicts_pb2
from planier.analytics.v1.analytics_pb2 import (
    CountByZoneRequest,
    CountByZoneResponse,
    FactVersion,
    GetAgendaRequest,
    GetAgendaResponse,
    GetFactRequest,
    GetFactResponse,
    GetPositionRequest,
    GetPositionResponse,
    QueryConflictsRequest,
    QueryConflictsResponse,
    QueryMapRequest,
    QueryMapResponse,
    QueryTensionRequest,
    SearchFactsRequest,
    SearchFactsResponse,
    WatchMapRequest,
    WatchMapResponse,
)
from planier.analytics.v1.coverage_pb2 import Coverage
from planier.analytics.v1.tension_pb2 import QueryTensionResponse
from planier.common.v1.release_pb2 import StorePosition
from sqlalchemy import Connection

from services.analytics import asking
from services.analytics.desks import Desks
from services.analytics.placement import microseconds_of
from services.analytics.places import ZoneAnswers
from services.analytics.plain import is_plain_map
from services.analytics.queries import KnownVersion, fact_versions
from services.analytics.reading import ReadModel
from services.analytics.signal import Signal
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE, Minimums
from services.analytics.viewports import Viewports
from services.analytics.watching import Watches, not_asked
from services.kernel.clock import Clock, SystemClock, from_microseconds, microseconds
from services.kernel.errors import not_found
from services.kernel.layers import LayerFolder
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position


class AnalyticsServicer:
    """Implements planier.analytics.v1.AnalyticsService over the read model."""

    def __init__(
        self,
        model: ReadModel,
        desks: Desks,
        *,
        clock: Clock | None = None,
        minimums: Minimums = NONE,
        snapshot: Snapshot | None = None,
        layers: LayerFolder | None = None,
        signal: Signal | None = None,
        has: Callable[[Position], Awaitable[bool]] = not_asked,
    ) -> None:
        self._model = model
        self._tension, self._conflicts, self._agenda = desks.tension, desks.conflicts, desks.agenda
        self._clock = clock or SystemClock()
        self._coverage = desks.coverage
        self._viewports = Viewports(model, desks.coverage, minimums, snapshot)
        self._zones = ZoneAnswers(model, self._clock, self._coverage, minimums, snapshot, layers)
        signal = signal or Signal()
        signal.tell(self._viewports.forget)
        self._watches = Watches(model, signal, has, self._coverage, self._clock)

    async def QueryMap(self, request: QueryMapRequest, call: Call) -> QueryMapResponse:
        """Exact features up to the limit, else exact counts by cell; empty where no asked source is permitted."""
        now_us = microseconds(self._clock.now())
        query, grant = asking.map_query(request, now_us), call.granted
        asking.describe_map(request, query, call)
        call.data_position, response = await self._viewports.answer(grant, query, now_us)
        call.data.count = response.total
        return response

    def recognise_QueryMap(self, request: QueryMapRequest) -> bool:
        """Whether the request surely keeps the rules of its contract: the common one is spared their evaluation."""
        return is_plain_map(request)

    async def GetFact(self, request: GetFactRequest, call: Call) -> GetFactResponse:
        """The fact's versions; NOT_FOUND is the same for an unknown fact and for one the caller may not see."""
        grant = call.granted
        as_of_us = microseconds_of(request.as_of) if request.HasField("as_of") else None
        call.data.references.append(request.fact_id)
        if as_of_us is not None:
            call.data.as_of.CopyFrom(request.as_of)
        now_us = microseconds(self._clock.now())

        def answer(connection: Connection) -> tuple[Sequence[KnownVersion], Coverage]:
            found = fact_versions(connection, grant, request.fact_id, as_of_us)
            sources = sorted({version.fact.source for version in found})
            return found, self._coverage.read(connection, sources, None, now_us, as_of_us)

        call.data_position, (versions, coverage) = await self._model.read(answer)
        if not versions:
            raise not_found("FACT_UNKNOWN", "no such fact that you may see")
        call.data.sources.extend(sorted({version.fact.source for version in versions}))
        call.data.kinds.extend(sorted({version.fact.kind for version in versions}))
        call.data.count = 1
        response = GetFactResponse(fact_id=request.fact_id, coverage=coverage)
        for version in versions:
            recorded_at = _timestamp(from_microseconds(version.recorded_us))
            response.versions.append(
                FactVersion(
                    fact=version.fact,
                    change=version.change,
                    recorded_at=recorded_at,
                    position=version.position,
                )
            )
        return response

    async def QueryTension(self, request: QueryTensionRequest, call: Call) -> QueryTensionResponse:
        """Where facts gather beyond chance; no zone is an answer."""
        return await self._tension.answer(request, call)

    async def QueryConflicts(self, request: QueryConflictsRequest, call: Call) -> QueryConflictsResponse:
        """Facts that do not go together, and what people did about it."""
        return await self._conflicts.query(request, call)

    def describe_AcknowledgeConflict(self, request: conflicts_pb2.AcknowledgeConflictRequest, call: Call) -> None:
        """The record names the conflict."""
        self._conflicts.describe(request, call)

    async def AcknowledgeConflict(
        self, request: conflicts_pb2.AcknowledgeConflictRequest, call: Call
    ) -> conflicts_pb2.AcknowledgeConflictResponse:
        """The caller has seen the conflict and takes it on."""
        return await self._conflicts.acknowledge(request, call)

    def describe_ResolveConflict(self, request: conflicts_pb2.ResolveConflictRequest, call: Call) -> None:
        """The record names the conflict."""
        self._conflicts.describe(request, call)

    async def ResolveConflict(
        self, request: conflicts_pb2.ResolveConflictRequest, call: Call
    ) -> conflicts_pb2.ResolveConflictResponse:
        """The caller says which measure resolves the conflict."""
        return await self._conflicts.resolve(request, call)

    async def GetAgenda(self, request: GetAgendaRequest, call: Call) -> GetAgendaResponse:
        """Day by day what happens and what deserves attention."""
        return await self._agenda.agenda(request, call)

    async def SearchFacts(self, request: SearchFactsRequest, call: Call) -> SearchFactsResponse:
        """Facts by words and place, best first."""
        return await self._zones.search(request, call)

    async def CountByZone(self, request: CountByZoneRequest, call: Call) -> CountByZoneResponse:
        """Counts by zone of a reference layer."""
        return await self._zones.count(request, call)

    def WatchMap(self, request: WatchMapRequest, call: Call) -> AsyncGenerator[WatchMapResponse, None]:
        """Changes within an area after a cursor, without end."""
        return self._watches.watch(request, call)

    async def GetPosition(self, request: GetPositionRequest, call: Call) -> GetPositionResponse:  # noqa: ARG002
        """How far the read model has followed ingest: who has written asks until its position is reached."""
        reached = await self._model.position()
        return GetPositionResponse(
            projected=StorePosition(store_id=reached.store_id, position=reached.position, digest=reached.digest)
        )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
