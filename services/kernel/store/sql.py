"""The event store over SQLite and PostgreSQL."""

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from services.kernel.clock import Clock, from_microseconds, microseconds
from services.kernel.codec import Codec
from services.kernel.store.backend import EVENTS, Backend
from services.kernel.store.base import (
    GENESIS,
    Append,
    Committed,
    Conflict,
    Fault,
    Position,
    StoredEvent,
)
from services.kernel.store.chain import SALT_SIZE, commitment, link
from services.kernel.store.engine import begin_write, scrub
from services.kernel.store.verify import find_faults

_READ_ALL = text(f"{EVENTS} WHERE position > :after ORDER BY position LIMIT :limit")
_DIGEST = text("SELECT digest FROM events WHERE position = :position")
_HEAD = text("SELECT store_id, head_position, head_digest FROM store")
_ANY_ERASED = text("SELECT 1 FROM events WHERE position BETWEEN :first AND :last AND erased_by <> 0 LIMIT 1")
_NEAR_ERASED = "SELECT 1 FROM events WHERE position BETWEEN ? AND ? AND erased_by <> 0 LIMIT 1"
# Events kept in memory for the relay, and a half more before they are cut back to it: about 12 to 18 MiB of facts.
_MOST_RECENT = 8_192

# A reader of an old snapshot holds up the removal of erased bytes; it must not hold up writers for long.
_PATIENCE_MS = 1_000
_RETRY_PATIENCE_MS = 20

logger = logging.getLogger(__name__)


class SqlTransaction:
    """base.Transaction over one connection that holds the store's write lock."""

    def __init__(self, connection: Connection, backend: Backend, codec: Codec, clock: Clock, traceparent: str) -> None:
        self._connection = connection
        self._backend = backend
        self._codec = codec
        self._traceparent = traceparent
        self._position, self._digest, last_us = backend.lock(connection)
        # Read under the lock, so that transactions are stamped in their order; a clock set back changes nothing.
        self._recorded_at_us = max(microseconds(clock.now()), last_us)
        self._versions: dict[str, int] = {}
        self.appended: tuple[StoredEvent, ...] = ()
        self.erased = False
        self._broken = False

    @property
    def connection(self) -> Connection:
        """The connection of the transaction; leave commit and rollback to `write`."""
        return self._connection

    @property
    def position(self) -> int:
        """Held by the write lock: nobody else takes the next one."""
        return self._position

    @property
    def recorded_at(self) -> datetime:
        """Never before the previous event's, whatever the clock says."""
        return from_microseconds(self._recorded_at_us)

    def append(self, batch: Sequence[Append]) -> tuple[Committed | Conflict, ...]:
        """One insert; an event id used before raises IntegrityError, nothing is written."""
        self._learn_versions(batch)
        salts = iter(_sliced(os.urandom(SALT_SIZE * sum(len(item.events) for item in batch))))
        results: list[Committed | Conflict] = []
        rows: list[StoredEvent] = []
        position, digest = self._position, self._digest
        versions, encode, at_us, trace = self._versions, self._codec.encode, self._recorded_at_us, self._traceparent
        for stream, expected, events in batch:
            version = versions[stream]
            if expected is not None and expected != version:
                results.append(Conflict(stream, expected, version))
                continue
            if not events:
                raise ValueError("an Append holds at least one event")
            first = position + 1
            for name, plain, event_id in events:
                position += 1
                version += 1
                salt = next(salts)
                key_id, payload = encode(plain)
                committed = commitment(salt, payload)
                digest = link(digest, position, stream, version, name, event_id, at_us, key_id, committed)
                row = (
                    position,
                    stream,
                    version,
                    name,
                    event_id,
                    at_us,
                    key_id,
                    committed,
                    salt,
                    payload,
                    digest,
                    0,
                    trace,
                )
                rows.append(StoredEvent._make(row))
            versions[stream] = version
            results.append(Committed(stream, version, first, position))
        if rows:
            self._insert(rows)
            self._position, self._digest = position, digest
        return tuple(results)

    def erase(self, stream: str, erased_by: int) -> tuple[int, ...]:
        """Erased events stay erased by whom they were; an `erased_by` that is no position raises IntegrityError."""
        positions = tuple(sorted(self._backend.erase(self._connection, stream, erased_by)))
        self.erased = self.erased or bool(positions)
        return positions

    def read_stream(self, stream: str) -> tuple[StoredEvent, ...]:
        """This transaction's events included."""
        return tuple(self._backend.read_streams(self._connection, (stream,)))

    def read_streams(self, streams: Collection[str]) -> dict[str, tuple[StoredEvent, ...]]:
        """This transaction's events included; the write lock keeps what was learnt true."""
        found: dict[str, list[StoredEvent]] = {}
        for event in self._backend.read_streams(self._connection, list(streams)):
            found.setdefault(event.stream, []).append(event)
        self._versions.update(dict.fromkeys(streams, 0))
        self._versions.update((stream, events[-1].stream_version) for stream, events in found.items())
        return {stream: tuple(events) for stream, events in found.items()}

    def finish(self) -> None:
        """Moves the head; the caller commits."""
        if self._broken:
            raise RuntimeError("a failed append cannot be committed")
        if self.appended:
            self._backend.move(self._connection, self._position, self._digest, self._recorded_at_us)

    def _learn_versions(self, batch: Sequence[Append]) -> None:
        unknown = {item.stream for item in batch} - self._versions.keys()
        if unknown:
            self._versions.update(dict.fromkeys(unknown, 0))
            self._versions.update(self._backend.versions(self._connection, list(unknown)))

    def _insert(self, rows: Sequence[StoredEvent]) -> None:
        self._broken = True  # SQLite keeps the rows before a failing one: only a whole insert may be committed
        self._backend.insert(self._connection, rows)
        self._broken = False
        self.appended += tuple(rows)


