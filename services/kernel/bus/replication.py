"""The owner's side of `ReadEvents`: a reader's cursor is checked against the chain, then it gets what follows."""

import asyncio
from collections.abc import AsyncIterator

from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest, ReadEventsResponse

from services.kernel.bus.runs import pack
from services.kernel.errors import precondition
from services.kernel.store.base import GENESIS, EventStore, Position

CHAIN_DIVERGED = "CHAIN_DIVERGED"
PAGE = 1000


async def read_events(store: EventStore, request: ReadEventsRequest) -> AsyncIterator[ReadEventsResponse]:
    """Streams runs from the cursor to the head as it is now, then an empty run with `caught_up`.

    Without a store id: from the beginning. Raises Problem FAILED_PRECONDITION CHAIN_DIVERGED for a cursor that this
    store never had: the reader must rebuild.
    """
    position = await asyncio.to_thread(_start, store, request)
    head = await asyncio.to_thread(store.head)
    while position.position < head.position:
        events = await asyncio.to_thread(store.read_all, position.position, PAGE)
        for run in pack(position.store_id, position.digest, events):
            yield ReadEventsResponse(run=run)
        position = Position(position.store_id, events[-1].position, events[-1].digest)
    end = EventRun(
        store_id=position.store_id,
        first_position=position.position + 1,
        last_position=position.position,
        previous_digest=position.digest,
        digest=position.digest,
    )
    yield ReadEventsResponse(run=end, caught_up=True)


def _start(store: EventStore, request: ReadEventsRequest) -> Position:
    if not request.store_id:
        return Position(store.store_id, 0, GENESIS)
    cursor = Position(request.store_id, request.after_position, request.after_digest)
    if store.position_at(cursor.position) != cursor:
        raise precondition(CHAIN_DIVERGED, "this store never had that position with that digest")
    return cursor
