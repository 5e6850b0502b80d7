"""A batch of records that is recognised keeps every rule of its contract, and no other does."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from planier.audit.v1.audit_pb2 import RecordItem, RecordRequest, StreamRecordsRequest
from protovalidate import Validator

from services.audit.recording import MOST_BYTES, MOST_RECORDS, recognise

VALIDATOR = Validator()
UUID = "0198c0de-0000-7000-8000-00000000000a"
SPOILT = st.builds(
    lambda at, put: UUID[:at] + put + UUID[at + 1 :], st.integers(0, 36), st.sampled_from("gG-\n\0é٣ Aa")
)
ITEMS = st.lists(
    st.builds(
        RecordItem,
        record_id=st.one_of(st.just(UUID), st.uuids().map(str), SPOILT, st.text(max_size=40), st.just(UUID.upper())),
        record=st.sampled_from((b"", b"x", b"x" * MOST_BYTES, b"x" * (MOST_BYTES + 1))),
    ),
    max_size=3,
)


@given(items=ITEMS)
def test_what_is_recognised_keeps_every_rule(items: list[RecordItem]) -> None:
    batch = RecordRequest(items=items)
    broken = VALIDATOR.collect_violations(StreamRecordsRequest(batch=batch))
    event(f"broken: {bool(broken)}")
    assert recognise(items) == (not broken)


@pytest.mark.parametrize(("number", "kept"), [(0, False), (1, True), (MOST_RECORDS, True), (MOST_RECORDS + 1, False)])
def test_the_number_of_records_is_the_contracts(number: int, kept: bool) -> None:
    items = [RecordItem(record_id=UUID, record=b"x")] * number
    assert recognise(items) is kept
    assert (not VALIDATOR.collect_violations(RecordRequest(items=items))) is kept
