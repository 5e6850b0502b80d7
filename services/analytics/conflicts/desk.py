"""Where conflicts are asked for and acted on: requests in the domain's words, and what the record says of each."""

import asyncio
import math
from collections.abc import Callable, Sequence

from planier.analytics.v1 import conflicts_pb2 as pb
from planier.analytics.v1.analytics_pb2 import GetAgendaRequest, QueryConflictsRequest, QueryConflictsResponse
from planier.analytics.v1.coverage_pb2 import Coverage
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, Purpose
from sqlalchemy import Connection

from services.analytics.area import Area, area_of_box, area_of_polygon
from services.analytics.conflicts.queries import ConflictQuery, Known, find_conflict, query_conflicts
from services.analytics.conflicts.register import Register
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.standing import state_of
from services.analytics.coverage import CoverageReader
from services.analytics.domain import Acknowledge, Actor, Command, Resolve, Seen
from services.analytics.placement import E7, microseconds_of, shape_of
from services.analytics.queries import permitted
from services.analytics.reading import ReadModel
from services.kernel.clock import Clock, microseconds
from services.kernel.errors import denied, not_found
from services.kernel.guard.grant import Grant
from services.kernel.rpc.call import Call

DEFAULT_LIMIT = 500


class ConflictDesk:
    """Answers on conflicts and takes people's steps; both under the purpose of crossing (art5.cross)."""

    def __init__(
        self, model: ReadModel, register: Register, rules: Rules, coverage: CoverageReader, clock: Clock
    ) -> None:
        self._model = model
        self._register = register
        self._rules = rules
        self._coverage = coverage
        self._clock = clock

    async def query(self, request: QueryConflictsRequest, call: Call) -> QueryConflictsResponse:
        """The conflicts of the granted sources in area and period, the earliest first, up to the limit."""
        require_purpose(call, PURPOSE_CROSSING)
        query, grant, rules = _query_of(request), call.granted, self._rules
        _describe(request, query, call)
        steps = await asyncio.to_thread(self._register.current)
        sources = sorted(rules.sources_of(query.rules).intersection(permitted(grant, request.sources)))
        now_us = microseconds(self._clock.now())

        def answer(connection: Connection) -> tuple[Sequence[pb.Conflict], Coverage]:
            found = query_conflicts(connection, grant, rules, steps, query)
            return found, self._coverage.read(connection, sources, query.area, now_us, query.as_of_us)

        call.data_position, (found, coverage) = await self._model.read(answer)
        shown = found[: request.limit or DEFAULT_LIMIT]
        call.data.count = len(found)
        call.data.references.extend(conflict.conflict_id for conflict in shown)
        return QueryConflictsResponse(conflicts=shown, total=len(found), rules_version=rules.version, coverage=coverage)

    def describe(self, request: pb.AcknowledgeConflictRequest | pb.ResolveConflictRequest, call: Call) -> None:
        """The record of a step names its conflict."""
        require_purpose(call, PURPOSE_CROSSING)
        call.data.references.append(request.conflict_id)

    async def acknowledge(self, request: pb.AcknowledgeConflictRequest, call: Call) -> pb.AcknowledgeConflictResponse:
        """Keeps that the caller has seen the conflict. Raises NOT_FOUND, FAILED_PRECONDITION CONFLICT_CHANGED."""

        def command(seen: Seen) -> Command:
            return Acknowledge(_actor(call.granted), seen, request.fingerprint)

        state, coverage = await self._act(request.conflict_id, call, command)
        return pb.AcknowledgeConflictResponse(state=state, coverage=coverage)

    async def resolve(self, request: pb.ResolveConflictRequest, call: Call) -> pb.ResolveConflictResponse:
        """Keeps which measure resolves the conflict; its kind must be one that the rule names."""
        measure = request.measure

        def command(seen: Seen) -> Command:
            return Resolve(_actor(call.granted), seen, request.fingerprint, measure.kind, measure.reference)

        state, coverage = await self._act(request.conflict_id, call, command)
        return pb.ResolveConflictResponse(state=state, coverage=coverage)

    async def _act(
        self, conflict_id: str, call: Call, command: Callable[[Seen], Command]
    ) -> tuple[pb.ConflictState.ValueType, Coverage]:
        grant, rules, now_us = call.granted, self._rules, microseconds(self._clock.now())

        def look(connection: Connection) -> tuple[Known | None, Coverage]:
            found = find_conflict(connection, grant, rules, conflict_id)
            if found is None:
                return None, Coverage()
            sources = sorted(rules.sources_of((found.rule.rule_id,)).intersection(permitted(grant, ())))
            return found, self._coverage.read(connection, sources, _place_of(found.conflict), now_us, None)

        _, (found, coverage) = await self._model.read(look)
        if found is None:
            raise not_found("CONFLICT_UNKNOWN", "no such conflict that you may see")
        seen, traceparent = _seen(found), call.invocation.traceparent
        # The effect must be known even where the caller goes away.
        history = await asyncio.shield(asyncio.to_thread(self._register.execute, command(seen), traceparent))
        return state_of(seen.fingerprint, history, seen.withdrawn), coverage


