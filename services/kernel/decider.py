"""The functional core of a service: frozen state, pure decisions, events as the only change."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

State = TypeVar("State")
Command_contra = TypeVar("Command_contra", contravariant=True)
Event = TypeVar("Event")


class Decider(Protocol[State, Command_contra, Event]):
    """Three pure functions: no clock, no random source, no I/O; the same arguments give the same answer for ever."""

    @property
    def initial(self) -> State:
        """The state before the first event."""
        ...

    def decide(self, state: State, command: Command_contra) -> Sequence[Event]:
        """The events that the command causes; raises `Problem` when the rules refuse it."""
        ...

    def evolve(self, state: State, event: Event) -> State:
        """The state after the event; accepts every event that was ever stored."""
        ...


def fold(decider: Decider[State, Command_contra, Event], events: Iterable[Event], state: State | None = None) -> State:
    """The state after the events, from `state` or from the beginning."""
    present = decider.initial if state is None else state
    for event in events:
        present = decider.evolve(present, event)
    return present
