"""SQLite under a store: one writer at a time gives gapless positions that become visible in order."""

import json
from collections.abc import Iterable, Sequence
from uuid import uuid4

from sqlalchemy import Connection, Engine

from services.kernel.store.backend import COLUMNS
from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.engine import begin_write, insert_rows

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
        traceparent TEXT NOT NULL DEFAULT '',
        UNIQUE (stream, stream_version)
    )""",
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
    CREATE TRIGGER IF NOT EXISTS store_no_delete BEFORE DELETE ON store
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END""",
    """
    CREATE TRIGGER IF NOT EXISTS store_only_forward BEFORE UPDATE ON store
    WHEN NEW.store_id <> OLD.store_id OR NEW.head_position < OLD.head_position
        OR NEW.recorded_at_us < OLD.recorded_at_us
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END""",
)
# min()/max() over an index prefix is one seek; GROUP BY would walk every version of each stream.
_VERSIONS = """
    SELECT value, coalesce((SELECT max(stream_version) FROM events WHERE stream = value), 0) FROM json_each(?)"""
_TEXT = {"stream", "type", "event_id", "key_id", "traceparent"}
_RAW = ", ".join(f"CAST({name} AS BLOB)" if name in _TEXT else name for name in COLUMNS)
_READ_RAW = f"SELECT {_RAW} FROM events WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608 -- constants


class SqliteBackend:
    """Needs SQLite 3.38 or later (JSON and RETURNING built in); erased bytes leave the files, see engine.scrub."""

    def create_schema(self, engine: Engine) -> None:
        """The write lock serialises processes that start at once."""
        with begin_write(engine) as connection:
            for statement in _TABLES + _TRIGGERS:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO store VALUES (1, ?, 0, ?, 0)",
                (str(uuid4()), GENESIS),
            )

    def lock(self, connection: Connection) -> tuple[int, bytes, int]:
        """BEGIN IMMEDIATE took the lock already."""
        row = connection.exec_driver_sql("SELECT head_position, head_digest, recorded_at_us FROM store").one()
        return row[0], row[1], row[2]

    def versions(self, connection: Connection, streams: Sequence[str]) -> Iterable[tuple[str, int]]:
        """One index seek a stream."""
        rows = connection.exec_driver_sql(_VERSIONS, (json.dumps(streams),))
        return ((row[0], row[1]) for row in rows)

    def insert(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Many rows a statement."""
        insert_rows(connection, "events", len(COLUMNS), rows)

    def read_raw(self, connection: Connection, after: int, limit: int) -> Iterable[StoredEvent]:
        """Reads text as bytes: the driver would raise on what is no longer UTF-8."""
        for row in connection.exec_driver_sql(_READ_RAW, (after, limit)):
            yield StoredEvent(
                *(
                    value.decode(errors="replace") if name in _TEXT else value
                    for name, value in zip(COLUMNS, row, strict=True)
                )
            )
