"""Writes: a command is decided on the state that its own transaction holds still; its events are durable on return."""

from services.access.domain import Command, Event, decide, stream_of
from services.access.snapshot import Snapshot, StateCache
from services.kernel.clock import Ids
from services.kernel.store.base import Append, EventStore, NewEvent


class Register:
    """Executes commands on the store of access. Blocking: call it from a worker thread."""

    def __init__(self, store: EventStore, cache: StateCache, ids: Ids) -> None:
        self._store = store
        self._cache = cache
        self._ids = ids

    def execute(self, command: Command, traceparent: str = "") -> Snapshot:
        """Appends what the command causes and returns the state after it. Raises Problem where it may not.

        The store's write lock is held from before the state is read until commit, against other replicas too: nothing
        comes between a decision and its effect.
        """
        with self._store.write(traceparent=traceparent) as transaction:
            events = decide(self._cache.current().state, command, transaction.recorded_at)
            transaction.append([Append(stream_of(event), None, (self._stored(event),)) for event in events])
        return self._cache.current()

    def _stored(self, event: Event) -> NewEvent:
        return NewEvent(event.DESCRIPTOR.full_name, event.SerializeToString(deterministic=True), self._ids.new())