def require_purpose(call: Call, purpose: Purpose.ValueType) -> None:
    """Raises Problem PERMISSION_DENIED where the caller looks for another purpose than the answer serves."""
    if call.granted.purpose != purpose:
        name = Purpose.Name(purpose).removeprefix("PURPOSE_")
        raise denied("PURPOSE_MISMATCH", f"this answer serves the purpose {name} only", "art6.purpose")


def area_of(request: QueryConflictsRequest | GetAgendaRequest) -> Area | None:
    """The area asked for, if any. Raises Problem INVALID_ARGUMENT AREA_INVALID."""
    if request.HasField("box"):
        return area_of_box(request.box)
    return area_of_polygon(request.polygon) if request.HasField("polygon") else None


def describe_look(request: QueryConflictsRequest | GetAgendaRequest, area: Area | None, call: Call) -> None:
    """What every look at crossed facts says of itself: sources, area by its box, instant."""
    call.data.sources.extend(permitted(call.granted, request.sources))
    if area is not None:
        recorded = call.data.area
        recorded.west, recorded.south = area.west / E7, area.south / E7
        recorded.east, recorded.north = area.east / E7, area.north / E7
    if request.HasField("as_of"):
        call.data.as_of.CopyFrom(request.as_of)


def _query_of(request: QueryConflictsRequest) -> ConflictQuery:
    return ConflictQuery(
        starts_us=microseconds_of(request.period.start),
        ends_us=microseconds_of(request.period.end),
        area=area_of(request),
        rules=tuple(request.rules),
        states=tuple(request.states),
        as_of_us=microseconds_of(request.as_of) if request.HasField("as_of") else None,
    )


def _describe(request: QueryConflictsRequest, query: ConflictQuery, call: Call) -> None:
    describe_look(request, query.area, call)
    data = call.data
    data.period_start.CopyFrom(request.period.start)
    data.period_end.CopyFrom(request.period.end)
    data.filters["limit"] = str(request.limit or DEFAULT_LIMIT)
    if query.rules:
        data.filters["rules"] = ",".join(query.rules)
    if query.states:
        data.filters["states"] = ",".join(pb.ConflictState.Name(state) for state in query.states)


def _seen(found: Known) -> Seen:
    conflict = found.conflict
    return Seen(conflict.conflict_id, conflict.fingerprint, found.rule.answers, found.withdrawn)


def _place_of(conflict: pb.Conflict) -> Area:
    west, south, east, north = shape_of(conflict.overlap).bounds
    return Area(math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7))


def _actor(grant: Grant) -> Actor:
    subject = grant.subject
    return Actor(subject.issuer, subject.subject, grant.party, grant.organisation, grant.record_id)
