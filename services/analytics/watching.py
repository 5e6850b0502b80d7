"""WatchMap: the pages of `watch.py` as a stream, woken when the read model moves."""

import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import (
    MAP_CHANGE_KIND_GONE,
    MAP_CHANGE_KIND_PRESENT,
    FactVersion,
    MapChange,
    WatchMapRequest,
    WatchMapResponse,
)
from planier.common.v1.event_pb2 import ReadEventsRequest
from planier.common.v1.release_pb2 import StorePosition
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.analytics import asking
from services.analytics.coverage import CoverageReader
from services.analytics.queries import permitted
from services.analytics.reading import ReadModel
from services.analytics.signal import Signal
from services.analytics.watch import Change, Changes, changes_after
from services.kernel.bus.replication import CHAIN_DIVERGED
from services.kernel.clock import Clock, from_microseconds, microseconds
from services.kernel.errors import Problem, precondition
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position

# For ingest to say whether it has a place.
ASK_SECONDS = 5.0
# Without news: how soon to look for what another replica applied, and how soon to say that the stream lives.
LOOK_SECONDS = 0.5
ALIVE_SECONDS = 10.0


async def ingest_has(ingest: IngestServiceStub, place: Position) -> bool:
    """Whether ingest's store has this very place: the read model keeps no digest but that of its own head.

    Raises Problem where ingest cannot be asked.
    """
    request = ReadEventsRequest(store_id=place.store_id, after_position=place.position, after_digest=place.digest)
    call = ingest.ReadEvents(request, timeout=ASK_SECONDS)
    try:
        await anext(aiter(call))
    except Problem as problem:
        if problem.reason == CHAIN_DIVERGED:
            return False
        raise
    finally:
        call.cancel()
    return True


async def not_asked(place: Position) -> bool:  # noqa: ARG001 -- the shape of the question
    """Where there is no ingest to ask, only the place at the head can be told apart."""
    return True


class Watches:
    """Every open watch of this process."""

    def __init__(
        self,
        model: ReadModel,
        signal: Signal,
        has: Callable[[Position], Awaitable[bool]],
        coverage: CoverageReader,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._has = has
        self._coverage = coverage
        self._clock = clock
        self._signal = signal
        self._monotonic = monotonic

    async def watch(self, request: WatchMapRequest, call: Call) -> AsyncGenerator[WatchMapResponse, None]:
        """First where the watch begins, then every change; a message now and then where there is none.

        Raises:
            Problem: FAILED_PRECONDITION CURSOR_DIVERGED: the store never had that place, or no longer has.
        """
        watched, grant = asking.watched_of(request), call.granted
        asking.describe(call, watched.sources, watched.kinds, watched.area, None)
        asking.note_polygon(call, request)
        sources, now_us = permitted(grant, watched.sources), microseconds(self._clock.now())
        head, coverage = await self._model.read(
            lambda connection: self._coverage.read(connection, sources, watched.area, now_us, None)
        )
        reached = await self._begin(request, head)
        call.data_position = head
        call.data.filters["after"] = str(reached.position)
        yield WatchMapResponse(cursor=_cursor(reached, head), coverage=coverage)
        count, told_at = -1, self._monotonic()
        while True:
            if count >= 0:
                await self._signal.after(count, LOOK_SECONDS)
            count = self._signal.count
            ask = functools.partial(changes_after, grant=grant, watched=watched, after=reached.position)
            now, page = await self._model.read(ask)
            _require_same(reached, now)
            if page.changes or page.erased or self._monotonic() - told_at > ALIVE_SECONDS:
                call.data.count += len(page.changes)
                call.data_position = now
                told_at = self._monotonic()
                yield _message(page, now)
            reached = Position(now.store_id, page.position, now.digest if page.whole else b"")
            if not page.whole:
                count = -1

    async def _begin(self, request: WatchMapRequest, head: Position) -> Position:
        """The cursor's place, once it is sure that the store has it; the head where there is no cursor."""
        cursor = request.cursor
        if not cursor.store_id:
            return head
        place = Position(cursor.store_id, cursor.position, cursor.digest)
        if place.store_id != head.store_id or place.position > head.position:
            raise _diverged()
        if place.digest and place != head and (place.position == head.position or not await self._has(place)):
            raise _diverged()
        return place


def _require_same(reached: Position, now: Position) -> None:
    """The store may have been restored under an open stream."""
    if reached.store_id and (now.store_id != reached.store_id or now.position < reached.position):
        raise _diverged()


def _diverged() -> Exception:
    return precondition("CURSOR_DIVERGED", "the store has no such place: ask the map again and watch from its answer")


def _cursor(reached: Position, head: Position) -> StorePosition:
    digest = head.digest if reached.position == head.position else reached.digest
    return StorePosition(store_id=reached.store_id, position=reached.position, digest=digest)


def _message(page: Changes, now: Position) -> WatchMapResponse:
    digest = now.digest if page.whole and page.position == now.position else b""
    cursor = StorePosition(store_id=now.store_id, position=page.position, digest=digest)
    return WatchMapResponse(changes=_changes(page.changes), cursor=cursor, facts_erased=page.erased)


def _changes(changes: Sequence[Change]) -> list[MapChange]:
    told = []
    for change in changes:
        version = change.version
        if version is None:
            told.append(MapChange(kind=MAP_CHANGE_KIND_GONE, fact_id=change.fact_id))
            continue
        recorded_at = Timestamp()
        recorded_at.FromDatetime(from_microseconds(version.recorded_us))
        shown = FactVersion(
            fact=version.fact, change=version.change, recorded_at=recorded_at, position=version.position
        )
        told.append(MapChange(kind=MAP_CHANGE_KIND_PRESENT, fact_id=change.fact_id, version=shown))
    return told
