"""What differs between the databases under a store; one implementation beside it for each."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, Engine

from services.kernel.config import CannotStart
from services.kernel.store.base import StoredEvent

# The columns of `events`, in the order of base.StoredEvent's fields.
COLUMNS = (
    "position",
    "stream",
    "stream_version",
    "type",
    "event_id",
    "recorded_at_us",
    "key_id",
    "commitment",
    "salt",
    "payload",
    "digest",
    "erased_by",
    "traceparent",
)
EVENTS = f"SELECT {', '.join(COLUMNS)} FROM events"  # noqa: S608 -- constants

OUTDATED = "an earlier version made this store: declare again into a new one, this one is left as it is"


class StoreOutdated(CannotStart):
    """The tables are of an earlier format: they would be misread."""


class Backend(Protocol):
    """The statements that are not the same SQL, or not as fast, everywhere."""

    def create_schema(self, engine: Engine) -> None:
        """Makes tables, triggers and the store's row where they are not there; safe in several processes at once."""
        ...

    def lock(self, connection: Connection) -> tuple[int, bytes, int]:
        """Takes the store's write lock until commit; head position, head digest, last recorded-at."""
        ...

    def move(self, connection: Connection, position: int, digest: bytes, recorded_at_us: int) -> None:
        """Moves the head."""
        ...

    def versions(self, connection: Connection, streams: Sequence[str]) -> Iterable[tuple[str, int]]:
        """The present version of each stream that exists."""
        ...

    def read_streams(self, connection: Connection, streams: Sequence[str]) -> Iterable[StoredEvent]:
        """The events of those streams, each stream's in order."""
        ...

    def erase(self, connection: Connection, stream: str, erased_by: int) -> Iterable[int]:
        """Erases payload and salt of the stream's events before `erased_by`; their positions, in any order."""
        ...

    def insert(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Inserts rows of `events`, so that they are found by stream."""
        ...

    def unindexed(self, connection: Connection) -> bool:
        """Whether the index of streams has other entries than there are events, where it is a table of its own."""
        ...

    def read_raw(self, connection: Connection, after: int, limit: int) -> Iterable[StoredEvent]:
        """As `read_all`, and able to read damaged rows."""
        ...
