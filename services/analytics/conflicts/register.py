"""People's steps in analytics' own store: decided under its write lock, durable on return, folded once for readers."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from services.analytics.domain import EVENTS, Command, Event, History, decide, evolve, stream_of
from services.kernel.clock import Ids
from services.kernel.store.base import Append, EventStore, NewEvent, Position, StoredEvent

_READ = 1000


class HistoryUnreadableError(RuntimeError):
    """The store holds an event that this version cannot apply: no state of a conflict may be told."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Every conflict's history at a position of the store."""

    position: Position | None = None
    histories: Mapping[str, History] = field(default_factory=dict)

    def of(self, conflict_id: str, as_of_us: int | None = None) -> History:
        """A conflict's steps, up to an instant."""
        history = self.histories.get(conflict_id, ())
        return history if as_of_us is None else tuple(step for step in history if step.at_us <= as_of_us)


class Register:
    """Reads and writes the steps. Blocking: call it from a worker thread."""

    def __init__(self, store: EventStore, ids: Ids) -> None:
        self._store = store
        self._ids = ids
        self._lock = threading.Lock()
        self._known = Steps()

    def execute(self, command: Command, traceparent: str = "") -> History:
        """Appends what the command causes and returns the history after it. Raises Problem where it may not."""
        conflict_id = command.seen.conflict_id
        stream = stream_of(conflict_id)
        with self._store.write(traceparent=traceparent) as transaction:
            history: History = ()
            for stored in transaction.read_stream(stream):
                history = _evolved(history, stored)
            events = decide(history, command)
            if events:
                transaction.append([Append(stream, len(history), tuple(self._stored(event) for event in events))])
        return self.current().of(conflict_id)

    def current(self) -> Steps:
        """All steps at the store's head as of this call or later. Raises HistoryUnreadableError or store errors."""
        head = self._store.head()
        with self._lock:
            known = self._known
            if known.position == head:
                return known
            if known.position is None or self._store.position_at(known.position.position) != known.position:
                # A restored store may not have the events that were folded.
                known = Steps()
            self._known = self._catch_up(known)
            return self._known

    def _catch_up(self, known: Steps) -> Steps:
        histories = dict(known.histories)
        after = known.position.position if known.position else 0
        while events := self._store.read_all(after, _READ):
            for stored in events:
                conflict_id = stored.stream.removeprefix("conflict-")
                histories[conflict_id] = _evolved(histories.get(conflict_id, ()), stored)
            after = events[-1].position
        return Steps(self._store.position_at(after), MappingProxyType(histories))

    def _stored(self, event: Event) -> NewEvent:
        return NewEvent(event.DESCRIPTOR.full_name, event.SerializeToString(deterministic=True), self._ids.new())


def _evolved(history: History, stored: StoredEvent) -> History:
    kind = EVENTS.get(stored.type)
    if kind is None or stored.payload is None:
        raise HistoryUnreadableError("an event of another version, or an erased one")
    return evolve(history, cast("Event", kind.FromString(stored.payload)), stored.recorded_at_us)
