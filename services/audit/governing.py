"""The officers' decisions: an event store in the log's own database, and the state folded from it."""

import threading
from typing import cast

from services.audit.domain import EVENTS, Command, Event, Governance, decide, evolve
from services.kernel.clock import Ids
from services.kernel.store.base import Append, EventStore, NewEvent, Position

STREAM = "log-governance"
_READ = 1_000


class GovernanceUnreadable(RuntimeError):  # noqa: N818 -- a state of the store
    """The store holds an event that this version cannot apply: nothing may be shown or erased under it."""


class Governing:
    """Executes the officers' commands and gives the state at the store's head. Blocking: call from a worker thread."""

    def __init__(self, store: EventStore, ids: Ids) -> None:
        self._store = store
        self._ids = ids
        self._lock = threading.Lock()
        self._known: tuple[Governance, Position] | None = None

    def current(self) -> tuple[Governance, Position]:
        """The state at the head as of this call or later, and where that is."""
        head = self._store.head()
        with self._lock:
            if self._known is None or self._known[1] != head:
                self._known = self._fold()
            return self._known

    def execute(self, command: Command, traceparent: str = "") -> Governance:
        """Appends what the command causes and returns the state after it. Raises Problem where it may not."""
        with self._store.write(traceparent=traceparent) as transaction:
            events = decide(self.current()[0], command, transaction.recorded_at)
            if events:
                transaction.append([Append(STREAM, None, tuple(self._stored(event) for event in events))])
        return self.current()[0]

    def _stored(self, event: Event) -> NewEvent:
        return NewEvent(event.DESCRIPTOR.full_name, event.SerializeToString(deterministic=True), self._ids.new())

    def _fold(self) -> tuple[Governance, Position]:
        """From the beginning: a few decisions a year."""
        state, after = Governance(), 0
        while events := self._store.read_all(after, _READ):
            for stored in events:
                kind = EVENTS.get(stored.type)
                if kind is None or stored.payload is None:
                    raise GovernanceUnreadable("an event of another version, or an erased one")
                state = evolve(state, cast("Event", kind.FromString(stored.payload)))
            after = events[-1].position
        position = self._store.position_at(after)
        if position is None:
            raise GovernanceUnreadable("the store changed while it was read")
        return state, position
