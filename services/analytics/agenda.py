"""The agenda: what happens day by day, what deserves attention, and what changed since the reader last looked.

Which kinds are events of the agenda is data (conflicts/rules.json). Days are the territory's.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from planier.analytics.v1 import agenda_pb2 as pb
from planier.analytics.v1.analytics_pb2 import GetAgendaRequest, GetAgendaResponse
from planier.analytics.v1.conflicts_pb2 import Conflict
from planier.common.v1 import fact_pb2
from planier.common.v1.release_pb2 import PURPOSE_SITUATION
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.attention import Event, of_day, of_event, surroundings_of
from services.analytics.bulk import in_chunks
from services.analytics.conflicts.desk import area_of, describe_look, require_purpose
from services.analytics.conflicts.queries import ConflictQuery, query_conflicts
from services.analytics.conflicts.register import Register, Steps
from services.analytics.conflicts.rules import Rules, matches
from services.analytics.conflicts.standing import windows_of as conflict_windows
from services.analytics.conflicts.subjects import IDLE, Metres, windows_of
from services.analytics.conflicts.windows import Window, Windows, common, meets
from services.analytics.coverage import CoverageReader
from services.analytics.placement import E7, microseconds_of, place
from services.analytics.queries import MapQuery, permitted, query_map
from services.analytics.reading import ReadModel
from services.kernel.clock import Clock, microseconds
from services.kernel.errors import Violation, invalid, precondition
from services.kernel.guard.grant import Grant
from services.kernel.instants import is_instant
from services.kernel.rpc.call import Call
from services.kernel.territory import Territory

DEFAULT_DAYS: Final = 30
MOST_EVENTS: Final = 20_000
# As instants (kernel/instants.py): local days beyond do not fit a contract's timestamps.
_FIRST_YEAR, _LAST_YEAR = 2, 9989
_WORLD: Final = Area(-180 * E7, -90 * E7, 180 * E7, 90 * E7)
_HISTORIES: Final = (
    "SELECT h.fact_id, v.position, v.recorded_us, v.body FROM fact_history h"
    " JOIN fact_versions v ON v.position = h.position WHERE h.fact_id IN (@)"
)


@dataclass(frozen=True, slots=True)
class AgendaQuery:
    """Days as half-open windows of microseconds, ascending and contiguous; an empty filter means all."""

    days: tuple[tuple[date, Window], ...]
    area: Area | None = None
    sources: tuple[str, ...] = ()
    as_of_us: int | None = None
    changed_since_us: int | None = None

    @property
    def span(self) -> Window:
        """From the first day's beginning to the last day's end."""
        return self.days[0][1][0], self.days[-1][1][1]


@dataclass(frozen=True, slots=True)
class Known:
    """A fact as it was known then, and as it was known before `changed_since`, if it was."""

    fact_id: str
    recorded_us: int
    fact: fact_pb2.Fact
    before: fact_pb2.Fact | None


class AgendaDesk:
    """Answers GetAgenda, under the purpose of knowing the situation."""

    def __init__(
        self,
        model: ReadModel,
        register: Register,
        rules: Rules,
        territory: Territory,
        clock: Clock,
        coverage: CoverageReader,
    ) -> None:
        self._model = model
        self._register = register
        self._rules = rules
        self._territory = territory
        self._zone = ZoneInfo(territory.time_zone)
        self._metres = Metres(territory.epsg)
        self._clock = clock
        self._coverage = coverage

    async def agenda(self, request: GetAgendaRequest, call: Call) -> GetAgendaResponse:
        """The days asked for, the coming 30 by default. Raises INVALID_ARGUMENT DAY_INVALID, AREA_INVALID."""
        require_purpose(call, PURPOSE_SITUATION)
        query, grant = self._query_of(request), call.granted
        _describe(request, query, call)
        steps = await asyncio.to_thread(self._register.current)
        call.data_position, response = await self._model.read(
            lambda connection: self._answer(connection, grant, steps, query)
        )
        call.data.count = len(response.entries)
        return response

    def _query_of(self, request: GetAgendaRequest) -> AgendaQuery:
        as_of_us = microseconds_of(request.as_of) if request.HasField("as_of") else None
        if as_of_us is not None and not is_instant(request.as_of):
            raise invalid("AS_OF_INVALID", "this is no instant", Violation("as_of", "instant", "must be an instant"))
        now = self._clock.now() if as_of_us is None else request.as_of.ToDatetime(UTC)
        first = _day(request.first_day) if request.first_day else now.astimezone(self._zone).date()
        return AgendaQuery(
            days=days_of(first, request.days or DEFAULT_DAYS, self._zone),
            area=area_of(request),
            sources=tuple(request.sources),
            as_of_us=as_of_us,
            changed_since_us=microseconds_of(request.changed_since) if request.HasField("changed_since") else None,
        )

    def _answer(self, connection: Connection, grant: Grant, steps: Steps, query: AgendaQuery) -> GetAgendaResponse:
        known = known_events(connection, grant, self._rules.agenda, query)
        conflicts = query_conflicts(
            connection, grant, self._rules, steps, ConflictQuery(*query.span, as_of_us=query.as_of_us)
        )
        everywhere = replace(query, sources=(), changed_since_us=None, area=None)
        warnings = known_events(connection, grant, self._rules.weather_warnings, everywhere)
        response = self._packed(query, known, conflicts, [one for one in warnings if one.fact.status not in IDLE])
        sources, now_us = self._sources(grant, query), microseconds(self._clock.now())
        response.coverage.CopyFrom(self._coverage.read(connection, sources, query.area, now_us, query.as_of_us))
        return response

    def _sources(self, grant: Grant, query: AgendaQuery) -> list[str]:
        """Entries come from the sources asked for; conflicts and warnings from every granted one."""
        entries = _sources_of(self._rules.agenda).intersection(permitted(grant, query.sources))
        factors = (self._rules.sources | _sources_of(self._rules.weather_warnings)) & grant.sources
        return sorted(entries | factors)

    def _packed(
        self, query: AgendaQuery, known: Sequence[Known], conflicts: Sequence[Conflict], warnings: Sequence[Known]
    ) -> GetAgendaResponse:
        """Factors are those of all that takes place; entries are what was asked for, in order of their beginning."""
        coming, gone = _events(known, conflicts, query.span)
        events = [event for _, event in coming]
        around = surroundings_of(events, [(one.fact_id, one.fact) for one in warnings], self._metres)
        response = GetAgendaResponse()
        number: dict[int, int] = {}
        for place_, (one, event) in enumerate(coming):
            if query.changed_since_us is None or change_of(one):
                number[place_] = len(response.entries)
                entry = self._entry(one, query, [conflict for conflict, _ in event.conflicts])
                entry.factors.extend(of_event(place_, events, around))
                response.entries.append(entry)
        if query.changed_since_us is not None:
            response.entries.extend(self._entry(one, query, ()) for one in gone if change_of(one))
        for day, window in query.days:
            places = [place_ for place_, event in enumerate(events) if meets(event.windows, window)]
            response.days.add(
                day=day.isoformat(),
                entries=[number[place_] for place_ in places if place_ in number],
                factors=of_day(window, places, events, around),
            )
        return response

    def _entry(self, one: Known, query: AgendaQuery, conflicts: Iterable[Conflict]) -> pb.AgendaEntry:
        fact, where = one.fact, place(one.fact)
        entry = pb.AgendaEntry(
            fact_id=one.fact_id,
            source=fact.source,
            kind=fact.kind,
            title=fact.title,
            status=fact.status,
            revision=fact.revision,
            geometry=fact.geometry,
            place=self._territory.nearest(where.longitude / E7, where.latitude / E7).name,
            periods=fact.periods,
            attendance=fact.attendance if fact.HasField("attendance") else None,
            measures=fact.measures,
            conflict_ids=[conflict.conflict_id for conflict in conflicts],
            change=change_of(one) if query.changed_since_us is not None else pb.AGENDA_CHANGE_UNSPECIFIED,
        )
        entry.recorded_at.FromMicroseconds(one.recorded_us)
        return entry


def days_of(first: date, count: int, zone: ZoneInfo) -> tuple[tuple[date, Window], ...]:
    """Consecutive days of a zone; the one on which clocks change lasts 23 or 25 hours."""
    days = [first + timedelta(days=number) for number in range(count + 1)]
    edges = [microseconds(datetime(day.year, day.month, day.day, tzinfo=zone)) for day in days]
    return tuple(zip(days, pairwise(edges), strict=False))


def known_events(connection: Connection, grant: Grant, kinds: Collection[str], query: AgendaQuery) -> list[Known]:
    """The facts of these kinds in area and span, by id; with `changed_since`, those that were in them before too."""
    sources = sorted(_sources_of(kinds).intersection(permitted(grant, query.sources)))
    if not sources:
        return []
    start, end = query.span
    now = MapQuery(
        query.area or _WORLD, start, end, tuple(sources), as_of_us=query.as_of_us, limit=MOST_EVENTS, cell_budget=1
    )
    wanted = _fact_ids(connection, grant, now)
    if query.changed_since_us is not None:
        wanted |= _fact_ids(connection, grant, replace(now, as_of_us=query.changed_since_us - 1))
    versions: dict[bytes, list[tuple[int, int, bytes]]] = {}
    for fact_id, position, recorded_us, body in in_chunks(connection, _HISTORIES, sorted(wanted)):
        if query.as_of_us is None or recorded_us <= query.as_of_us:
            versions.setdefault(bytes(fact_id), []).append((position, recorded_us, bytes(body)))
    known = [_known(fact_id.hex(), sorted(found), query.changed_since_us) for fact_id, found in versions.items()]
    return sorted(
        (one for one in known if matches(frozenset(kinds), one.fact.source, one.fact.kind)),
        key=lambda one: one.fact_id,
    )


def change_of(one: Known) -> pb.AgendaChange.ValueType:
    """What became of a fact since it was known as it was before; UNSPECIFIED where nothing did."""
    before, fact = one.before, one.fact
    if before is None or before.status in IDLE:
        return pb.AGENDA_CHANGE_UNSPECIFIED if fact.status in IDLE else pb.AGENDA_CHANGE_NEW
    if fact.status in IDLE:
        return pb.AGENDA_CHANGE_CANCELLED
    if fact.geometry != before.geometry or windows_of(fact) != windows_of(before):
        return pb.AGENDA_CHANGE_MOVED
    return pb.AGENDA_CHANGE_OTHER if fact.revision != before.revision else pb.AGENDA_CHANGE_UNSPECIFIED


def _fact_ids(connection: Connection, grant: Grant, query: MapQuery) -> set[bytes]:
    answer = query_map(connection, grant, query)
    if answer.counts is not None:
        raise precondition("AGENDA_TOO_WIDE", f"more than {MOST_EVENTS} events: ask for fewer days or a smaller area")
    return {bytes(details[1]) for _, details in answer.features}


def _known(fact_id: str, versions: Sequence[tuple[int, int, bytes]], changed_since_us: int | None) -> Known:
    before = [body for _, recorded_us, body in versions if changed_since_us and recorded_us < changed_since_us]
    _, recorded_us, body = versions[-1]
    return Known(
        fact_id,
        recorded_us,
        fact_pb2.Fact.FromString(body),
        fact_pb2.Fact.FromString(before[-1]) if before else None,
    )


def _events(
    known: Sequence[Known], conflicts: Sequence[Conflict], span: Window
) -> tuple[list[tuple[Known, Event]], list[Known]]:
    """What takes place within the span, by its beginning there; and what does not, or no longer."""
    resting: dict[str, list[tuple[Conflict, Windows]]] = {}
    for conflict in conflicts:
        windows = conflict_windows(conflict)
        for fact in conflict.facts:
            resting.setdefault(fact.fact_id, []).append((conflict, windows))
    coming, gone = [], []
    for one in known:
        windows = common(windows_of(one.fact), (span,))
        if one.fact.status in IDLE or not windows:
            gone.append(one)
        else:
            event = Event(one.fact_id, one.fact, windows, tuple(resting.get(one.fact_id, ())))
            coming.append((one, event))
    coming.sort(key=lambda pair: (pair[1].windows[0][0], pair[0].fact_id))
    return coming, gone


def _sources_of(kinds: Iterable[str]) -> frozenset[str]:
    return frozenset(kind.split("/")[0] for kind in kinds)


def _day(text: str) -> date:
    wrong = Violation("first_day", "date", "must be a day of the calendar, of years 2 to 9989")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise invalid("DAY_INVALID", "this is no day", wrong) from None
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise invalid("DAY_INVALID", "this is no day", wrong)
    return day


def _describe(request: GetAgendaRequest, query: AgendaQuery, call: Call) -> None:
    describe_look(request, query.area, call)
    start, end = query.span
    call.data.period_start.FromMicroseconds(start)
    call.data.period_end.FromMicroseconds(end)
    if request.HasField("changed_since"):
        call.data.filters["changed_since"] = request.changed_since.ToJsonString()
