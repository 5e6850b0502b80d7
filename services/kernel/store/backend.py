"""What differs between the databases under a store; one implementation beside it for each."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, Engine

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


class Backend(Protocol):
    """The statements that are not the same SQL, or not as fast, everywhere."""

    def create_schema(self, engine: Engine) -> None:
        """Makes tables, triggers and the store's row where they are not there; safe in several processes at once."""
        ...

    def lock(self, connection: Connection) -> tuple[int, bytes, int]:
        """Takes the store's write lock until commit; head position, head digest, last recorded-at."""
        ...

    def versions(self, connection: Connection, streams: Sequence[str]) -> Iterable[tuple[str, int]]:
        """The present version of each stream, 0 for unknown ones, in one query."""
        ...

    def insert(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Inserts rows of `events`."""
        ...

    def read_raw(self, connection: Connection, after: int, limit: int) -> Iterable[StoredEvent]:
        """As `read_all`, and able to read damaged rows."""
        ...
