"""What a projection runner does, on every database."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Engine, Index, Integer, LargeBinary, MetaData, String, Table, inspect, select

from services.kernel.projection import Diverged, Gap, ProjectionRunner, RebuildNeeded
from services.kernel.store import open_store
from services.kernel.store.base import GENESIS, Position, StoredEvent
from services.kernel.store.chain import ChainBroken
from services.kernel.store.engine import begin_write, open_engine
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import HandClock, commit


class Tally:
    """How many events each stream has, and every payload: an upsert and an insert."""

    name = "tally"

    def __init__(self, suffix: str = "", version: int = 1, on_apply: Callable[[], None] | None = None) -> None:
        self.version = version
        self.on_apply = on_apply
        self.metadata = MetaData()
        self.counts = Table(
            f"counts{suffix}",
            self.metadata,
            Column("stream", String, primary_key=True),
            Column("events", Integer, nullable=False),
            Index(f"counts_by_events{suffix}", "events"),
        )
        if version < 3:
            self.payloads = Table(
                f"payloads{suffix}",
                self.metadata,
                Column("position", Integer, primary_key=True, autoincrement=False),
                Column("payload", LargeBinary),
            )

    def beside(self, suffix: str) -> "Tally":
        return Tally(suffix, self.version, self.on_apply)

    def apply(self, connection: Connection, events: Sequence[StoredEvent]) -> None:
        counts, mark = self.counts.name, "?" if connection.dialect.name == "sqlite" else "%s"
        upsert = (
            f"INSERT INTO {counts} VALUES ({mark}, 1)"  # noqa: S608 -- names of tables
            f" ON CONFLICT (stream) DO UPDATE SET events = {counts}.events + 1"
        )
        connection.exec_driver_sql(upsert, [(event.stream,) for event in events])
        if self.version < 3:
            rows = [{"position": event.position, "payload": event.payload} for event in events]
            connection.execute(self.payloads.insert(), rows)
        if self.on_apply:
            self.on_apply()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlEventStore]:
    opened = open_store(f"sqlite:///{tmp_path}/owner.db", clock=HandClock())
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/reader.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    opened = open_engine(url)
    yield opened
    opened.dispose()


def feed(store: SqlEventStore, runner: ProjectionRunner, after: int, limit: int = 1000) -> Position:
    before = store.position_at(after)
    assert before is not None
    events = store.read_all(after, limit)
    return runner.advance(store.store_id, before.digest, events, events[-1].digest)


def content(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    tables = Tally().metadata.sorted_tables
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in tables
        }


def indexes(engine: Engine) -> list[list[str | None]]:
    return [index["column_names"] for index in inspect(engine).get_indexes("counts")]


def reader(store: SqlEventStore, limit: int = 4) -> Callable[[int], Sequence[StoredEvent]]:
    return lambda after: store.read_all(after, limit)


def test_a_new_projection_has_its_tables_and_no_position(engine: Engine) -> None:
    runner = ProjectionRunner(engine, Tally())
    assert runner.position() is None
    assert runner.must_rebuild
    assert content(engine) == {"counts": [], "payloads": []}
    assert indexes(engine) == [["events"]]


def test_effect_and_position_go_together(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2")
    runner = ProjectionRunner(engine, Tally())
    assert feed(store, runner, 0) == store.head()
    commit(store, "b", b"3")
    assert feed(store, runner, 2) == store.head()
    assert ProjectionRunner(engine, Tally()).position() == store.head()
    assert content(engine) == {"counts": [("a", 2), ("b", 1)], "payloads": [(1, b"1"), (2, b"2"), (3, b"3")]}


def test_what_was_applied_is_skipped(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2", b"3")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0, 2)
    assert feed(store, runner, 0, 1).position == 2
    assert feed(store, runner, 1, 1).position == 2
    assert feed(store, runner, 0).position == 3
    assert content(engine)["counts"] == [("a", 3)]


def test_two_runners_that_get_the_same_events_apply_them_once(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2")
    runner = ProjectionRunner(engine, Tally(on_apply=lambda: time.sleep(0.1)))
    positions: list[int] = []
    threads = [threading.Thread(target=lambda: positions.append(feed(store, runner, 0).position)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert positions == [2, 2, 2]
    assert content(engine)["counts"] == [("a", 2)]


def test_an_effect_that_fails_moves_nothing(engine: Engine, store: SqlEventStore) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    commit(store, "a", b"1")
    with pytest.raises(ZeroDivisionError):
        feed(store, ProjectionRunner(engine, Tally(on_apply=fail)), 0)
    assert content(engine)["counts"] == []
    assert feed(store, ProjectionRunner(engine, Tally()), 0).position == 1
    assert content(engine)["counts"] == [("a", 1)]


def test_missing_events_are_a_gap(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2", b"3")
    runner = ProjectionRunner(engine, Tally())
    with pytest.raises(Gap):
        feed(store, runner, 1)
    feed(store, runner, 0, 1)
    with pytest.raises(Gap):
        feed(store, runner, 2)
    assert content(engine)["counts"] == [("a", 1)]


def test_another_history_diverges(engine: Engine, store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", b"1", b"2")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0, 1)
    events = store.read_all(0, 10)
    for previous, given in ((GENESIS, events[1:]), (GENESIS, (_forged(events[0]), events[1]))):
        with pytest.raises(Diverged):
            runner.advance(store.store_id, previous, given, events[-1].digest)
    with pytest.raises(Diverged):
        runner.advance("another store", events[0].digest, events[1:], events[-1].digest)
    assert content(engine)["counts"] == [("a", 1)]


def _forged(event: StoredEvent) -> StoredEvent:
    return event._replace(digest=GENESIS)


def test_a_rebuild_gives_the_same_content_and_indexes(engine: Engine, store: SqlEventStore) -> None:
    for number in range(10):
        commit(store, f"s{number % 3}", b"%d" % number)
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0, 7)
    feed(store, runner, 7)
    before = content(engine)
    for _ in range(3):
        assert runner.rebuild(reader(store), store_id=store.store_id) == store.head()
        assert content(engine) == before
        assert indexes(engine) == [["events"]]
    assert sorted(inspect(engine).get_table_names()) == ["counts", "payloads", "projections"]
    commit(store, "s0", b"after")
    assert feed(store, runner, 10) == store.head()
    assert not runner.must_rebuild


def test_readers_see_the_old_tables_until_the_swap(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    before = content(engine)
    commit(store, "a", b"2", b"3")
    rebuild = runner.begin_rebuild()
    rebuild.load(reader(store, 1), store.store_id)
    rebuild.create_indexes()
    assert content(engine) == before
    assert rebuild.swap() == store.head()
    assert content(engine)["counts"] == [("a", 3)]
    assert runner.position() == store.head()


def test_live_tables_advance_during_a_rebuild_and_never_go_back(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    rebuild = runner.begin_rebuild()
    rebuild.load(reader(store), store.store_id)
    commit(store, "a", b"2")
    feed(store, runner, 1)
    with pytest.raises(Gap):
        rebuild.swap()
    assert content(engine)["counts"] == [("a", 2)]
    rebuild.load(reader(store), store.store_id)
    assert rebuild.swap() == store.head()
    assert content(engine)["counts"] == [("a", 2)]


def test_a_reader_during_swaps_sees_one_whole_state(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", *[b"x"] * 20)
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    before, seen, done = content(engine), [], threading.Event()

    def read() -> None:
        for _ in range(100_000):
            if done.is_set():
                return
            with engine.connect() as connection:
                seen.append(connection.execute(select(Tally().counts)).all() == [("a", 20)])

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(5):
        runner.rebuild(reader(store, 20), store_id=store.store_id)
    done.set()
    thread.join()
    assert seen
    assert all(seen)
    assert content(engine) == before


def test_another_version_forces_a_rebuild_and_drops_the_old_tables(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    feed(store, ProjectionRunner(engine, Tally()), 0)
    newer = ProjectionRunner(engine, Tally(version=3))
    assert newer.must_rebuild
    assert newer.position() is None
    with pytest.raises(RebuildNeeded):
        feed(store, newer, 0)
    newer.rebuild(reader(store), store_id=store.store_id)
    assert newer.position() == store.head()
    assert sorted(inspect(engine).get_table_names()) == ["counts", "projections"]
    with pytest.raises(RebuildNeeded):
        feed(store, ProjectionRunner(engine, Tally()), 0)


def test_an_unfinished_rebuild_is_begun_again(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    runner.begin_rebuild().load(reader(store), store.store_id)
    assert ProjectionRunner(engine, Tally()).rebuild(reader(store), store_id=store.store_id) == store.head()
    assert sorted(inspect(engine).get_table_names()) == ["counts", "payloads", "projections"]


def test_a_rebuild_checks_what_it_reads(engine: Engine, store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    before = content(engine)
    with pytest.raises(ChainBroken):
        runner.rebuild(lambda after: [_forged(event) for event in store.read_all(after, 1)], store_id=store.store_id)
    assert content(engine) == before


def test_after_a_restore_the_rebuilt_tables_may_be_behind(engine: Engine, store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", b"1", b"2", b"3")
    runner = ProjectionRunner(engine, Tally())
    feed(store, runner, 0)
    other = open_store(f"sqlite:///{tmp_path}/other.db", clock=HandClock())
    commit(other, "b", b"1")
    with begin_write(other.engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER store_only_forward")
        connection.exec_driver_sql("UPDATE store SET store_id = ?", (store.store_id,))
    commit(other, "b", b"2", b"3")
    with pytest.raises(Diverged):
        feed(other, runner, 0)
    with begin_write(other.engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER events_no_delete")
        connection.exec_driver_sql("DELETE FROM events WHERE position = 3")
    # A restored copy is opened, not swapped under a process that remembers what it committed.
    other.close()
    other = open_store(f"sqlite:///{tmp_path}/other.db", clock=HandClock())
    with pytest.raises(Gap):
        runner.rebuild(reader(other), store_id=store.store_id)
    assert runner.rebuild(reader(other), store_id=store.store_id, diverged=True).position == 2
    assert content(engine)["counts"] == [("b", 2)]
    other.close()


def test_a_projection_must_carry_the_suffix(engine: Engine) -> None:
    class Careless(Tally):
        def beside(self, suffix: str) -> "Tally":
            return super().beside(suffix[:0])

    with pytest.raises(ValueError, match="suffix"):
        ProjectionRunner(engine, Careless()).begin_rebuild()


def test_a_process_killed_half_way_leaves_effect_and_position_together(store: SqlEventStore, tmp_path: Path) -> None:
    commit(store, "a", *[b"x"] * 400)
    code = (
        "import sys; from services.kernel.projection import ProjectionRunner\n"
        "from services.kernel.store import open_store; from services.kernel.store.engine import open_engine\n"
        "from tests.contract.test_projection import Tally, feed; from tests.fixtures.store import HandClock\n"
        "store = open_store(sys.argv[1], clock=HandClock())\n"
        "runner = ProjectionRunner(open_engine(sys.argv[2]), Tally())\n"
        "for after in range(400): print(feed(store, runner, after, 1).position, flush=True)\n"
    )
    arguments = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/owner.db", f"sqlite:///{tmp_path}/reader.db"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(25):
            process.stdout.readline()
        process.kill()
    with sqlite3.connect(tmp_path / "reader.db") as connection:
        position = connection.execute("SELECT position FROM projections").fetchone()[0]
        counted = connection.execute("SELECT events FROM counts").fetchone()[0]
    connection.close()
    assert position == counted >= 25
