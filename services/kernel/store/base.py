"""The contract of an event store; every implementation passes tests/contract/test_event_store*.py."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

GENESIS = bytes(32)


class NewEvent(NamedTuple):
    """An event to append: full protobuf name of its payload, the payload's bytes, a UUID."""

    type: str
    payload: bytes
    event_id: str


class Append(NamedTuple):
    """Events for one stream. `expected_version` is the stream's present version (0: it must not exist), None: any."""

    stream: str
    expected_version: int | None
    events: tuple[NewEvent, ...]


class Committed(NamedTuple):
    """What one Append became; positions are consecutive."""

    stream: str
    version: int
    first_position: int
    last_position: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The stream was at another version: nothing of this Append was written, its neighbours were not concerned."""

    stream: str
    expected_version: int
    actual_version: int


class StoredEvent(NamedTuple):
    """One stored event; `payload` and `salt` are None once erased, `erased_by` then names the erasing position.

    A tuple, as whatever is made once an event: a frozen dataclass of so many fields costs eight times as much to make.
    """

    position: int
    stream: str
    stream_version: int
    type: str
    event_id: str
    recorded_at_us: int
    key_id: str
    commitment: bytes
    salt: bytes | None
    payload: bytes | None
    digest: bytes
    erased_by: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a store: (store id, position, chain digest there). Position 0 has digest GENESIS."""

    store_id: str
    position: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """What `verify` found: where, and which of CHAIN_BROKEN, PAYLOAD_ALTERED, POSITION_MISSING, INDEX_BROKEN."""

    position: int
    fault: str


class Transaction(Protocol):
    """One write transaction, holding the store's write lock until commit: what is read in it cannot change under it."""

    @property
    def connection(self) -> Connection:
        """For tables of the same database that must change with the events."""
        ...

    @property
    def recorded_at(self) -> datetime:
        """The instant every event of this transaction is recorded at; never before the previous event's."""
        ...

    @property
    def position(self) -> int:
        """The newest position, this transaction's events included: the next event takes the one after it."""
        ...

    def append(self, batch: Sequence[Append]) -> tuple[Committed | Conflict, ...]:
        """Appends, one result per Append in order; an Append sees those before it in the batch."""
        ...

    def erase(self, stream: str, erased_by: int) -> tuple[int, ...]:
        """Erases payload and salt of every event of the stream before `erased_by`; returns their positions."""
        ...

    def read_stream(self, stream: str) -> tuple[StoredEvent, ...]:
        """The stream in order, this transaction's events included."""
        ...

    def read_streams(self, streams: Collection[str]) -> dict[str, tuple[StoredEvent, ...]]:
        """Those of the streams that exist, in order, this transaction's events included; any number in one query.

        What is read here need not be looked up again by `append`.
        """
        ...


class EventStore(Protocol):
    """An append-only, hash-chained log of events in one database. Blocking: call it from a worker thread."""

    @property
    def store_id(self) -> str:
        """Random, made with the database."""
        ...

    def write(self, *, traceparent: str = "") -> AbstractContextManager[Transaction]:
        """Opens the one write transaction; commits at exit, rolls back on an exception."""
        ...

    def append(self, batch: Sequence[Append], *, traceparent: str = "") -> tuple[Committed | Conflict, ...]:
        """`write` with a single `append`."""
        ...

    def head(self) -> Position:
        """The newest visible position."""
        ...

    def position_at(self, position: int) -> Position | None:
        """The position with its digest, or None where the store has none."""
        ...

    def read_stream(self, stream: str) -> tuple[StoredEvent, ...]:
        """The stream in order; empty if unknown."""
        ...

    def read_all(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """At most `limit` events after a position, gapless and in order."""
        ...

    def verify(self) -> tuple[Fault, ...]:
        """Recomputes every commitment and the chain from the stored bytes."""
        ...

    def open_recent(self) -> Callable[[int, int], Sequence[StoredEvent]] | None:
        """`read_all(after, limit)` of what was just committed, quick enough for an event loop; None: there is no such.

        For one thread. Gives no events where `read_all` must be asked.
        """
        ...

    def on_commit(self, wake: Callable[[], None]) -> None:
        """Calls `wake` after each commit, from the committing thread."""
        ...
