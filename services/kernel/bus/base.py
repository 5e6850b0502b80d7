"""The contract of a bus; every implementation passes tests/contract/test_bus.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from planier.common.v1.event_pb2 import EventRun


@dataclass(frozen=True, slots=True)
class Topic:
    """The events of one owner: who publishes them, who may read them."""

    owner: str
    readers: tuple[str, ...]

    @property
    def stream(self) -> str:
        """The name of the JetStream stream that holds the runs."""
        return self.owner.upper()

    @property
    def subject(self) -> str:
        """The one subject that the runs are published on."""
        return f"planier.{self.owner}.events"


# Audit reads access through ReadEvents alone; only facts are wanted at once.
TOPICS = (Topic("ingest", ("analytics",)), Topic("access", ("audit",)))


class BusUnavailable(Exception):  # noqa: N818 -- a state of the surroundings that callers wait out, not a fault of theirs
    """The bus cannot be reached or did not acknowledge; the same call may succeed later."""


class SubscriptionLost(Exception):  # noqa: N818 -- see BusUnavailable
    """Messages may have been missed: open another subscription, then read what is missing from the owner."""


class RunPublisher(Protocol):
    """The owner's way to the bus."""

    async def prepare(self) -> None:
        """Makes the bus ready to take runs; idempotent. Raises BusUnavailable."""
        ...

    async def publish(self, run: EventRun) -> None:
        """Returns once the run is durable on the bus and the cursor stands at its end. Raises BusUnavailable.

        Runs may be under way together, sent in the order of the calls: where one fails, those that began behind it and
        before it failed fail too, and the cursor stands before it.
        """
        ...

    async def erase(self, positions: Sequence[int]) -> None:
        """Removes every message that holds one of the positions, bytes included. Idempotent. Raises BusUnavailable."""
        ...


class RunSubscription(Protocol):
    """Messages published since it was opened, taken one by one; holds a bounded number in memory."""

    async def next(self, seconds: float) -> EventRun | None:
        """The next run, or None after so many `seconds` without one. Raises SubscriptionLost."""
        ...

    async def close(self) -> None:
        """Gives the subscription back; never raises."""
        ...
