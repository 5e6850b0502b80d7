"""Text in a request goes into the access record: only names that annex 1 could hold get that far."""

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1.access_pb2 import GrantClearanceRequest
from planier.access.v1.events_pb2 import Person
from planier.analytics.v1.analytics_pb2 import (
    BoundingBox,
    GetAgendaRequest,
    QueryConflictsRequest,
    QueryMapRequest,
    QueryTensionRequest,
)
from planier.common.v1.fact_pb2 import Period
from protovalidate import Validator

VALIDATOR = Validator()
PERIOD = Period(start=Timestamp(seconds=1), end=Timestamp(seconds=2))
BOX = BoundingBox(west=5, south=43, east=6, north=44)


@pytest.mark.parametrize("text", ["appeler Jean Dupont", "06 12 34 56 78", "works\n", "", "x" * 41])
@pytest.mark.parametrize(
    ("request_type", "field"),
    [
        (QueryMapRequest, "sources"),
        (QueryMapRequest, "kinds"),
        (QueryTensionRequest, "sources"),
        (QueryTensionRequest, "kinds"),
        (GrantClearanceRequest, "sources"),
        (QueryConflictsRequest, "sources"),
        (QueryConflictsRequest, "rules"),
        (GetAgendaRequest, "sources"),
    ],
)
def test_text_that_is_no_name_never_reaches_the_record(request_type: type[Message], field: str, text: str) -> None:
    violations = VALIDATOR.collect_violations(request_type(**{field: [text]}))
    assert any(
        [element.field_name for element in violation.proto.field.elements] == [field]
        and violation.proto.rule_id == "string.pattern"
        for violation in violations
        if violation.proto.field is not None
    )


def test_names_of_annex_1_pass() -> None:
    request = QueryMapRequest(box=BOX, period=PERIOD, sources=["film-shoots"], kinds=["PROTEST_MARCH"])
    assert VALIDATOR.collect_violations(request) == []


@pytest.mark.parametrize("field", ["given_name", "usual_name", "service", "professional_address"])
def test_a_person_has_a_name_that_a_list_can_show(field: str) -> None:
    """A name of a megabyte would make the list of clearances larger than any message, for good."""
    request = GrantClearanceRequest(person=Person(**{field: "x" * 301}))
    assert [
        [element.field_name for element in violation.proto.field.elements]
        for violation in VALIDATOR.collect_violations(request)
        if violation.proto.rule_id == "string.max_len" and violation.proto.field is not None
    ] == [["person", field]]
