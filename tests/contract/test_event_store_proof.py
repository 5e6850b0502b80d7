"""What every event store forgets and proves: erasure, the refusal of any other change, verification."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.kernel.store import open_store
from services.kernel.store.base import GENESIS, Fault
from services.kernel.store.chain import verify_run
from services.kernel.store.engine import begin_write
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import HandClock, commit, erase, everything


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
