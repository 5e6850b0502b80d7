"""Requests in the read model's words, and what the access record says of them."""

import hashlib
from collections.abc import Iterable, Sequence

from planier.analytics.v1.analytics_pb2 import (
    CountByZoneRequest,
    FactState,
    MapFilter,
    QueryMapRequest,
    SearchFactsRequest,
    WatchMapRequest,
)
from planier.common.v1.fact_pb2 import FactStatus, Period

from services.analytics.area import Area, area_of_box, area_of_polygon
from services.analytics.placement import E7, microseconds_of
from services.analytics.queries import MapQuery, permitted
from services.analytics.search import WORLD
from services.analytics.watch import Watched
from services.kernel.rpc.call import Call

DEFAULT_LIMIT = 2000
DEFAULT_CELL_BUDGET = 5000
DEFAULT_HITS = 50
# Before the year 1 and after the year 9999: a search without a period is about always.
_ALWAYS = (-(2**62), 2**62)


def map_query(request: QueryMapRequest, now_us: int) -> MapQuery:
    """A map question. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    as_of_us = moment_of(request)
    state_at_us = microseconds_of(request.state_at) if request.HasField("state_at") else as_of_us
    return MapQuery(
        area=area_of(request),
        starts_us=microseconds_of(request.period.start),
        ends_us=microseconds_of(request.period.end),
        sources=tuple(request.sources),
        kinds=tuple(request.kinds),
        statuses=tuple(request.statuses),
        as_of_us=as_of_us,
        changed_since_us=microseconds_of(request.changed_since) if request.HasField("changed_since") else None,
        limit=request.limit or DEFAULT_LIMIT,
        cell_budget=request.cell_budget or DEFAULT_CELL_BUDGET,
        states=tuple(request.states),
        state_at_us=now_us if state_at_us is None else state_at_us,
        nothing=bool(request.empty_filters),
    )


def zone_query(request: CountByZoneRequest, area: Area) -> MapQuery:
    """A question about a layer's whole box."""
    return MapQuery(
        area=area,
        starts_us=microseconds_of(request.period.start),
        ends_us=microseconds_of(request.period.end),
        sources=tuple(request.sources),
        kinds=tuple(request.kinds),
        as_of_us=moment_of(request),
    )


def search_query(request: SearchFactsRequest, area: Area | None) -> MapQuery:
    """A search's area, period and sources; `area` where the request names a place."""
    asked = area_of(request) if request.HasField("box") or request.HasField("polygon") else None
    starts_us, ends_us = _ALWAYS
    if request.HasField("period"):
        starts_us, ends_us = microseconds_of(request.period.start), microseconds_of(request.period.end)
    return MapQuery(
        area=area or asked or WORLD,
        starts_us=starts_us,
        ends_us=ends_us,
        sources=tuple(request.sources),
        as_of_us=moment_of(request),
        limit=request.limit or DEFAULT_HITS,
    )


def watched_of(request: WatchMapRequest) -> Watched:
    """What a watch is about. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    return Watched(area_of(request), tuple(request.sources), tuple(request.kinds))


def area_of(request: QueryMapRequest | WatchMapRequest | SearchFactsRequest) -> Area:
    """The box or the polygon. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    return area_of_box(request.box) if request.HasField("box") else area_of_polygon(request.polygon)


def moment_of(request: QueryMapRequest | SearchFactsRequest | CountByZoneRequest) -> int | None:
    """The past moment asked about, in microseconds."""
    return microseconds_of(request.as_of) if request.HasField("as_of") else None


def describe_map(request: QueryMapRequest, query: MapQuery, call: Call) -> None:
    """What the record says of a map question."""
    filters = call.data.filters
    describe(call, query.sources, query.kinds, query.area, request.period)
    note_moment(call, request)
    filters["limit"] = str(query.limit)
    if request.HasField("changed_since"):
        filters["changed_since"] = request.changed_since.ToJsonString()
    if query.statuses:
        filters["statuses"] = ",".join(FactStatus.Name(status) for status in request.statuses)
    if query.states:
        filters["states"] = ",".join(FactState.Name(state) for state in request.states)
        if request.HasField("state_at"):
            filters["state_at"] = request.state_at.ToJsonString()
    if query.nothing:
        filters["empty"] = ",".join(MapFilter.Name(name) for name in request.empty_filters)
    note_polygon(call, request)


def describe(
    call: Call, sources: Sequence[str], kinds: Iterable[str], area: Area | None, period: Period | None
) -> None:
    """Sources, kinds, area and period; a polygon by its box, so that the record stays small whatever was drawn."""
    data = call.data
    data.sources.extend(permitted(call.granted, sources))
    data.kinds.extend(kinds)
    if area is not None:
        data.area.west, data.area.south = area.west / E7, area.south / E7
        data.area.east, data.area.north = area.east / E7, area.north / E7
    if period is not None:
        data.period_start.CopyFrom(period.start)
        data.period_end.CopyFrom(period.end)


def note_moment(call: Call, request: QueryMapRequest | SearchFactsRequest | CountByZoneRequest) -> None:
    """The past moment, where one was asked about."""
    if request.HasField("as_of"):
        call.data.as_of.CopyFrom(request.as_of)


def note_polygon(call: Call, request: QueryMapRequest | WatchMapRequest | SearchFactsRequest) -> None:
    """A polygon's digest."""
    if request.HasField("polygon"):
        drawn = request.polygon.SerializeToString(deterministic=True)
        call.data.filters["polygon_sha256"] = hashlib.sha256(drawn).hexdigest()
