"""The gRPC servicer of analytics: request → question → answer, with what was looked at described for the record."""

import hashlib
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1 import conflicts_pb2
from planier.analytics.v1.analytics_pb2 import (
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
)
from planier.analytics.v1.tension_pb2 import QueryTensionResponse
from planier.common.v1.fact_pb2 import FactStatus
from planier.common.v1.release_pb2 import StorePosition

from services.analytics.agenda import AgendaDesk
from services.analytics.area import Area, area_of_box, area_of_polygon
from services.analytics.conflicts.desk import ConflictDesk
from services.analytics.packing import pack
from services.analytics.placement import E7, microseconds_of
from services.analytics.queries import MapQuery, fact_versions, permitted, query_map
from services.analytics.reading import ReadModel
from services.analytics.tension.desk import TensionDesk
from services.kernel.clock import from_microseconds
from services.kernel.errors import not_found
from services.kernel.rpc.call import Call

DEFAULT_LIMIT = 2000
DEFAULT_CELL_BUDGET = 5000


class AnalyticsServicer:
    """Implements planier.analytics.v1.AnalyticsService over the read model."""

    def __init__(self, model: ReadModel, conflicts: ConflictDesk, agenda: AgendaDesk, tension: TensionDesk) -> None:
        self._model = model
        self._conflicts = conflicts
        self._agenda = agenda
        self._tension = tension

    async def QueryMap(self, request: QueryMapRequest, call: Call) -> QueryMapResponse:
        """Exact features up to the limit, else exact counts by cell; empty where no asked source is permitted."""
        query, grant = question_of(request), call.granted
        _describe(request, query, call)
        call.data_position, (answer, response) = await self._model.read(
            lambda connection: (answer := query_map(connection, grant, query), pack(answer))
        )
        call.data.count = answer.total
        return response

    async def GetFact(self, request: GetFactRequest, call: Call) -> GetFactResponse:
        """The fact's versions; NOT_FOUND is the same for an unknown fact and for one the caller may not see."""
        grant = call.granted
        as_of_us = microseconds_of(request.as_of) if request.HasField("as_of") else None
        call.data.references.append(request.fact_id)
        if as_of_us is not None:
            call.data.as_of.CopyFrom(request.as_of)
        call.data_position, versions = await self._model.read(
            lambda connection: fact_versions(connection, grant, request.fact_id, as_of_us)
        )
        if not versions:
            raise not_found("FACT_UNKNOWN", "no such fact that you may see")
        call.data.sources.extend(sorted({version.fact.source for version in versions}))
        call.data.kinds.extend(sorted({version.fact.kind for version in versions}))
        call.data.count = 1
        response = GetFactResponse(fact_id=request.fact_id)
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

    async def QueryTension(self, request: QueryTensionRequest, call: Call) -> QueryTensionResponse:
        """Where facts gather beyond chance; no zone is an answer."""
        return await self._tension.answer(request, call)

    async def GetPosition(self, request: GetPositionRequest, call: Call) -> GetPositionResponse:  # noqa: ARG002
        """How far the read model has followed ingest: who has written asks until its position is reached."""
        reached = await self._model.position()
        return GetPositionResponse(
            projected=StorePosition(store_id=reached.store_id, position=reached.position, digest=reached.digest)
        )


def question_of(request: QueryMapRequest) -> MapQuery:
    """The request in the read model's words. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    return MapQuery(
        area=area_of_box(request.box) if request.HasField("box") else area_of_polygon(request.polygon),
        starts_us=microseconds_of(request.period.start),
        ends_us=microseconds_of(request.period.end),
        sources=tuple(request.sources),
        kinds=tuple(request.kinds),
        statuses=tuple(request.statuses),
        as_of_us=microseconds_of(request.as_of) if request.HasField("as_of") else None,
        changed_since_us=microseconds_of(request.changed_since) if request.HasField("changed_since") else None,
        limit=request.limit or DEFAULT_LIMIT,
        cell_budget=request.cell_budget or DEFAULT_CELL_BUDGET,
    )


def _describe(request: QueryMapRequest, query: MapQuery, call: Call) -> None:
    data = call.data
    data.sources.extend(permitted(call.granted, query.sources))
    data.kinds.extend(query.kinds)
    _set_area(call, query.area)
    data.period_start.CopyFrom(request.period.start)
    data.period_end.CopyFrom(request.period.end)
    if request.HasField("as_of"):
        data.as_of.CopyFrom(request.as_of)
    data.filters["limit"] = str(query.limit)
    if request.HasField("changed_since"):
        data.filters["changed_since"] = request.changed_since.ToJsonString()
    if query.statuses:
        data.filters["statuses"] = ",".join(FactStatus.Name(status) for status in request.statuses)
    if request.HasField("polygon"):
        data.filters["polygon_sha256"] = hashlib.sha256(
            request.polygon.SerializeToString(deterministic=True)
        ).hexdigest()


def _set_area(call: Call, area: Area) -> None:
    """A polygon is recorded by its box and its digest: the record stays small whatever was drawn."""
    recorded = call.data.area
    recorded.west, recorded.south = area.west / E7, area.south / E7
    recorded.east, recorded.north = area.east / E7, area.north / E7


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
