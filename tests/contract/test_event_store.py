"""What every event store does, on every database."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.kernel.clock import from_microseconds
from services.kernel.config import CannotStart
from services.kernel.store import open_store
from services.kernel.store.base import GENESIS, Append, Committed, Conflict, EventStore, Position
from services.kernel.store.chain import commitment, verify_run
from services.kernel.store.engine import begin_write
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import START, HandClock, append_one, commit, everything, new_event


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
