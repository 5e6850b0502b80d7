"""Planned, under way, past, cancelled: where a fact stands at a moment; pure, in SQL and over columns alike."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from planier.analytics.v1.analytics_pb2 import (
    FACT_STATE_CANCELLED,
    FACT_STATE_PAST,
    FACT_STATE_PLANNED,
    FACT_STATE_UNDER_WAY,
    FactState,
)
from planier.common.v1 import fact_pb2

# A prohibited demonstration is not to take place; what takes place all the same is declared UNDECLARED or UNDER_WAY.
OFF = (fact_pb2.FACT_STATUS_PROHIBITED, fact_pb2.FACT_STATUS_CANCELLED)
ENDED = fact_pb2.FACT_STATUS_ENDED
SEVERAL_PERIODS = 0x8000

_OFF = f"p.status IN ({OFF[0]}, {OFF[1]})"
# Each takes the moment as often as it has marks.
_SQL = {
    FACT_STATE_CANCELLED: (f"({_OFF})", 0),
    FACT_STATE_PLANNED: (f"(NOT {_OFF} AND p.starts_us > ?)", 1),
    FACT_STATE_PAST: (f"(NOT {_OFF} AND p.starts_us <= ? AND (p.ends_us <= ? OR p.status = {ENDED}))", 2),
    FACT_STATE_UNDER_WAY: (f"(NOT {_OFF} AND p.status <> {ENDED} AND p.starts_us <= ? AND p.ends_us > ?)", 2),
}
# Between its first start and its last end, a fact of several periods is under way or planned: its body decides.
_BETWEEN = (f"(p.bucket & {SEVERAL_PERIODS} <> 0 AND NOT {_OFF} AND p.starts_us <= ? AND p.ends_us > ?)", 2)


def state_of(periods: Iterable[tuple[int, int]], status: int, moment_us: int) -> FactState.ValueType:
    """The one state of a fact at a moment; periods half-open, in microseconds."""
    if status in OFF:
        return FACT_STATE_CANCELLED
    known = list(periods)
    if moment_us < min(start for start, _ in known):
        return FACT_STATE_PLANNED
    if status == ENDED or moment_us >= max(end for _, end in known):
        return FACT_STATE_PAST
    under_way = any(start <= moment_us < end for start, end in known)
    return FACT_STATE_UNDER_WAY if under_way else FACT_STATE_PLANNED


def condition(states: Sequence[int], moment_us: int, *, plain: bool) -> tuple[str, tuple[int, ...]]:
    """SQL over `p`, with its values: exact for facts of one period, a candidate's test for the others."""
    parts = [_SQL[FactState.ValueType(state)] for state in states]
    if not plain and {FACT_STATE_PLANNED, FACT_STATE_UNDER_WAY}.intersection(states):
        parts.append(_BETWEEN)
    marks = sum(count for _, count in parts)
    return "(" + " OR ".join(text for text, _ in parts) + ")", (moment_us,) * marks


def mask(
    states: Sequence[int],
    moment_us: int,
    starts_us: npt.NDArray[np.int64],
    ends_us: npt.NDArray[np.int64],
    status: npt.NDArray[Any],
) -> npt.NDArray[np.bool_]:
    """Which of these facts of one period stand in one of the states."""
    off = (status == OFF[0]) | (status == OFF[1])
    begun = starts_us <= moment_us
    over = (ends_us <= moment_us) | (status == ENDED)
    found = {
        FACT_STATE_CANCELLED: off,
        FACT_STATE_PLANNED: ~off & ~begun,
        FACT_STATE_PAST: ~off & begun & over,
        FACT_STATE_UNDER_WAY: ~off & begun & ~over,
    }
    chosen = np.zeros(len(starts_us), dtype=np.bool_)
    for state in states:
        chosen |= found[FactState.ValueType(state)]
    return chosen
