"""A map request that is recognised as plain keeps every rule of its contract."""

from collections.abc import Callable

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from planier.analytics.v1.analytics_pb2 import FACT_STATE_PLANNED, QueryMapRequest
from planier.common.v1.fact_pb2 import FACT_STATUS_DECLARED, Polygon
from protovalidate import Validator

from services.analytics.plain import is_plain_map
from services.kernel.errors import Problem
from services.kernel.rpc.validation import validate

VALIDATOR = Validator()
UUID = "0192c7c1-0000-7000-8000-00000000000a"
FIRST, END = -62_104_060_800, 253_086_768_000
SECONDS = st.sampled_from((0, 1, 2, -(2**62), 2**62, FIRST, FIRST - 1, END - 1, END))
NANOS = st.sampled_from((0, 1, -1, 999_999_999, 1_000_000_000))
DEGREES = st.sampled_from((-180.0, -180.1, -90.0, 5.3, 5.4, 90.0, 90.1, 180.0, 180.1, float("nan"), float("inf")))
TEXTS = st.sampled_from(
    ("", "a", "works", "ROAD_WORKS", "works\n", "Works", "é", "a" * 40, "A" * 41, "a-1", "-a", "A_1", "_A", "A b")
)
IDS = st.sampled_from(("", UUID, UUID.upper(), UUID[:8], "x" * 36, UUID + "\n", UUID.replace("-", "")))
MOTIVES = st.sampled_from(("", "ab", "abc", "é" * 140, "é" * 141, "\U0001f6a7" * 140, "a" * 141, "\n\n\n"))
NUMBERS = st.sampled_from((0, 1, 2, 3, 4, 7, 8, 99, -1))
LIMITS = st.sampled_from((0, 1, 20_000, 20_001, 50_000, 50_001, 2**32 - 1))

Change = Callable[[QueryMapRequest], None]


def plain() -> QueryMapRequest:
    request = QueryMapRequest(
        sources=["works"], kinds=["ROAD_WORKS"], statuses=[FACT_STATUS_DECLARED], states=[FACT_STATE_PLANNED], limit=3
    )
    request.consultation.consultation_id = UUID
    request.consultation.motive = "mesure"
    request.box.west, request.box.south, request.box.east, request.box.north = 5.2, 43.1, 5.6, 43.4
    request.period.start.seconds, request.period.end.seconds = 1, 2
    return request


def stamps(path: str) -> st.SearchStrategy[Change]:
    def change(seconds: int, nanos: int) -> Change:
        def apply(request: QueryMapRequest) -> None:
            holder = request
            for name in path.split("."):
                holder = getattr(holder, name)
            holder.seconds, holder.nanos = seconds, nanos  # type: ignore[attr-defined]

        return apply

    return st.builds(change, SECONDS, NANOS)


def values(path: str, drawn: st.SearchStrategy[object]) -> st.SearchStrategy[Change]:
    *way, last = path.split(".")

    def change(value: object) -> Change:
        def apply(request: QueryMapRequest) -> None:
            holder: object = request
            for name in way:
                holder = getattr(holder, name)
            setattr(holder, last, value)

        return apply

    return drawn.map(change)


def lists(name: str, drawn: st.SearchStrategy[object], most: int) -> st.SearchStrategy[Change]:
    def change(given_: list[object], times: int) -> Change:
        return lambda request: getattr(request, name).extend(given_ * times)

    return st.builds(change, st.lists(drawn, max_size=3), st.sampled_from((1, 1, 1, most, most + 1)))


CHANGES = st.one_of(
    *(stamps(path) for path in ("period.start", "period.end", "as_of", "changed_since", "state_at")),
    *(values(f"box.{edge}", DEGREES) for edge in ("west", "south", "east", "north")),
    values("consultation.consultation_id", IDS),
    values("consultation.motive", MOTIVES),
    values("consultation.motive_code", NUMBERS),
    values("consultation.purpose", NUMBERS),
    values("limit", LIMITS),
    values("cell_budget", LIMITS),
    lists("sources", TEXTS, 100),
    lists("kinds", TEXTS, 200),
    lists("statuses", NUMBERS, 20),
    lists("states", NUMBERS, 4),
    lists("empty_filters", NUMBERS, 4),
    st.sampled_from(("box", "period", "consultation", "sources", "kinds", "statuses", "states")).map(
        lambda name: lambda request: request.ClearField(name)
    ),
    st.just(lambda request: request.polygon.CopyFrom(Polygon())),
    st.sampled_from(("start", "end")).map(lambda name: lambda request: request.period.ClearField(name)),
)


@given(st.lists(CHANGES, max_size=3))
@settings(max_examples=400, deadline=None)
def test_what_is_recognised_keeps_every_rule(changes: list[Change]) -> None:
    request = plain()
    for change in changes:
        change(request)
    recognised = is_plain_map(request)
    event(f"plain: {recognised}")
    if recognised:
        validate(VALIDATOR, request)


def test_the_common_request_is_recognised_and_one_that_breaks_a_rule_is_not() -> None:
    request = plain()
    assert is_plain_map(request)
    request.limit = 20_001
    assert not is_plain_map(request)
    with pytest.raises(Problem) as refused:
        validate(VALIDATOR, request)
    assert [violation.field for violation in refused.value.violations] == ["limit"]
