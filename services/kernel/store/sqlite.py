"""SQLite under a store: one writer at a time gives gapless positions that become visible in order."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from uuid import uuid4

from sqlalchemy import Connection, Engine

from services.kernel.store.backend import COLUMNS, OUTDATED, StoreOutdated
from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.engine import begin_write, insert_rows, run_sqlite

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS store (
        singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
        store_id TEXT NOT NULL,
        head_position INTEGER NOT NULL,
        head_digest BLOB NOT NULL,
        recorded_at_us INTEGER NOT NULL
    )""",
    """
    CREATE TABLE IF NOT EXISTS events (
        position INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        stream_version INTEGER NOT NULL,
        type TEXT NOT NULL,
        event_id TEXT NOT NULL UNIQUE,
        recorded_at_us INTEGER NOT NULL,
        key_id TEXT NOT NULL,
        commitment BLOB NOT NULL,
        salt BLOB,
        payload BLOB,
        digest BLOB NOT NULL,
        erased_by INTEGER NOT NULL DEFAULT 0,
        traceparent TEXT NOT NULL DEFAULT ''
    )""",
    # Where the events of a stream are. Names of streams are random to a B-tree: each one inserted dirties a page, in
    # the log and again in the file. 16 bytes a row instead of the name's 50 make those pages few; batches go in sorted.
    """
    CREATE TABLE IF NOT EXISTS event_streams (
        key INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (key, position)
    ) WITHOUT ROWID""",
)
_KEPT = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in COLUMNS if name not in {"salt", "payload", "erased_by"})
_TRIGGERS = (
    """
    CREATE TRIGGER IF NOT EXISTS events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    f"""
    CREATE TRIGGER IF NOT EXISTS events_only_erase BEFORE UPDATE ON events
    WHEN NOT (
        OLD.erased_by = 0 AND NEW.salt IS NULL AND NEW.payload IS NULL AND NEW.erased_by > OLD.position
        AND EXISTS (SELECT 1 FROM events WHERE position = NEW.erased_by) AND {_KEPT}
    )
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",  # noqa: S608 -- constants
    """
    CREATE TRIGGER IF NOT EXISTS event_streams_no_delete BEFORE DELETE ON event_streams
    BEGIN SELECT RAISE(ABORT, 'the index of streams is append-only'); END""",
    """
    CREATE TRIGGER IF NOT EXISTS event_streams_no_update BEFORE UPDATE ON event_streams
    BEGIN SELECT RAISE(ABORT, 'the index of streams is append-only'); END""",
    """
    CREATE TRIGGER IF NOT EXISTS store_no_delete BEFORE DELETE ON store
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END""",
    """
    CREATE TRIGGER IF NOT EXISTS store_only_forward BEFORE UPDATE ON store
    WHEN NEW.store_id <> OLD.store_id OR NEW.head_position < OLD.head_position
        OR NEW.recorded_at_us < OLD.recorded_at_us
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END""",
)
_EVENT = ", ".join(f"e.{name}" for name in COLUMNS)
_OF_KEYS = """
    FROM json_each(?) j CROSS JOIN event_streams s ON s.key = j.value CROSS JOIN events e ON e.position = s.position"""
_READ_STREAMS = f"SELECT {_EVENT}{_OF_KEYS} ORDER BY s.position"
_NEWEST = """
    SELECT j.value, e.stream, e.stream_version FROM json_each(?) j CROSS JOIN events e
    ON e.position = (SELECT max(s.position) FROM event_streams s WHERE s.key = j.value)"""
_VERSION = """
    SELECT e.stream_version FROM event_streams s CROSS JOIN events e ON e.position = s.position
    WHERE s.key = ? AND e.stream = ? ORDER BY s.position DESC LIMIT 1"""
_ERASE = """
    UPDATE events SET salt = NULL, payload = NULL, erased_by = ?
    WHERE position IN (SELECT position FROM event_streams WHERE key = ? AND position < ?)
    AND stream = ? AND erased_by = 0 RETURNING position"""
