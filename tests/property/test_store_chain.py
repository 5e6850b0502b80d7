"""The chain notices any difference in what it covers, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.store.base import GENESIS, StoredEvent
from services.kernel.store.chain import ChainBroken, commitment, link, link_event, verify_run

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
headers = st.tuples(numbers, names, numbers, names, names, numbers, names, st.binary(min_size=32, max_size=32))
contents = st.lists(st.tuples(names, st.binary(max_size=40), st.booleans()), min_size=1, max_size=6)


def chain(items: list[tuple[str, bytes, bool]], first: int = 1, previous: bytes = GENESIS) -> list[StoredEvent]:
    events: list[StoredEvent] = []
    for position, (stream, payload, erased) in enumerate(items, first):
        salt = bytes([position % 256]) * 32
        event = StoredEvent(
            position,
            stream,
            1,
            "type",
            f"id-{position}",
            5,
            "identity",
            commitment(salt, payload),
            salt,
            payload,
            b"",
            0,
            "",
        )
        previous = link_event(previous, event)
        event = event._replace(digest=previous)
        events.append(event._replace(salt=None, payload=None, erased_by=position + 1) if erased else event)
    return events


@given(headers, headers)
def test_two_headers_give_one_digest_only_if_they_are_equal(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]
    assert (link(GENESIS, *one) == link(GENESIS, *other)) == (one == other)


@given(st.text("ab", max_size=4), st.text("ab", max_size=4), st.text("ab", max_size=4), st.text("ab", max_size=4))
def test_names_do_not_run_into_each_other(stream: str, type_: str, event_id: str, key_id: str) -> None:
    joined = link(GENESIS, 1, stream + type_, 1, "", event_id + key_id, 1, "", GENESIS)
    apart = link(GENESIS, 1, stream, 1, type_, event_id, 1, key_id, GENESIS)
    assert (joined == apart) == (not type_ and not key_id)


@given(contents, st.integers(1, 2**40))
def test_a_run_verifies_from_any_position_erased_or_not(items: list[tuple[str, bytes, bool]], first: int) -> None:
    events = chain(items, first)
    assert verify_run(GENESIS, events) == events[-1].digest
    middle = len(events) // 2
    before = events[middle - 1].digest if middle else GENESIS
    assert verify_run(before, events[middle:]) == events[-1].digest
    assert verify_run(GENESIS, [event._replace(digest=b"") for event in events]) == events[-1].digest


@given(contents, st.data())
def test_one_flipped_bit_is_found(items: list[tuple[str, bytes, bool]], data: st.DataObject) -> None:
    events = chain(items)
    index = data.draw(st.integers(0, len(events) - 1))
    event = events[index]
    fields = {name for name in ("salt", "payload", "commitment", "digest") if getattr(event, name)}
    field = data.draw(st.sampled_from(sorted(fields)))
    value = bytearray(getattr(event, field))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << (bit % 8)
    events[index] = event._replace(**{field: bytes(value)})  # type: ignore[arg-type]
    with pytest.raises(ChainBroken) as caught:
        verify_run(GENESIS, events)
    assert caught.value.position == event.position


@given(contents, st.sampled_from(["position", "stream_version", "recorded_at_us"]), st.integers(0, 61), st.data())
def test_one_flipped_bit_of_a_number_is_found(
    items: list[tuple[str, bytes, bool]], field: str, bit: int, data: st.DataObject
) -> None:
    events = chain(items)
    index = data.draw(st.integers(0, len(events) - 1))
    events[index] = events[index]._replace(**{field: getattr(events[index], field) ^ (1 << bit)})
    with pytest.raises(ChainBroken):
        verify_run(GENESIS, events)


@given(contents, st.data())
def test_a_run_without_one_of_its_events_is_found(items: list[tuple[str, bytes, bool]], data: st.DataObject) -> None:
    events = chain([*items, ("last", b"", False)])
    del events[data.draw(st.integers(0, len(events) - 2))]
    with pytest.raises(ChainBroken):
        verify_run(GENESIS, events)


def test_an_empty_run_changes_nothing() -> None:
    assert verify_run(b"d" * 32, []) == b"d" * 32
