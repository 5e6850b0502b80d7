"""Recomputation of a whole store from its bytes."""

import struct
from collections.abc import Iterator

from sqlalchemy import Engine, text

from services.kernel.store.backend import Backend
from services.kernel.store.base import GENESIS, Fault, StoredEvent
from services.kernel.store.chain import link_event, payload_holds

_PAGE = 5_000
_EXTENT = text(
    "SELECT head_position, head_digest, (SELECT coalesce(max(position), 0) FROM events),"
    " (SELECT min(position) FROM events WHERE position < 1) FROM store"
)


def find_faults(engine: Engine, backend: Backend) -> Iterator[Fault]:
    """Faults in order of position, up to the head of now; a run of missing positions is one fault, at its first.

    CHAIN_BROKEN: a header, commitment or digest is not what was chained (a wrong digest shows there and at its
    successor). PAYLOAD_ALTERED: salt or payload is not the committed one, or is gone without an existing later event
    that erased it; a payload erased as it should be is no fault. INDEX_BROKEN: streams cannot be found whole.
    """
    with engine.connect() as connection:
        head, head_digest, last, stray = connection.execute(_EXTENT).one()
        unindexed = last == head and backend.unindexed(connection)
    yield from _check_extent(head, last, stray, unindexed=unindexed)
    position: int = 0
    digest: bytes | None = GENESIS
    while position < head:
        with engine.connect() as connection:
            page = list(backend.read_raw(connection, position, _PAGE))
        for event in page:
            if event.position > head:
                break
            if event.position != position + 1:
                yield Fault(position + 1, "POSITION_MISSING")
                digest = None
            yield from _check(digest, event, head)
            position, digest = event.position, event.digest
        if not page or page[-1].position > head or position == head:
            break
    if position < head:
        yield Fault(position + 1, "POSITION_MISSING")
    elif digest != head_digest:
        yield Fault(head, "CHAIN_BROKEN")


def _check_extent(head: int, last: int, stray: int | None, *, unindexed: bool) -> Iterator[Fault]:
    if stray is not None:
        yield Fault(stray, "CHAIN_BROKEN")
    if last > head:
        yield Fault(head + 1, "CHAIN_BROKEN")
    if unindexed:
        yield Fault(head, "INDEX_BROKEN")


def _check(previous: bytes | None, event: StoredEvent, head: int) -> Iterator[Fault]:
    try:
        chained = previous is None or link_event(previous, event) == event.digest
        held = payload_holds(event) and event.erased_by <= head
    except (AttributeError, TypeError, ValueError, struct.error):
        # A damaged row can hold values of another type.
        chained, held = False, True
    if not chained:
        yield Fault(event.position, "CHAIN_BROKEN")
    if not held:
        yield Fault(event.position, "PAYLOAD_ALTERED")
