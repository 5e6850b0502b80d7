"""Requests are held to their contract, timestamps included, which protobuf and protovalidate take whatever they say."""

from datetime import UTC

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import BoundingBox, GetFactRequest, QueryMapRequest
from planier.audit.v1.audit_pb2 import ReplayFilter, ReplayRequest
from planier.common.v1.fact_pb2 import Period
from protovalidate import Validator

from services.kernel.errors import Problem
from services.kernel.instants import instant, is_instant
from services.kernel.rpc.validation import validate

VALIDATOR = Validator()
BEYOND = Timestamp(seconds=2**62)
BOX = BoundingBox(west=5, south=43, east=6, north=44)


def map_request(as_of: Timestamp | None = None, changed_since: Timestamp | None = None) -> QueryMapRequest:
    period = Period(start=Timestamp(seconds=1), end=Timestamp(seconds=2))
    return QueryMapRequest(box=BOX, period=period, as_of=as_of, changed_since=changed_since)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (map_request(as_of=BEYOND), "as_of"),
        (map_request(changed_since=Timestamp(nanos=-1)), "changed_since"),
        (QueryMapRequest(box=BOX, period=Period(start=Timestamp(seconds=1), end=BEYOND)), "period.end"),
        (GetFactRequest(fact_id="a" * 32, as_of=Timestamp(nanos=1_000_000_000)), "as_of"),
        (ReplayRequest(filter=ReplayFilter(occurred_until=Timestamp(seconds=-(2**62)))), "filter.occurred_until"),
    ],
)
def test_a_timestamp_that_is_no_instant_names_its_field(request_: Message, field: str) -> None:
    with pytest.raises(Problem) as refused:
        validate(VALIDATOR, request_)
    assert refused.value.reason == "REQUEST_INVALID"
    assert [violation.field for violation in refused.value.violations] == [field]


def test_instants_and_absent_timestamps_pass() -> None:
    validate(VALIDATOR, map_request(as_of=Timestamp(seconds=-60, nanos=999_999_999)))
    validate(VALIDATOR, ReplayRequest())


@pytest.mark.parametrize("seconds", [-62_104_060_800, -1, 0, 1_764_000_000, 253_086_767_999])
@pytest.mark.parametrize("nanos", [0, 999, 1000, 999_999_999])
def test_an_instant_is_what_protobuf_makes_of_the_timestamp(seconds: int, nanos: int) -> None:
    moment = Timestamp(seconds=seconds, nanos=nanos)
    assert is_instant(moment)
    assert instant(moment) == moment.ToDatetime(UTC)