class SqlEventStore:
    """base.EventStore over an engine of `open_engine`; `StoredEvent.payload` is the stored bytes, see `codec`."""

    def __init__(self, engine: Engine, backend: Backend, codec: Codec, clock: Clock) -> None:
        self.engine = engine
        self.codec = codec
        self._backend = backend
        self._clock = clock
        self._wakes: tuple[Callable[[], None], ...] = ()
        self._near: tuple[Connection, ...] = ()
        # Consecutive events that this process committed last; it only grows, or another takes its place: a reader that
        # has hold of it may go on.
        self._recent: list[StoredEvent] = []
        backend.create_schema(engine)
        # A process killed between an erasure and its scrubbing left the bytes behind.
        self._unscrubbed = not scrub(engine, _RETRY_PATIENCE_MS)
        self._store_id = self.head().store_id

    @property
    def store_id(self) -> str:
        """Random, made with the database."""
        return self._store_id

    @property
    def unscrubbed(self) -> bool:
        """Whether erased bytes may still be in the files because readers were in the way; each write tries again."""
        return self._unscrubbed

    @contextmanager
    def write(self, *, traceparent: str = "") -> Iterator[SqlTransaction]:
        """One at a time; a thread that is writing already must not begin again."""
        with begin_write(self.engine) as connection:
            transaction = SqlTransaction(connection, self._backend, self.codec, self._clock, traceparent)
            yield transaction
            transaction.finish()
        if transaction.erased or self._unscrubbed:
            patience = _PATIENCE_MS if transaction.erased else _RETRY_PATIENCE_MS
            self._unscrubbed = not scrub(self.engine, patience)
        if transaction.appended or transaction.erased:
            self._remember(transaction)
            self._wake()

    def append(self, batch: Sequence[Append], *, traceparent: str = "") -> tuple[Committed | Conflict, ...]:
        """Durable when it returns."""
        with self.write(traceparent=traceparent) as transaction:
            return transaction.append(batch)

    def head(self) -> Position:
        """The newest visible position."""
        with self.engine.connect() as connection:
            row = connection.execute(_HEAD).one()
        return Position(row[0], row[1], row[2])

    def open_head(self) -> Callable[[], Position] | None:
        """`head` for one thread that asks it all the time, over a connection of its own; None on a server."""
        if self.engine.dialect.name != "sqlite":
            return None
        connection = self.engine.connect()
        self._near = (*self._near, connection)
        cursor = connection.connection.cursor()
        statement = str(_HEAD)

        def head() -> Position:
            cursor.execute(statement)
            # To the end: a statement under way would keep its snapshot.
            ((store_id, position, digest),) = cursor.fetchall()
            return Position(store_id, position, digest)

        return head

    def open_recent(self) -> Callable[[int, int], Sequence[StoredEvent]] | None:
        """`read_all` of what is in memory alone, for one thread, over a connection of its own; None on a server.

        Gives none where it is not all in memory, or some of it is erased.
        """
        if self.engine.dialect.name != "sqlite":
            return None
        connection = self.engine.connect()
        self._near = (*self._near, connection)
        cursor = connection.connection.cursor()

        def recent(after: int, limit: int) -> Sequence[StoredEvent]:
            held = self._held(after, limit)
            try:
                if held and not cursor.execute(_NEAR_ERASED, (held[0].position, held[-1].position)).fetchall():
                    return held
            except sqlite3.Error:
                # Whoever is asked instead says what is wrong.
                return ()
            return ()

        return recent

    def position_at(self, position: int) -> Position | None:
        """The position with its digest, or None where the store has none."""
        if position == 0:
            return Position(self._store_id, 0, GENESIS)
        with self.engine.connect() as connection:
            digest = connection.execute(_DIGEST, {"position": position}).scalar()
        return None if digest is None else Position(self._store_id, position, digest)

    def read_stream(self, stream: str) -> tuple[StoredEvent, ...]:
        """The stream in order; empty if unknown."""
        with self.engine.connect() as connection:
            return tuple(self._backend.read_streams(connection, (stream,)))

    def read_all(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """At most `limit` events after a position, gapless and in order; what was just committed, from memory.

        A relay reads what its own process wrote a moment ago: ten times cheaper than fetching the rows. Only where the
        database, asked at that moment, says that none of it is erased, by whichever process.
        """
        held = self._held(after, limit)
        with self.engine.connect() as connection:
            if held:
                span = {"first": held[0].position, "last": held[-1].position}
                if connection.execute(_ANY_ERASED, span).first() is None:
                    return held
            return read_events(connection, _READ_ALL, after=after, limit=limit)

    def verify(self) -> tuple[Fault, ...]:
        """Everything up to the head of the moment it starts; memory does not grow with the store."""
        return tuple(find_faults(self.engine, self._backend))

    def on_commit(self, wake: Callable[[], None]) -> None:
        """Calls `wake` after each commit, from the committing thread; it must be quick and not write."""
        self._wakes += (wake,)

    def close(self) -> None:
        """Gives the connections back; the store can be opened again."""
        for connection in self._near:
            connection.close()
        self._near = ()
        self.engine.dispose()

    def _held(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        recent = self._recent
        start = after + 1 - recent[0].position if recent else -1
        return tuple(recent[start : start + limit]) if start >= 0 else ()

    def _remember(self, transaction: SqlTransaction) -> None:
        if transaction.erased:
            # What is erased leaves memory too.
            self._recent = []
            return
        recent, new = self._recent, transaction.appended
        if not recent or recent[-1].position + 1 != new[0].position:
            self._recent = list(new)
        elif len(recent) + len(new) > _MOST_RECENT * 3 // 2:
            self._recent = [*recent, *new][-_MOST_RECENT:]
        else:
            recent.extend(new)

    def _wake(self) -> None:
        for wake in self._wakes:
            try:
                wake()
            except Exception:
                # The commit stands: a listener's failure must not make it look refused.
                logger.exception("a listener for commits failed")


def read_events(connection: Connection, statement: object, **parameters: object) -> tuple[StoredEvent, ...]:
    """Rows of `events` as events."""
    rows = connection.execute(statement, parameters)  # type: ignore[call-overload]
    return tuple(map(StoredEvent._make, rows))


def _sliced(drawn: bytes) -> list[bytes]:
    return [drawn[start : start + SALT_SIZE] for start in range(0, len(drawn), SALT_SIZE)]
