"""What is asked of the conflicts, within one read transaction; every question takes the guard's Grant.

A conflict is shown only where every source that it rests on is granted: both facts' sources, and, for a fact that lacks
something, the sources that could give it, as their silence would be told.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from planier.analytics.v1 import conflicts_pb2 as pb
from planier.common.v1.fact_pb2 import Fact
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import in_chunks, marks, run
from services.analytics.conflicts.detection import fingerprint, set_windows
from services.analytics.conflicts.register import Steps
from services.analytics.conflicts.rules import Rule, Rules
from services.analytics.conflicts.standing import (
    add_standing,
    first_lacking,
    lacking,
    rests_on_absent_measure,
    windows_of,
    withdrawn_from,
)
from services.analytics.conflicts.subjects import FOREVER
from services.analytics.conflicts.windows import meets
from services.analytics.domain import Taken
from services.analytics.placement import shape_of
from services.kernel.guard.grant import Grant

_COLUMNS: Final = "SELECT conflict_id, rule, left_source, right_source, right_position, since_us, body, "
_EDGES: Final = "west, south, east, north FROM crossing_conflicts"
_TIMES: Final = " WHERE ends_us > ? AND starts_us < ? AND since_us <= ? AND until_us > ?"
_PERIOD: Final = _COLUMNS + _EDGES + _TIMES
_ONE: Final = _COLUMNS + _EDGES + " WHERE conflict_id = ? AND since_us <= ? AND until_us > ?"
_FIRST: Final = (
    "SELECT conflict_id, MIN(since_us) FROM crossing_conflicts WHERE conflict_id IN (@) GROUP BY conflict_id"
)
_ALL_ROWS: Final = (
    "SELECT conflict_id, since_us, until_us, right_position, body FROM crossing_conflicts WHERE conflict_id IN (@)"
)

_HISTORIES: Final = (
    "SELECT h.fact_id, v.recorded_us, v.body FROM fact_history h JOIN fact_versions v ON v.position = h.position"
    " WHERE h.fact_id IN (@)"
)

# As _COLUMNS and _EDGES.
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ConflictQuery:
    """Instants in microseconds since 1970, the period half-open; empty filters mean all."""

    starts_us: int
    ends_us: int
    area: Area | None = None
    rules: tuple[str, ...] = ()
    states: tuple[pb.ConflictState.ValueType, ...] = ()
    as_of_us: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A conflict, its rule, and the measures that its facts once had and no longer have."""

    conflict: pb.Conflict
    rule: Rule
    withdrawn: frozenset[Taken]


def query_conflicts(
    connection: Connection, grant: Grant, rules: Rules, steps: Steps, query: ConflictQuery
) -> tuple[pb.Conflict, ...]:
    """The conflicts of the granted sources with a window in the period, the earliest first."""
    known = FOREVER - 1 if query.as_of_us is None else query.as_of_us
    permitted = _permitted(rules, grant, query.rules)
    if not permitted:
        return ()
    sql = _PERIOD + " AND rule IN (" + marks(len(permitted)) + ")"
    rows = run(connection, sql, (query.starts_us, query.ends_us, known, known, *permitted))
    found = _completed(connection, rules, grant, rows, known)
    found = [one for one in found if meets(windows_of(one), (query.starts_us, query.ends_us))]
    if query.area is not None and found:
        inside = query.area.meets_shapes([shape_of(one.overlap) for one in found])
        found = [one for one, is_in in zip(found, inside, strict=True) if is_in]
    histories = {one.conflict_id: steps.of(one.conflict_id, query.as_of_us) for one in found}
    resting = [one for one in found if rests_on_absent_measure(one, histories[one.conflict_id])]
    withdrawn = _withdrawn(connection, resting, known)
    for one in found:
        history = histories[one.conflict_id]
        add_standing(one, history, grant.party, withdrawn.get(one.conflict_id, frozenset()))
    if query.states:
        found = [one for one in found if one.state in query.states]
    return tuple(sorted(found, key=lambda one: (windows_of(one)[0], one.conflict_id)))


