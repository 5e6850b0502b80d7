"""Reasons to look twice at a coming event or a day, each named and with its value, never summed into a score; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import shapely
from planier.analytics.v1 import agenda_pb2 as pb
from planier.analytics.v1.conflicts_pb2 import CONFLICT_STATE_RESOLVED, Conflict
from planier.common.v1 import fact_pb2

from services.analytics.conflicts.crossing import near_pairs
from services.analytics.conflicts.subjects import Columns, Metres, in_metres
from services.analytics.conflicts.subjects import windows_of as periods_of
from services.analytics.conflicts.windows import Window, Windows, common, meets

SIMULTANEITY_METRES: Final = 500.0
# A factor names what it counts; not more of them than a person would open.
MOST_REFERENCES: Final = 50


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the agenda: its fact, its instants within the span, its conflicts and their instants."""

    fact_id: str
    fact: fact_pb2.Fact
    windows: Windows
    conflicts: tuple[tuple[Conflict, Windows], ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the events, each named by its place among them.

    `pairs`: two events and their common instants; by event, `others` of its pairs and the `warnings` that it is under.
    """

    pairs: Sequence[tuple[int, int, Windows]] = ()
    others: Mapping[int, Sequence[int]] = field(default_factory=dict)
    warnings: Mapping[int, Sequence[tuple[str, Windows]]] = field(default_factory=dict)


def surroundings_of(
    events: Sequence[Event], warnings: Sequence[tuple[str, fact_pb2.Fact]], metres: Metres
) -> Surroundings:
    """Which events are within 500 m at the same time, and which are under a weather warning."""
    if not events:
        return Surroundings()
    shapes = in_metres(metres, [event.fact for event in events])
    count = len(events)
    times = np.array([(event.windows[0][0], event.windows[-1][1]) for event in events], dtype=np.int64)
    always, one = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.uint64)
    bounds = np.asarray(shapely.bounds(shapes), dtype=np.float64).reshape(count, 4)
    columns = Columns(shapes, bounds, times[:, 0], times[:, 1], always, always + 1, one, one)
    pairs, others = [], dict[int, list[int]]()
    for left, right in zip(*(side.tolist() for side in near_pairs(columns, SIMULTANEITY_METRES)), strict=True):
        windows = common(events[left].windows, events[right].windows)
        if windows:
            pairs.append((min(left, right), max(left, right), windows))
            others.setdefault(left, []).append(right)
            others.setdefault(right, []).append(left)
    under: dict[int, list[tuple[str, Windows]]] = {}
    areas = in_metres(metres, [fact for _, fact in warnings])
    for (fact_id, warning), area in zip(warnings, areas, strict=True):
        for place in np.flatnonzero(shapely.intersects(shapes, area)).tolist():
            windows = common(events[place].windows, periods_of(warning))
            if windows:
                under.setdefault(place, []).append((fact_id, windows))
    return Surroundings(sorted(pairs), others, under)


def of_event(place: int, events: Sequence[Event], around: Surroundings) -> list[pb.AttentionFactor]:
    """The factors of one event; what is not there is not listed."""
    event = events[place]
    others = around.others.get(place, ())
    return _factors(
        [event],
        sorted(events[other].fact_id for other in others),
        len(others),
        [conflict for conflict, _ in event.conflicts],
        {fact_id for fact_id, _ in around.warnings.get(place, ())},
    )


def of_day(
    day: Window, places: Sequence[int], events: Sequence[Event], around: Surroundings
) -> list[pb.AttentionFactor]:
    """The factors of one day: of the events that take place in it, as far as they do."""
    pairs = [(left, right) for left, right, windows in around.pairs if meets(windows, day)]
    conflicts = {
        conflict.conflict_id: conflict
        for place in places
        for conflict, windows in events[place].conflicts
        if meets(windows, day)
    }
    warnings = {
        fact_id for place in places for fact_id, windows in around.warnings.get(place, ()) if meets(windows, day)
    }
    together = sorted({events[place].fact_id for pair in pairs for place in pair})
    return _factors([events[place] for place in places], together, len(pairs), conflicts.values(), warnings)


def _factors(
    events: Sequence[Event],
    simultaneous: Sequence[str],
    simultaneity: int,
    conflicts: Iterable[Conflict],
    warnings: Iterable[str],
) -> list[pb.AttentionFactor]:
    unresolved = [conflict for conflict in conflicts if conflict.state != CONFLICT_STATE_RESOLVED]
    missing = [conflict for conflict in unresolved if not conflict.measures_present]
    expected = [event.fact.attendance for event in events if event.fact.HasField("attendance")]
    factors = []
    if expected:
        least, most = sum(one.minimum for one in expected), sum(one.maximum for one in expected)
        factors.append(pb.AttentionFactor(kind=pb.ATTENTION_KIND_ATTENDANCE, value=least, maximum=most))
    counted = (
        (pb.ATTENTION_KIND_SIMULTANEITY, simultaneity, simultaneous),
        _listed(pb.ATTENTION_KIND_UNRESOLVED_CONFLICTS, [conflict.conflict_id for conflict in unresolved]),
        _listed(pb.ATTENTION_KIND_MISSING_MEASURES, [conflict.conflict_id for conflict in missing]),
        _listed(pb.ATTENTION_KIND_WEATHER_WARNING, sorted(warnings)),
    )
    factors += [
        pb.AttentionFactor(kind=kind, value=value, references=references[:MOST_REFERENCES])
        for kind, value, references in counted
        if value
    ]
    return factors


def _listed(
    kind: pb.AttentionKind.ValueType, references: Sequence[str]
) -> tuple[pb.AttentionKind.ValueType, int, Sequence[str]]:
    return kind, len(references), sorted(references)
