"""What every event store does, on every database."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.kernel.clock import from_microseconds
from services.kernel.config import CannotStart
from services.kernel.store import open_store
from services.kernel.store.base import GENESIS, Append, Committed, Conflict, EventStore, Fault, Position, StoredEvent
from services.kernel.store.chain import commitment, verify_run
from services.kernel.store.engine import begin_write
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import START, HandClock, append_one, commit, erase, new_event

WRITERS, BATCHES, SIZE = 4, 12, 3


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/store.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(url: str, clock: HandClock) -> Iterator[SqlEventStore]:
    opened = open_store(url, clock=clock)
    yield opened
    opened.close()


def everything(store: EventStore) -> list[StoredEvent]:
    events: list[StoredEvent] = []
    while page := store.read_all(events[-1].position if events else 0, 50):
        events.extend(page)
    return events


def append_and_fail(store: EventStore, statement: str = "SELECT 1") -> None:
    with store.write() as transaction:
        transaction.append([append_one("a", b"x")])
        transaction.connection.execute(text(statement))
        raise ZeroDivisionError


def test_a_new_store_is_empty_at_genesis(store: EventStore) -> None:
    assert store.head() == Position(store.store_id, 0, GENESIS)
    assert store.position_at(0) == store.head()
    assert store.position_at(1) is None
    assert store.read_all(0, 10) == ()
    assert store.verify() == ()


def test_positions_are_consecutive_over_the_appends_of_a_batch(store: EventStore) -> None:
    results = store.append([append_one("a", b"1", b"2"), append_one("b", b"3")])
    assert results == (Committed("a", 2, 1, 2), Committed("b", 1, 3, 3))
    assert [(event.position, event.stream, event.stream_version) for event in everything(store)] == [
        (1, "a", 1),
        (2, "a", 2),
        (3, "b", 1),
    ]


def test_an_event_is_read_as_it_was_appended(store: EventStore, clock: HandClock) -> None:
    given = new_event(b"\x00\xff payload")
    store.append([Append("a", 0, (given,))], traceparent="00-trace")
    (event,) = store.read_stream("a")
    assert (event.type, event.payload, event.event_id) == (given.type, given.payload, given.event_id)
    assert (event.key_id, event.erased_by, event.traceparent) == ("identity", 0, "00-trace")
    assert from_microseconds(event.recorded_at_us) == clock.now()
    assert event.salt is not None
    assert len(event.salt) == 32
    assert event.commitment == commitment(event.salt, given.payload)


def test_a_conflict_concerns_its_append_only(store: EventStore) -> None:
    commit(store, "a", b"1")
    results = store.append(
        [
            append_one("a", b"x", expected_version=0),
            append_one("b", b"2", expected_version=0),
            append_one("a", b"3", expected_version=1),
            append_one("c", b"x", expected_version=5),
        ]
    )
    assert results == (Conflict("a", 0, 1), Committed("b", 1, 2, 2), Committed("a", 2, 3, 3), Conflict("c", 5, 0))
    assert [event.payload for event in everything(store)] == [b"1", b"2", b"3"]


def test_an_append_sees_those_before_it_in_the_batch_and_the_transaction(store: EventStore) -> None:
    with store.write() as transaction:
        first = transaction.append(
            [append_one("a", b"1", expected_version=0), append_one("a", b"2", expected_version=0)]
        )
        second = transaction.append([append_one("a", b"3", expected_version=1)])
        seen = transaction.read_stream("a")
    assert first == (Committed("a", 1, 1, 1), Conflict("a", 0, 1))
    assert second == (Committed("a", 2, 2, 2),)
    assert seen == store.read_stream("a")


def test_an_exception_writes_nothing(store: EventStore) -> None:
    with pytest.raises(ZeroDivisionError):
        append_and_fail(store)
    assert store.head().position == 0
    assert commit(store, "a", b"1").first_position == 1


def test_a_table_beside_changes_with_the_events(store: SqlEventStore) -> None:
    with begin_write(store.engine) as connection:
        connection.execute(text("CREATE TABLE beside (stream TEXT)"))
    with store.write() as transaction:
        transaction.connection.execute(text("INSERT INTO beside VALUES ('kept')"))
        transaction.append([append_one("a", b"1")])
    with pytest.raises(ZeroDivisionError):
        append_and_fail(store, "INSERT INTO beside VALUES ('dropped')")
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT stream FROM beside")).scalars().all() == ["kept"]


def test_an_event_id_is_used_once_and_the_error_shows_no_payload(store: EventStore) -> None:
    given = new_event(b"SECRET")
    store.append([Append("a", None, (given,))])
    with pytest.raises(IntegrityError) as caught:
        store.append([append_one("b", b"SECRET"), Append("b", None, (given,))])
    assert "SECRET" not in str(caught.value)
    assert store.head().position == 1


def test_a_failed_append_cannot_be_committed(store: EventStore) -> None:
    given = new_event()
    commit(store, "a", b"1")

    def swallow() -> None:
        with store.write() as transaction, pytest.raises(IntegrityError):
            transaction.append([append_one("b", b"1"), Append("b", None, (given, given))])

    with pytest.raises((RuntimeError, DBAPIError)):
        swallow()
    assert store.verify() == ()
    assert len(everything(store)) == 1


def test_an_append_holds_an_event(store: EventStore) -> None:
    with pytest.raises(ValueError, match="at least one"):
        store.append([Append("a", None, ())])


def test_recorded_at_never_goes_back(store: EventStore, clock: HandClock) -> None:
    commit(store, "a", b"1")
    clock.turn(-3600)
    commit(store, "a", b"2")
    with store.write() as transaction:
        assert transaction.recorded_at == START
    clock.turn(3601)
    commit(store, "a", b"3")
    first, second, third = (event.recorded_at_us for event in store.read_stream("a"))
    assert first == second
    assert third == first + 1_000_000


def test_recorded_at_survives_a_restart_with_the_clock_behind(url: str, store: EventStore) -> None:
    commit(store, "a", b"1")
    behind = open_store(url, clock=HandClock(START.replace(year=2025)))
    commit(behind, "a", b"2")
    behind.close()
    first, second = store.read_stream("a")
    assert first.recorded_at_us == second.recorded_at_us


def test_read_all_pages_without_gap(store: EventStore) -> None:
    commit(store, "a", *(b"%d" % number for number in range(7)))
    pages = [store.read_all(after, 3) for after in (0, 3, 6, 7)]
    assert [[event.position for event in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7], []]


def test_a_reader_can_check_the_chain_page_by_page(store: EventStore) -> None:
    for number in range(5):
        commit(store, f"s{number % 2}", b"one", b"two")
    digest = GENESIS
    for after in (0, 4, 8):
        digest = verify_run(digest, store.read_all(after, 4))
    assert digest == store.head().digest
    assert store.position_at(10) == store.head()


def test_a_store_opened_again_is_the_same(url: str, store: EventStore, clock: HandClock) -> None:
    commit(store, "a", b"1")
    again = open_store(url, clock=clock)
    assert again.head() == store.head()
    assert commit(again, "a", b"2").first_position == 2
    again.close()


def test_wakes_listeners_after_commits_only(store: SqlEventStore) -> None:
    seen: list[int] = []
    store.on_commit(lambda: seen.append(store.head().position))
    commit(store, "a", b"1")
    with pytest.raises(ZeroDivisionError):
        append_and_fail(store)
    store.append([append_one("a", b"x", expected_version=9)])
    commit(store, "a", b"2")
    assert seen == [1, 2]


def test_a_failing_listener_does_not_undo_a_commit(store: SqlEventStore) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    store.on_commit(fail)
    assert commit(store, "a", b"1").first_position == 1


def test_the_codec_decides_what_is_stored_and_committed_to(url: str, clock: HandClock) -> None:
    class Reversing:
        def encode(self, payload: bytes) -> tuple[str, bytes]:
            return "reversing", payload[::-1]

        def decode(self, key_id: str, stored: bytes) -> bytes:
            assert key_id == "reversing"
            return stored[::-1]

    store = open_store(url, clock=clock, codec=Reversing())
    commit(store, "a", b"abc")
    (event,) = store.read_stream("a")
    assert (event.key_id, event.payload) == ("reversing", b"cba")
    assert store.codec.decode(event.key_id, b"cba") == b"abc"
    assert store.verify() == ()
    store.close()


# Erasure


def test_erasing_forgets_the_events_before_and_keeps_the_proof(store: SqlEventStore) -> None:
    commit(store, "a", b"secret 1", b"secret 2")
    commit(store, "b", b"kept")
    before = store.read_stream("a")
    assert erase(store, "a") == (1, 2)
    after = store.read_stream("a")
    assert after[:2] == tuple(event._replace(payload=None, salt=None, erased_by=4) for event in before)
    assert after[2].payload == b"erased"
    assert store.read_stream("b")[0].payload == b"kept"
    assert store.verify() == ()
    assert verify_run(GENESIS, everything(store)) == store.head().digest


def test_what_another_process_erased_is_read_from_no_memory(url: str, store: SqlEventStore, clock: HandClock) -> None:
    commit(store, "a", b"secret 1", b"secret 2")
    commit(store, "b", b"kept")
    other = open_store(url, clock=clock)
    assert store.read_all(0, 10) == other.read_all(0, 10)
    erase(other, "a")
    assert [event.payload for event in store.read_all(0, 10)] == [None, None, b"kept", b"erased"]
    commit(store, "b", b"after the other's")
    assert store.read_all(0, 10) == other.read_all(0, 10)
    assert store.read_all(4, 10) == other.read_all(4, 10)
    other.close()


def test_erasing_again_leaves_what_was_erased_first(store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    erase(store, "a")
    assert erase(store, "a") == (2,)
    assert [event.erased_by for event in store.read_stream("a")] == [2, 3, 0]


@pytest.mark.parametrize("erased_by", [3, 99])
def test_erasing_cites_an_existing_position(store: SqlEventStore, erased_by: int) -> None:
    commit(store, "a", b"1", b"2")
    with pytest.raises(DBAPIError), store.write() as transaction:
        transaction.erase("a", erased_by)
    assert [event.payload for event in store.read_stream("a")] == [b"1", b"2"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL, erased_by = 1 WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL, erased_by = 9 WHERE position = 1",
        "UPDATE events SET payload = NULL, erased_by = 3 WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL, erased_by = 3, stream = 'z' WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL, erased_by = 3, traceparent = 'z' WHERE position = 1",
        "UPDATE events SET payload = NULL, salt = NULL, erased_by = 3, digest = salt WHERE position = 1",
        "UPDATE events SET type = 'z' WHERE position = 1",
        "UPDATE events SET erased_by = 4 WHERE position = 2",
        "UPDATE store SET head_position = 1",
        "UPDATE store SET store_id = 'z'",
        "UPDATE store SET recorded_at_us = 0",
        "DELETE FROM store",
    ],
)
def test_the_database_refuses_any_other_change(store: SqlEventStore, statement: str) -> None:
    commit(store, "other", b"first")
    commit(store, "a", b"1")
    erase(store, "a")
    commit(store, "a", b"2")
    with pytest.raises(IntegrityError, match="append-only"), begin_write(store.engine) as connection:
        connection.execute(text(statement))
    assert store.verify() == ()


def test_the_database_refuses_replacement_and_truncation(store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    statement = "TRUNCATE events"
    if store.engine.dialect.name == "sqlite":
        statement = "REPLACE INTO events SELECT * FROM events"
    with pytest.raises(IntegrityError, match="append-only"), begin_write(store.engine) as connection:
        connection.execute(text(statement))
    assert store.verify() == ()


# Verification


def tamper(store: SqlEventStore, *statements: str) -> None:
    """Changes rows as somebody who owns the database can."""
    with begin_write(store.engine) as connection:
        for name, table in (
            ("events_no_delete", "events"),
            ("events_only_erase", "events"),
            ("store_only_forward", "store"),
        ):
            on = "" if store.engine.dialect.name == "sqlite" else f" ON {table}"
            connection.execute(text(f"DROP TRIGGER {name}{on}"))
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ("stream = 'b'", {(3, "CHAIN_BROKEN")}),
        ("stream_version = 7", {(3, "CHAIN_BROKEN")}),
        ("type = 'planier.test.v1.Happenee'", {(3, "CHAIN_BROKEN")}),
        ("event_id = '0'", {(3, "CHAIN_BROKEN")}),
        ("recorded_at_us = recorded_at_us + 1", {(3, "CHAIN_BROKEN")}),
        ("key_id = 'jdentity'", {(3, "CHAIN_BROKEN")}),
        ("commitment = digest", {(3, "CHAIN_BROKEN"), (3, "PAYLOAD_ALTERED")}),
        ("digest = commitment", {(3, "CHAIN_BROKEN"), (4, "CHAIN_BROKEN")}),
        ("payload = salt", {(3, "PAYLOAD_ALTERED")}),
        ("salt = payload", {(3, "PAYLOAD_ALTERED")}),
        ("payload = NULL, salt = NULL", {(3, "PAYLOAD_ALTERED")}),
        ("payload = NULL, salt = NULL, erased_by = 99", {(3, "PAYLOAD_ALTERED")}),
        ("erased_by = 5", {(3, "PAYLOAD_ALTERED")}),
    ],
)
def test_verify_finds_any_change(store: SqlEventStore, change: str, faults: set[tuple[int, str]]) -> None:
    commit(store, "a", b"1", b"2", b"3", b"4", b"5")
    tamper(store, f"UPDATE events SET {change} WHERE position = 3")  # noqa: S608 -- constants
    assert {(fault.position, fault.fault) for fault in store.verify()} == faults


@pytest.mark.parametrize(("positions", "first"), [("3", 3), ("2, 3", 2), ("1", 1), ("5", 5), ("1, 2, 3, 4, 5", 1)])
def test_verify_tells_missing_from_erased(store: SqlEventStore, positions: str, first: int) -> None:
    commit(store, "a", b"1", b"2", b"3", b"4")
    erase(store, "a")
    assert store.verify() == ()
    tamper(store, f"DELETE FROM events WHERE position IN ({positions})")  # noqa: S608 -- constants
    assert [(fault.position, fault.fault) for fault in store.verify()] == [(first, "POSITION_MISSING")]


def test_verify_finds_a_position_moved_away(store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2", b"3")
    tamper(store, "UPDATE events SET position = 4611686018427387906 WHERE position = 2")
    assert {(fault.position, fault.fault) for fault in store.verify()} == {(2, "POSITION_MISSING"), (4, "CHAIN_BROKEN")}


def test_verify_finds_an_event_put_in_behind_the_head(store: SqlEventStore) -> None:
    commit(store, "a", b"1", b"2")
    tamper(store, "UPDATE store SET head_position = 1")
    assert {(fault.position, fault.fault) for fault in store.verify()} == {(1, "CHAIN_BROKEN"), (2, "CHAIN_BROKEN")}


def test_the_database_refuses_to_change_the_index_of_streams_and_verify_counts_it(store: SqlEventStore) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("the index is the database's own")
    commit(store, "a", b"1", b"2")
    for statement in ("DELETE FROM event_streams", "UPDATE event_streams SET position = 9"):
        with pytest.raises(IntegrityError, match="append-only"), begin_write(store.engine) as connection:
            connection.execute(text(statement))
    with begin_write(store.engine) as connection:
        connection.execute(text("DROP TRIGGER event_streams_no_delete"))
        connection.execute(text("DELETE FROM event_streams WHERE position = 1"))
    assert store.verify() == (Fault(2, "INDEX_BROKEN"),)


def test_streams_are_read_together(store: SqlEventStore) -> None:
    commit(store, "a", b"1")
    commit(store, "b", b"2")
    commit(store, "a", b"3")
    with store.write() as transaction:
        transaction.append([append_one("c", b"4")])
        found = transaction.read_streams(["a", "c", "nobody's"])
        assert transaction.append([append_one("nobody's", b"5", expected_version=0)]) == (
            Committed("nobody's", 1, 5, 5),
        )
    assert {name: [event.payload for event in events] for name, events in found.items()} == {
        "a": [b"1", b"3"],
        "c": [b"4"],
    }


def test_a_store_of_an_earlier_format_is_refused(url: str, store: SqlEventStore, clock: HandClock) -> None:
    index = "TABLE event_streams" if store.engine.dialect.name == "sqlite" else "INDEX events_by_stream"
    with begin_write(store.engine) as connection:
        connection.execute(text(f"DROP {index}"))
    with pytest.raises(CannotStart, match="earlier version"):
        open_store(url, clock=clock)


# Concurrency


def read_until(store: EventStore, total: int, seen: list[int], failed: threading.Event) -> None:
    for _ in range(100_000):
        if failed.is_set() or len(seen) >= total:
            return
        seen.extend(event.position for event in store.read_all(seen[-1] if seen else 0, 7))


def test_a_reader_by_position_never_skips_what_threads_append(store: EventStore) -> None:
    total = WRITERS * BATCHES * SIZE
    seen: list[int] = []
    failed = threading.Event()

    def write(writer: int) -> None:
        try:
            for number in range(BATCHES):
                store.append([append_one(f"{writer}-{number % 3}", *[b"x"] * SIZE)])
        except BaseException:
            failed.set()
            raise

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    threads.append(threading.Thread(target=read_until, args=(store, total, seen, failed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(1, total + 1))
    assert store.verify() == ()


def test_a_reader_by_position_never_skips_what_processes_append(url: str, store: EventStore) -> None:
    batches = 60
    total = WRITERS * batches * SIZE
    command = [sys.executable, "-m", "tests.fixtures.store", url]
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([*command, f"w{writer}", str(batches), str(SIZE)], stdin=pipe, stdout=pipe, text=True)
        for writer in range(WRITERS)
    ]
    assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * WRITERS
    seen: list[int] = []
    reader = threading.Thread(target=read_until, args=(store, total, seen, stopped := threading.Event()))
    reader.start()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    try:
        outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    finally:
        stopped.set()
        reader.join()
    read_until(store, total, seen, threading.Event())
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert seen == list(range(1, total + 1))
    acknowledged = sorted(int(line.split()[0]) for output in outputs for line in output.splitlines())
    assert len(acknowledged) == WRITERS * batches
    assert acknowledged[-1] == total
    assert store.verify() == ()


def test_processes_that_start_at_once_share_one_store(url: str) -> None:
    code = (
        "import sys; from services.kernel.store import open_store; from services.kernel.clock import SystemClock;"
        "store = open_store(sys.argv[1], clock=SystemClock()); print(store.store_id); store.close()"
    )
    starts = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE) for _ in range(4)]
    outputs = [start.communicate(timeout=60)[0] for start in starts]
    assert [start.returncode for start in starts] == [0] * 4
    assert len(set(outputs)) == 1


def test_stores_opened_in_one_moment_share_one_database(url: str, clock: HandClock) -> None:
    opened: list[SqlEventStore] = []
    together = threading.Barrier(6)

    def start() -> None:
        together.wait()
        opened.append(open_store(url, clock=clock))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert len({store.store_id for store in opened}) == 1
    for store in opened:
        store.close()


def test_of_two_writers_that_expect_the_same_version_one_wins(store: EventStore) -> None:
    results: list[Committed | Conflict] = []

    def write() -> None:
        results.extend(store.append([append_one("a", b"1", expected_version=0)]))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == ["Committed", "Conflict", "Conflict", "Conflict"]


def test_a_reader_finds_out_that_an_older_copy_was_restored(tmp_path: Path, clock: HandClock) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    store = open_store(f"sqlite:///{path}", clock=clock)
    commit(store, "a", b"1", b"2")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    commit(store, "a", b"3")
    cursor = store.head()
    store.close()
    path.unlink()
    copy.rename(path)
    restored = open_store(f"sqlite:///{path}", clock=clock)
    assert restored.store_id == cursor.store_id
    assert restored.position_at(cursor.position) is None
    commit(restored, "a", b"3")
    assert restored.position_at(cursor.position) not in {cursor, None}
    assert restored.verify() == ()
    restored.close()
