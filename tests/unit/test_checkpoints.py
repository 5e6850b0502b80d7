"""SQLite's log is copied beside its writer, and begins again."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.kernel.store import checkpoints
from services.kernel.store.checkpoints import Checkpoints
from services.kernel.store.engine import KeptWriter, begin_write, open_engine, run_sqlite, scrub

ROW = b"x" * 3_000


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    opened = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    opened.execute("PRAGMA journal_mode=WAL")
    opened.execute("PRAGMA wal_autocheckpoint=0")
    opened.execute("CREATE TABLE t (body BLOB)")
    return opened


@pytest.mark.parametrize(("little", "long"), [(200, 1_000_000), (0, 0)])
def test_a_log_that_only_its_checkpoints_keep_short_begins_again(
    connection: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little: int, long: int
) -> None:
    monkeypatch.setattr(checkpoints, "LITTLE", little)
    monkeypatch.setattr(checkpoints, "LONG", long)
    kept = Checkpoints(tmp_path / "a.db", rows=50)
    for _ in range(1_000):
        connection.execute("INSERT INTO t VALUES (?)", (ROW,))
        kept.committed(connection, 1)
        kept.end()
    assert (tmp_path / "a.db-wal").stat().st_size < 100 * 2 * 4_096
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1_000,)
    connection.close()


def test_a_file_that_has_gone_is_not_made_again(connection: sqlite3.Connection, tmp_path: Path) -> None:
    gone = Checkpoints(tmp_path / "gone.db", rows=1)
    gone.committed(connection, 1)
    gone.end()
    assert not (tmp_path / "gone.db").exists()
    connection.close()


def test_an_erasure_leaves_the_files_although_a_checkpoint_is_under_way(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/b.db")
    with begin_write(engine) as connection:
        run_sqlite(connection, "CREATE TABLE t (body TEXT)")
        run_sqlite(connection, "INSERT INTO t VALUES ('words to be erased')")
    with begin_write(engine) as connection:
        run_sqlite(connection, "DELETE FROM t")
    kept: Checkpoints = engine.get_execution_options()["planier_checkpoints"]
    with kept.none_other(1):
        assert not scrub(engine, 10)
    assert scrub(engine, 1_000)
    engine.dispose()
    assert not [file for file in tmp_path.glob("b.db*") if b"words to be erased" in file.read_bytes()]


def test_what_is_committed_through_an_engine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(Checkpoints, "committed", lambda _, __, changed: counted.append(changed))
    engine = open_engine(f"sqlite:///{tmp_path}/c.db")
    with begin_write(engine) as connection:
        run_sqlite(connection, "CREATE TABLE t (n INTEGER)")
    with begin_write(engine, flushed=False) as connection:
        run_sqlite(connection, "INSERT INTO t VALUES (1), (2), (3)")
    with closing(sqlite3.connect(tmp_path / "c.db")) as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (3,)
    engine.dispose()
    assert counted == [0, 3]


def test_whoever_writes_through_the_engine_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(Checkpoints, "committed", lambda _self, _connection, changed: told.append(changed))
    engine = open_engine(f"sqlite:///{tmp_path}/c.db")
    with begin_write(engine) as connection:
        run_sqlite(connection, "CREATE TABLE t (body BLOB NOT NULL)")
        run_sqlite(connection, "INSERT INTO t VALUES (1), (2)")
    kept = KeptWriter(engine)
    kept.run("INSERT INTO t VALUES (3), (4), (5)", ())
    with kept.transaction() as connection:
        run_sqlite(connection, "INSERT INTO t VALUES (6)")
    with pytest.raises(sqlite3.IntegrityError):
        kept.run("INSERT INTO t VALUES (7), (NULL)", ())
    assert told == [2, 3, 1]
    kept.close()
    engine.dispose()
