"""The folded state of access, caught up with the store at each use: another replica may have written since."""

import asyncio
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, cast

from planier.access.v1.access_pb2 import CheckResponse
from planier.common.v1.release_pb2 import StorePosition

from services.access.convention import State
from services.access.decisions import Decider
from services.access.domain import EVENTS, Event, evolve
from services.access.engine import ENGINE, time_zone_data
from services.access.policy import Policy
from services.kernel.clock import from_microseconds
from services.kernel.store.base import GENESIS, EventStore, Position, StoredEvent
from services.kernel.store.chain import ChainBroken, verify_run
from services.kernel.store.sql import SqlEventStore

_READ = 1000


class StateUnreadableError(RuntimeError):
    """The store holds an event that this version cannot apply: nothing may be decided."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state, where the store stood, and the decider of that state."""

    state: State
    position: Position
    decider: Decider
    # What every answer decided under it says beside its verdicts.
    resting_on: CheckResponse

    @classmethod
    def of(cls, state: State, position: Position, policy: Policy) -> Self:
        """The snapshot of a state folded up to a position, its legal terms by its zone's present rules."""
        resting_on = CheckResponse(
            state=StorePosition(store_id=position.store_id, position=position.position, digest=position.digest),
            policy_hash=policy.hash,
            engine=ENGINE,
            time_zone_data=time_zone_data(state.convention.zone.key if state.convention else ""),
        )
        return cls(state, position, Decider(policy, state), resting_on)

    @property
    def store_position(self) -> StorePosition:
        """The position as a message."""
        return self.resting_on.state


class StateCache:
    """The newest state, one per process. `current` blocks: call it from a worker thread."""

    def __init__(self, store: EventStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        # The head of a file is read in microseconds and waits for no writer; that of a server is a round trip away.
        self._near_head = store.open_head() if isinstance(store, SqlEventStore) else None
        self._head_of_turn: Position | None = None

    def at_head(self) -> Snapshot | None:
        """The known state where the store's head, read now, still is its position; for the event loop.

        None where finding out would take long: the head is not near, or events came since and are to be folded.
        Whoever asks in the loop's present turn shares one reading: their steps were queued before it, so what they
        work for had arrived; what is queued later runs after it is forgotten.
        """
        known, near = self._snapshot, self._near_head
        if known is None or near is None:
            return None
        head = self._head_of_turn
        if head is None:
            asyncio.get_running_loop().call_soon(self._forget_head)
            head = self._head_of_turn = near()
        return known if head == known.position else None

    def _forget_head(self) -> None:
        self._head_of_turn = None

    def current(self) -> Snapshot:
        """The state at the store's head as of this call or later. Raises StateUnreadableError or the store's errors."""
        head = self._store.head()
        with self._lock:
            known = self._snapshot
            if known is not None and known.position == head:
                return known
            if known is None or not self._continues(known.position):
                known = None
            if known is not None and known.position.position > head.position:
                return known  # a neighbour caught up further between our reading and our turn
            self._snapshot = self._catch_up(known)
            return self._snapshot

    def _continues(self, position: Position) -> bool:
        """Whether the store still has the position we folded up to: a restored store may not."""
        return self._store.position_at(position.position) == position

    def _catch_up(self, known: Snapshot | None) -> Snapshot:
        start = known.position if known else Position(self._store.store_id, 0, GENESIS)
        state, reached = folded(self._store, known.state if known else State(), start)
        position = self._store.position_at(reached.position)
        if position is None or position.digest != reached.digest:
            raise StateUnreadableError("the store changed while it was read")
        return Snapshot.of(state, position, self._policy)


def folded(store: EventStore, state: State, position: Position, until: int | None = None) -> tuple[State, Position]:
    """The state after the events that follow a position, to the head or until another; and how far that is.

    Raises StateUnreadableError where an event is not what was chained, or is one that this version cannot apply.
    """
    after, digest = position.position, position.digest
    while events := store.read_all(after, _READ if until is None else min(_READ, until - after)):
        digest = _chained(after, digest, events)
        for stored in events:
            state = _applied(state, stored)
        after = events[-1].position
        if after == until:
            break
    return state, Position(position.store_id, after, digest)


def _chained(after: int, digest: bytes, events: Sequence[StoredEvent]) -> bytes:
    """The digest at the last event. A row that anybody edited in the database is not what was chained: no decision."""
    try:
        if events[0].position == after + 1:
            return verify_run(digest, events)
    except (AttributeError, ChainBroken, TypeError, struct.error):  # a damaged row can hold values of another type
        pass
    raise StateUnreadableError("the store's events are not those that were chained")


def _applied(state: State, stored: StoredEvent) -> State:
    kind = EVENTS.get(stored.type)
    if kind is None or stored.payload is None:
        raise StateUnreadableError("an event of another version, or an erased one")
    recorded_at: datetime = from_microseconds(stored.recorded_at_us)
    return evolve(state, cast("Event", kind.FromString(stored.payload)), recorded_at)
