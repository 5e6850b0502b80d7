"""The common map request recognised at a twentieth of the cost of its rules: a box, a period, listed filters.

Sound, not complete: what is recognised here keeps every rule of the contract, what is not goes through them all, and
only they say why. tests/property/test_analytics_plain.py holds the two together.
"""

import re
from collections.abc import Container, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import BoundingBox, FactState, QueryMapRequest
from planier.common.v1.fact_pb2 import FactStatus, Period
from planier.common.v1.release_pb2 import Consultation, MotiveCode

from services.kernel.instants import is_instant

# As protos/planier/analytics/v1/analytics.proto and common/v1/release.proto declare them.
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SOURCE: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_KIND: Final = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_SHORTEST_MOTIVE, _LONGEST_MOTIVE = 3, 140
_MOST_SOURCES, _MOST_KINDS, _MOST_STATUSES, _MOST_STATES = 100, 200, 20, 4
_MOST_FEATURES, _MOST_CELLS = 20_000, 50_000
_CODES: Final = frozenset(MotiveCode.values())
_STATUSES: Final = frozenset(FactStatus.values()) - {0}
_STATES: Final = frozenset(FactState.values()) - {0}


def is_plain_map(request: QueryMapRequest) -> bool:
    """Whether the request surely keeps the rules of its contract. 5 µs."""
    return (
        request.HasField("box")
        and request.HasField("period")
        and request.HasField("consultation")
        and _is_box(request.box)
        and _is_period(request.period)
        and _is_consultation(request.consultation)
        and request.limit <= _MOST_FEATURES
        and request.cell_budget <= _MOST_CELLS
        and not request.empty_filters
        and (not request.sources or _match(request.sources, _SOURCE, _MOST_SOURCES))
        and (not request.kinds or _match(request.kinds, _KIND, _MOST_KINDS))
        and (not request.statuses or _are_among(request.statuses, _STATUSES, _MOST_STATUSES))
        and (not request.states or _are_among(request.states, _STATES, _MOST_STATES))
        and (not request.HasField("as_of") or is_instant(request.as_of))
        and (not request.HasField("changed_since") or is_instant(request.changed_since))
        and (not request.HasField("state_at") or is_instant(request.state_at))
    )


def _is_box(box: BoundingBox) -> bool:
    """Within the world and in order; no comparison holds of NaN."""
    return -180 <= box.west <= box.east <= 180 and -90 <= box.south <= box.north <= 90  # noqa: PLR2004 -- degrees


def _is_period(period: Period) -> bool:
    if not (period.HasField("start") and period.HasField("end")):
        return False
    start, end = period.start, period.end
    return is_instant(start) and is_instant(end) and _place(start) < _place(end)


def _place(moment: Timestamp) -> tuple[int, int]:
    return moment.seconds, moment.nanos


def _is_consultation(consultation: Consultation) -> bool:
    return (
        _UUID.fullmatch(consultation.consultation_id) is not None
        and _SHORTEST_MOTIVE <= len(consultation.motive) <= _LONGEST_MOTIVE
        and consultation.motive_code in _CODES
    )


def _match(names: Sequence[str], form: re.Pattern[str], most: int) -> bool:
    return len(names) <= most and all(form.fullmatch(name) for name in names)


def _are_among(numbers: Sequence[int], known: Container[int], most: int) -> bool:
    return len(numbers) <= most and all(number in known for number in numbers)
