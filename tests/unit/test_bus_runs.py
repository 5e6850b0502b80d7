"""Runs: what is packed unpacks to the same events, and nothing that does not follow from the cursor gets through."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planier.common.v1.event_pb2 import EventColumns, EventRun

from services.kernel.bus.columns import pack_columns, traceparents, unpack_any
from services.kernel.bus.jetstream import headers
from services.kernel.bus.runs import ENVELOPE, RUN_BYTES, pack, unpack
from services.kernel.store.base import GENESIS, Position, StoredEvent
from services.kernel.store.chain import ChainBroken, commitment, link

STORE = "store-a"
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"
START = Position(STORE, 0, GENESIS)


def events_of(payloads: Sequence[bytes]) -> tuple[StoredEvent, ...]:
    digest, events = GENESIS, []
    for position, payload in enumerate(payloads, 1):
        salt = position.to_bytes(32, "big")
        committed = commitment(salt, payload)
        header = (position, "stream", position, "test.Declared", f"id-{position}", 1_000 + position, "identity")
        digest = link(digest, *header, committed)
        events.append(StoredEvent(*header, committed, salt, payload, digest, 0, TRACE))
    return tuple(events)


def one_run(count: int) -> EventRun:
    return next(pack(STORE, GENESIS, events_of([b"x"] * count)))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=40), st.integers(ENVELOPE, 3000))
def test_packed_runs_stay_below_their_limit_and_give_the_same_events_back(payloads: list[bytes], limit: int) -> None:
    events, cursor, seen = events_of(payloads), START, list[StoredEvent]()
    for message in pack(STORE, GENESIS, events, limit):
        assert message.ByteSize() <= limit or len(message.events) == 1
        run = unpack(message, cursor)
        assert run is not None
        assert run.previous_digest == cursor.digest
        seen += run.events
        cursor = run.position
    assert tuple(seen) == events


def test_a_thousand_ordinary_events_need_two_messages_at_most() -> None:
    assert len(list(pack(STORE, GENESIS, events_of([bytes(500)] * 1000)))) == 2
    assert RUN_BYTES == 524_288


@given(st.integers(0, 12))
def test_only_what_follows_the_cursor_is_given(seen: int) -> None:
    events = events_of([b"x"] * 10)
    message = next(pack(STORE, GENESIS, events))
    cursor = Position(STORE, seen, events[min(seen, 10) - 1].digest if seen else GENESIS)
    run = unpack(message, cursor)
    assert (run.events if run else ()) == events[seen:]


def test_a_hole_is_not_believed() -> None:
    events = events_of([b"x"] * 4)
    with pytest.raises(ChainBroken):
        unpack(next(pack(STORE, events[1].digest, events[2:])), Position(STORE, 1, events[0].digest))


def test_a_run_of_another_store_is_not_believed() -> None:
    with pytest.raises(ChainBroken):
        unpack(one_run(2), Position("store-b", 0, GENESIS))


@pytest.mark.parametrize("field", ["payload", "stream", "type", "event_id", "commitment", "recorded_at_us", "salt"])
def test_an_altered_event_is_not_believed(field: str) -> None:
    message = one_run(3)
    value = getattr(message.events[1], field)
    setattr(message.events[1], field, value + 1 if isinstance(value, int) else value + value[:1])
    with pytest.raises(ChainBroken):
        unpack(message, START)


def test_events_that_do_not_lead_to_the_stated_digest_are_not_believed() -> None:
    message = one_run(3)
    message.digest = bytes(32)
    with pytest.raises(ChainBroken):
        unpack(message, START)


def test_a_run_cut_short_is_not_believed() -> None:
    message = one_run(3)
    del message.events[2]
    with pytest.raises(ChainBroken):
        unpack(message, START)


def test_an_erased_event_still_verifies() -> None:
    message = one_run(3)
    message.events[0].ClearField("payload")
    message.events[0].ClearField("salt")
    message.events[0].erased_by = 3
    run = unpack(message, START)
    assert run is not None
    assert (run.events[0].payload, run.events[0].salt, run.events[0].erased_by) == (None, None, 3)


def test_an_empty_payload_is_not_an_erased_one() -> None:
    run = unpack(next(pack(STORE, GENESIS, events_of([b""]))), START)
    assert run is not None
    assert run.events[0].payload == b""


def test_other_events_at_the_same_position_have_another_message_id() -> None:
    first, second = events_of([b"a"]), events_of([b"b"])
    one, other = (headers(next(pack(STORE, GENESIS, events))) for events in (first, second))
    assert one["Nats-Msg-Id"] != other["Nats-Msg-Id"]
    assert one["traceparent"] == TRACE


# In columns


def in_columns(events: Sequence[StoredEvent]) -> EventRun:
    (message,) = pack_columns(STORE, GENESIS, events)
    assert message.HasField("columns")
    return message


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=40), st.integers(ENVELOPE, 3000))
def test_columns_stay_below_their_limit_and_give_the_same_events_back(payloads: list[bytes], limit: int) -> None:
    events, cursor, seen = events_of(payloads), START, list[StoredEvent]()
    for message in pack_columns(STORE, GENESIS, events, limit):
        assert message.ByteSize() <= limit or message.first_position == message.last_position
        run = unpack_any(message, cursor)
        assert run is not None
        assert run.previous_digest == cursor.digest
        seen += run.events
        cursor = run.position
    assert tuple(seen) == events


@given(st.integers(0, 12))
def test_only_what_follows_the_cursor_is_given_of_columns(seen: int) -> None:
    events = events_of([b"x"] * 10)
    cursor = Position(STORE, seen, events[min(seen, 10) - 1].digest if seen else GENESIS)
    run = unpack_any(in_columns(events), cursor)
    assert (run.events if run else ()) == events[seen:]


def test_columns_after_a_hole_or_of_another_store_are_not_believed() -> None:
    events = events_of([b"x"] * 4)
    (late,) = pack_columns(STORE, events[1].digest, events[2:])
    for message, cursor in ((late, Position(STORE, 1, events[0].digest)), (late, Position("store-b", 2, bytes(32)))):
        with pytest.raises(ChainBroken):
            unpack_any(message, cursor)


@pytest.mark.parametrize("field", [field.name for field in EventColumns.DESCRIPTOR.fields])
@pytest.mark.parametrize("cut", [False, True])
def test_altered_columns_are_not_believed(field: str, cut: bool) -> None:
    message = in_columns(events_of([b"a", b"b", b"c"]))
    value = getattr(message.columns, field)
    if field == "salts":
        message.columns.salts = value[:-1] if cut else value[:-1] + b"!"
    elif cut:
        del value[0]
    else:
        value[0] += 1 if isinstance(value[0], int) else value[0][:1]
    if field == "traceparents" and not cut:  # outside the chain
        assert unpack_any(message, START) is not None
        return
    with pytest.raises(ChainBroken):
        unpack_any(message, START)


def test_a_run_with_an_erased_event_travels_event_by_event() -> None:
    first, second, third = events_of([b"a", b"b", b"c"])
    events = (first._replace(payload=None, salt=None, erased_by=3), second, third)
    (message,) = pack_columns(STORE, GENESIS, events)
    assert not message.HasField("columns")
    run = unpack_any(message, START)
    assert run is not None
    assert run.events == events


def test_columns_say_what_caused_them() -> None:
    assert set(traceparents(in_columns(events_of([b"a", b"b"])))) == {TRACE}