def find_conflict(connection: Connection, grant: Grant, rules: Rules, conflict_id: str) -> Known | None:
    """The conflict as it now is; None where there is none that the caller may see."""
    known = FOREVER - 1
    rows = run(connection, _ONE, (bytes.fromhex(conflict_id), known, known))
    permitted = set(_permitted(rules, grant, ()))
    concerned = [row for row in rows if row[1] in permitted]
    for conflict in _completed(connection, rules, grant, concerned, known):
        rule = next(rule for rule in rules.rules if rule.rule_id == conflict.rule_id)
        return Known(conflict, rule, _withdrawn(connection, [conflict], known)[conflict_id])
    return None


def _permitted(rules: Rules, grant: Grant, asked: Sequence[str]) -> list[int]:
    """The bits of the rules asked for whose answer may be told: all needed sources are granted."""
    return [
        bit
        for bit, rule in enumerate(rules.rules)
        if (not asked or rule.rule_id in asked) and (not rule.needs or rule.right.sources <= grant.sources)
    ]


def _completed(
    connection: Connection, rules: Rules, grant: Grant, rows: Collection[Row], known: int
) -> list[pb.Conflict]:
    """Whole conflicts without their steps, of rows whose sources are all granted."""
    granted = grant.sources
    pairs, needs = [], []
    for row in rows:
        if row[2] not in granted or (row[3] and row[3] not in granted):
            continue
        if not rules.rules[row[1]].needs:
            pairs.append(row)
        elif row[4] == 0:
            needs.append(row)
    first = dict(_firsts(connection, pairs))
    found = []
    for row in pairs:
        conflict = pb.Conflict.FromString(bytes(row[6]))
        conflict.detected_at.FromMicroseconds(first[bytes(row[0])])
        conflict.fingerprint = fingerprint(conflict)
        found.append(conflict)
    return found + list(_lacking(connection, needs, known))


def _withdrawn(connection: Connection, conflicts: Sequence[pb.Conflict], known: int) -> dict[str, frozenset[Taken]]:
    """By conflict, from all that was known of its facts up to that instant, while they did not collide too."""
    versions: dict[str, list[Fact]] = {}
    fact_ids = {bytes.fromhex(fact.fact_id) for one in conflicts for fact in one.facts}
    for fact_id, recorded_us, body in in_chunks(connection, _HISTORIES, fact_ids):
        if recorded_us <= known:
            versions.setdefault(bytes(fact_id).hex(), []).append(Fact.FromString(bytes(body)))
    return {
        one.conflict_id: withdrawn_from(one, (version for fact in one.facts for version in versions[fact.fact_id]))
        for one in conflicts
    }


def _firsts(connection: Connection, rows: Sequence[Row]) -> Iterator[tuple[bytes, int]]:
    for conflict_id, since_us in in_chunks(connection, _FIRST, {bytes(row[0]) for row in rows}):
        yield bytes(conflict_id), since_us


def _lacking(connection: Connection, rows: Sequence[Row], known: int) -> Iterator[pb.Conflict]:
    """Facts that lack what they need, at the instants at which they do."""
    spans: dict[bytes, list[tuple[int, int, pb.Conflict, bool]]] = {}
    for conflict_id, since_us, until_us, right, body in in_chunks(
        connection, _ALL_ROWS, {bytes(row[0]) for row in rows}
    ):
        if since_us <= known:
            message = pb.Conflict.FromString(bytes(body))
            spans.setdefault(bytes(conflict_id), []).append((since_us, until_us, message, right == 0))
    for row in rows:
        conflict = pb.Conflict.FromString(bytes(row[6]))
        all_spans = spans[bytes(row[0])]
        covers = [body for since, until, body, is_need in all_spans if not is_need and since <= known < until]
        windows = lacking(conflict, covers)
        detected_us = first_lacking(all_spans)
        if not windows or detected_us is None:
            continue
        set_windows(conflict, windows)
        conflict.covering_fact_ids.extend(sorted(fact_id for cover in covers for fact_id in cover.covering_fact_ids))
        conflict.detected_at.FromMicroseconds(detected_us)
        conflict.fingerprint = fingerprint(conflict)
        yield conflict