_HEAD = "SELECT head_position, head_digest, recorded_at_us FROM store"
_MOVE = "UPDATE store SET head_position = ?, head_digest = ?, recorded_at_us = ?"
_UNINDEXED = "SELECT (SELECT count(*) FROM event_streams) <> (SELECT head_position FROM store)"
_OUTDATED = """
    SELECT 1 FROM sqlite_master WHERE name = 'events'
    AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'event_streams')"""
_TEXT = {"stream", "type", "event_id", "key_id", "traceparent"}
_RAW = ", ".join(f"CAST({name} AS BLOB)" if name in _TEXT else name for name in COLUMNS)
_READ_RAW = f"SELECT {_RAW} FROM events WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608 -- constants


class SqliteBackend:
    """Needs SQLite 3.38 or later (JSON and RETURNING built in); erased bytes leave the files, see engine.scrub."""

    def create_schema(self, engine: Engine) -> None:
        """The write lock serialises processes that start at once."""
        with begin_write(engine) as connection:
            if connection.exec_driver_sql(_OUTDATED).first() is not None:
                raise StoreOutdated(OUTDATED)
            for statement in _TABLES + _TRIGGERS:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO store VALUES (1, ?, 0, ?, 0)",
                (str(uuid4()), GENESIS),
            )

    def lock(self, connection: Connection) -> tuple[int, bytes, int]:
        """BEGIN IMMEDIATE took the lock already."""
        ((position, digest, at_us),) = run_sqlite(connection, _HEAD)
        return position, digest, at_us

    def move(self, connection: Connection, position: int, digest: bytes, recorded_at_us: int) -> None:
        """One statement."""
        run_sqlite(connection, _MOVE, (position, digest, recorded_at_us))

    def versions(self, connection: Connection, streams: Sequence[str]) -> Iterable[tuple[str, int]]:
        """One index seek a stream; one more statement for each of those whose keys are the same."""
        keys = {stream: key_of(stream) for stream in streams}
        newest = run_sqlite(connection, _NEWEST, (_listed(keys.values()),))
        versions = {row[1]: row[2] for row in newest if row[1] in keys}
        held = {row[0] for row in newest}
        for stream in [stream for stream, key in keys.items() if key in held and stream not in versions]:
            versions.update((stream, row[0]) for row in run_sqlite(connection, _VERSION, (keys[stream], stream)))
        return versions.items()

    def read_streams(self, connection: Connection, streams: Sequence[str]) -> Iterable[StoredEvent]:
        """One index seek a stream."""
        wanted = set(streams)
        rows = run_sqlite(connection, _READ_STREAMS, (_listed(map(key_of, wanted)),))
        return (StoredEvent._make(row) for row in rows if row[1] in wanted)

    def erase(self, connection: Connection, stream: str, erased_by: int) -> Iterable[int]:
        """By the index of streams."""
        return connection.exec_driver_sql(_ERASE, (erased_by, key_of(stream), erased_by, stream)).scalars().all()

    def insert(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Many rows a statement."""
        insert_rows(connection, "events", len(COLUMNS), rows)
        # In the order of their keys: neighbours share pages.
        insert_rows(connection, "event_streams", 2, sorted([(key_of(row[1]), row[0]) for row in rows]))

    def unindexed(self, connection: Connection) -> bool:
        """Counts both."""
        return bool(connection.exec_driver_sql(_UNINDEXED).scalar())

    def read_raw(self, connection: Connection, after: int, limit: int) -> Iterable[StoredEvent]:
        """Reads text as bytes: the driver would raise on what is no longer UTF-8."""
        for row in connection.exec_driver_sql(_READ_RAW, (after, limit)):
            yield StoredEvent(
                *(
                    value.decode(errors="replace") if name in _TEXT else value
                    for name, value in zip(COLUMNS, row, strict=True)
                )
            )


@lru_cache(maxsize=16_384)
def key_of(stream: str) -> int:
    """64 bits of the name's hash; streams of the same key are told apart by their names."""
    return int.from_bytes(blake2b(stream.encode(), digest_size=8).digest(), "big", signed=True)


def _listed(keys: Iterable[int]) -> str:
    """In the order of the index, each once: one statement and one parameter for any number."""
    return json.dumps(sorted(set(keys)))
