"""PostgreSQL under a store: the store's one row is the lock that makes positions gapless and visible in order."""

from collections.abc import Iterable, Sequence
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from services.kernel.store.backend import COLUMNS, EVENTS, OUTDATED, StoreOutdated
from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.engine import begin_write, lock_schema

# Order by bytes, as SQLite does, and faster than any locale's.
_TABLES = """
    CREATE TABLE store (
        singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
        store_id TEXT NOT NULL,
        head_position BIGINT NOT NULL,
        head_digest BYTEA NOT NULL,
        recorded_at_us BIGINT NOT NULL
    );
    CREATE TABLE events (
        position BIGINT PRIMARY KEY,
        stream TEXT COLLATE "C" NOT NULL,
        stream_version BIGINT NOT NULL,
        type TEXT COLLATE "C" NOT NULL,
        event_id TEXT COLLATE "C" NOT NULL UNIQUE,
        recorded_at_us BIGINT NOT NULL,
        key_id TEXT COLLATE "C" NOT NULL,
        commitment BYTEA NOT NULL,
        salt BYTEA,
        payload BYTEA,
        digest BYTEA NOT NULL,
        erased_by BIGINT NOT NULL DEFAULT 0,
        traceparent TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX events_by_stream ON events USING hash (stream);
    ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL
"""
_KEPT = " AND ".join(f"NEW.{name} = OLD.{name}" for name in COLUMNS if name not in {"salt", "payload", "erased_by"})
_TRIGGERS = f"""
    CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE integrity_constraint_violation USING MESSAGE = 'events are append-only'; END $$;
    CREATE FUNCTION only_erase() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.erased_by = 0 AND NEW.salt IS NULL AND NEW.payload IS NULL AND NEW.erased_by > OLD.position
            AND EXISTS (SELECT 1 FROM events WHERE position = NEW.erased_by) AND {_KEPT}
        THEN RETURN NEW; END IF;
        RAISE integrity_constraint_violation USING MESSAGE = 'events are append-only';
    END $$;
    CREATE FUNCTION only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.store_id = OLD.store_id AND NEW.head_position >= OLD.head_position
            AND NEW.recorded_at_us >= OLD.recorded_at_us
        THEN RETURN NEW; END IF;
        RAISE integrity_constraint_violation USING MESSAGE = 'the store is append-only';
    END $$;
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER events_only_erase BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION only_erase();
    CREATE TRIGGER store_no_delete BEFORE DELETE ON store FOR EACH ROW EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER store_no_truncate BEFORE TRUNCATE ON store EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER store_only_forward BEFORE UPDATE ON store FOR EACH ROW EXECUTE FUNCTION only_forward()
"""  # noqa: S608 -- constants
_LOCK = "SELECT head_position, head_digest, recorded_at_us FROM store FOR UPDATE"
_MOVE = "UPDATE store SET head_position = %s, head_digest = %s, recorded_at_us = %s"
# Fenced by OFFSET: before the first ANALYZE a planner that could join freely would read the whole table.
_VERSIONS = """
    SELECT s, v FROM unnest(%s::text[]) s
    CROSS JOIN LATERAL (SELECT max(stream_version) v FROM events WHERE stream = s COLLATE "C" OFFSET 0) e
    WHERE v IS NOT NULL"""
_READ_STREAMS = f"""
    SELECT e.* FROM unnest(%s::text[]) s
    CROSS JOIN LATERAL ({EVENTS} WHERE stream = s COLLATE "C" OFFSET 0) e ORDER BY e.position"""  # noqa: S608
_ERASE = """
    UPDATE events SET salt = NULL, payload = NULL, erased_by = %s
    WHERE stream = %s AND position < %s AND erased_by = 0 RETURNING position"""
_OUTDATED = "SELECT to_regclass('events') IS NOT NULL AND to_regclass('events_by_stream') IS NULL"
_COPY = f"COPY events ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_TYPES = ("int8", "text", "int8", "text", "text", "int8", "text", *["bytea"] * 4, "int8", "text")
_READ_RAW = f"{EVENTS} WHERE position > %s ORDER BY position LIMIT %s"


class PostgresBackend:
    """Needs PostgreSQL 14 or later, and `synchronous_commit` on: a server set otherwise is refused.

    The lock is taken on the store's row before the first read and held until commit; another writer's next statement
    sees that commit (READ COMMITTED), so no position is ever seen before a lower one. It costs no round trip of its
    own, as an advisory lock would. Triggers refuse changes to anybody; that the service's role may not drop them
    is a grant, made at deployment. An erased payload leaves its old row version in the files until vacuum removes it
    and the page is reused, and in WAL archives until they expire: run `VACUUM events` after erasures, and keep
    archives no longer than retention allows.
    """

    def create_schema(self, engine: Engine) -> None:
        """An advisory lock serialises processes that start at once."""
        with begin_write(engine) as connection:
            if connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off":
                raise RuntimeError("synchronous_commit is off: what is acknowledged could be lost")
            lock_schema(connection)
            if connection.exec_driver_sql(_OUTDATED).scalar():
                raise StoreOutdated(OUTDATED)
            if connection.exec_driver_sql("SELECT to_regclass('store')").scalar() is not None:
                return
            connection.exec_driver_sql(_TABLES + ";" + _TRIGGERS)
            connection.exec_driver_sql("INSERT INTO store VALUES (1, %s, 0, %s, 0)", (str(uuid4()), GENESIS))

    def lock(self, connection: Connection) -> tuple[int, bytes, int]:
        """One round trip locks and reads."""
        row = connection.exec_driver_sql(_LOCK).one()
        return row[0], row[1], row[2]

    def move(self, connection: Connection, position: int, digest: bytes, recorded_at_us: int) -> None:
        """One round trip."""
        connection.exec_driver_sql(_MOVE, (position, digest, recorded_at_us))

    def versions(self, connection: Connection, streams: Sequence[str]) -> Iterable[tuple[str, int]]:
        """One index seek a stream."""
        return ((row[0], row[1]) for row in connection.exec_driver_sql(_VERSIONS, (list(streams),)))

    def read_streams(self, connection: Connection, streams: Sequence[str]) -> Iterable[StoredEvent]:
        """One index seek a stream."""
        return map(StoredEvent._make, connection.exec_driver_sql(_READ_STREAMS, (list(streams),)))

    def erase(self, connection: Connection, stream: str, erased_by: int) -> Iterable[int]:
        """By the index of streams."""
        return connection.exec_driver_sql(_ERASE, (erased_by, stream, erased_by)).scalars().all()

    def unindexed(self, connection: Connection) -> bool:  # noqa: ARG002 -- the contract's
        """The index is the database's own."""
        return False

    def insert(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Binary COPY."""
        driver = connection.connection.dbapi_connection
        cursor: psycopg.Cursor[tuple[object, ...]] = driver.cursor()  # type: ignore[union-attr, assignment]
        try:
            with cursor.copy(_COPY) as copy:
                copy.set_types(_TYPES)
                for row in rows:
                    copy.write_row(row)
        except psycopg.IntegrityError as error:
            raise IntegrityError(_COPY, None, error, hide_parameters=True) from None

    def read_raw(self, connection: Connection, after: int, limit: int) -> Iterable[StoredEvent]:
        """PostgreSQL keeps columns to their types."""
        return (StoredEvent._make(row) for row in connection.exec_driver_sql(_READ_RAW, (after, limit)))
