"""What is SQLite's own: pragmas, erased bytes in the files, damaged rows."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from services.kernel.codec import IdentityCodec, KeyUnknown
from services.kernel.store import open_store
from services.kernel.store.engine import KeptWriter, begin_write, open_engine
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import HandClock, commit, erase

SECRET = b"Jeanne Dupont, 12 rue Paradis" * 40


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlEventStore]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db", clock=HandClock())
    yield opened
    opened.close()


def in_files(folder: Path, secret: bytes) -> bool:
    return any(secret in path.read_bytes() for path in folder.iterdir())


def test_a_commit_survives_a_power_cut(store: SqlEventStore) -> None:
    with store.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1


def test_only_what_is_written_unflushed_may_be_taken_back(store: SqlEventStore) -> None:
    def level(connection: Connection) -> object:
        return connection.execute(text("PRAGMA synchronous")).scalar()

    with begin_write(store.engine, flushed=False) as connection:
        connection.execute(text("CREATE TABLE beside (a INTEGER)"))
        assert level(connection) == 1
    with pytest.raises(ZeroDivisionError), begin_write(store.engine, flushed=False):
        raise ZeroDivisionError
    with begin_write(store.engine) as connection:
        assert level(connection) == 2


def test_a_kept_writer_takes_back_what_fails_and_lets_others_write(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/kept.db")
    kept = KeptWriter(engine)
    write = "INSERT INTO kept VALUES (?)"
    with begin_write(engine) as connection:
        connection.execute(text("CREATE TABLE kept (value INTEGER NOT NULL)"))
    for value in (1, 2):
        with kept.transaction() as connection:
            connection.connection.cursor().execute(write, (value,))

    def fail(wrong: int | None) -> None:
        with kept.transaction() as connection:
            connection.connection.cursor().execute(write, (9,))
            connection.connection.cursor().execute(write, (wrong,))
            raise ZeroDivisionError

    for wrong, kind in ((None, sqlite3.IntegrityError), (3, ZeroDivisionError)):
        with pytest.raises(kind):
            fail(wrong)
    with begin_write(engine) as connection:
        connection.execute(text("INSERT INTO kept VALUES (4)"))
    kept.close()
    with kept.transaction() as connection:
        connection.connection.cursor().execute(write, (5,))
    kept.close()
    with engine.connect() as connection:
        assert list(connection.execute(text("SELECT value FROM kept")).scalars()) == [1, 2, 4, 5]
    engine.dispose()


def test_opening_waits_for_a_process_that_is_making_the_database(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # before WAL, this makes the change of mode fail at once
    release = threading.Timer(0.2, other.close)
    release.start()
    open_store(f"sqlite:///{tmp_path}/store.db", clock=HandClock()).close()
    release.join()


def test_erased_bytes_are_in_no_file(store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", SECRET)
    assert in_files(tmp_path, SECRET)
    erase(store, "a")
    assert not in_files(tmp_path, SECRET[:29])
    assert not store.unscrubbed


def test_erased_bytes_that_a_reader_holds_go_at_a_later_write(store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", SECRET)
    with store.engine.connect() as reader:
        assert reader.execute(text("SELECT count(*) FROM events")).scalar() == 1
        erase(store, "a")
        states = [store.unscrubbed]
        assert in_files(tmp_path, SECRET)
    commit(store, "b", b"next")
    assert [*states, store.unscrubbed] == [True, False]
    assert not in_files(tmp_path, SECRET[:29])


def test_erased_bytes_left_by_a_killed_process_go_when_the_store_opens(store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", SECRET)
    commit(store, "a", b"later")
    with begin_write(store.engine) as connection:  # what `erase` does, without the checkpoint after it
        connection.execute(text("UPDATE events SET salt = NULL, payload = NULL, erased_by = 2 WHERE position = 1"))
    assert in_files(tmp_path, SECRET)
    open_store(f"sqlite:///{tmp_path}/store.db", clock=HandClock()).close()
    assert not in_files(tmp_path, SECRET[:29])


@pytest.mark.parametrize("column", ["stream", "type", "event_id", "key_id"])
def test_verify_reads_text_that_is_no_longer_text(store: SqlEventStore, column: str) -> None:
    commit(store, "a", b"1", b"2", b"3")
    with begin_write(store.engine) as connection:
        connection.execute(text("DROP TRIGGER events_only_erase"))
        connection.execute(text(f"UPDATE events SET {column} = CAST(x'ff' AS TEXT) WHERE position = 2"))  # noqa: S608
    assert [(fault.position, fault.fault) for fault in store.verify()] == [(2, "CHAIN_BROKEN")]


@pytest.mark.parametrize("value", ["'text'", "1", "1.5"])
def test_verify_reads_values_of_another_type(store: SqlEventStore, value: str) -> None:
    commit(store, "a", b"1", b"2", b"3")
    with begin_write(store.engine) as connection:
        connection.execute(text("DROP TRIGGER events_only_erase"))
        for column in ("payload", "recorded_at_us", "digest"):
            connection.execute(text(f"UPDATE events SET {column} = {value} WHERE position = 2"))  # noqa: S608
    assert {fault.position for fault in store.verify()} >= {2}


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="file"):
        open_engine("sqlite://")


def test_another_database_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite"):
        open_engine("mysql://host/name")


def test_errors_never_show_parameters(store: SqlEventStore) -> None:
    with store.engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "Jeanne"})
    assert "Jeanne" not in str(caught.value)


def test_a_damaged_file_does_not_open_as_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Exception, match="not a database"):
        open_store(f"sqlite:///{tmp_path}/store.db", clock=HandClock())


def test_the_identity_codec_knows_no_other_key() -> None:
    assert IdentityCodec().decode(*IdentityCodec().encode(b"p")) == b"p"
    with pytest.raises(KeyUnknown):
        IdentityCodec().decode("instrument/2026-03", b"p")
