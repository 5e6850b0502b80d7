"""Keeps the conflicts beside the facts: each new version is compared with its neighbours only.

What a pair of versions is does not depend on any other (detection.py), so the rows are those that detecting all
versions against all would give; a property test holds it.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import shapely
from planier.common.v1 import fact_pb2
from sqlalchemy import Connection

from services.analytics.bulk import in_chunks, insert, marks, run, run_many
from services.analytics.conflicts.crossing import Pairs, cells_of, decided, near_pairs
from services.analytics.conflicts.detection import Detector, Found
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.subjects import (
    FOREVER,
    Metres,
    Subject,
    columns_of,
    in_metres,
    sides_of,
    windows_of,
)
from services.analytics.conflicts.tables import CrossingTables

# The cell of what covers too many.
LARGE: Final = -1
_DECIMETRES: Final = 10
_BOXES: Final = (
    " AND starts_us < ? AND ends_us > ? AND west <= ? AND east >= ? AND south <= ? AND north >= ?"
    " AND (left_rules & ? <> 0 OR right_rules & ? <> 0)"
)
_NEAR: Final = "SELECT DISTINCT fact_id FROM crossing_cells~ WHERE cell IN (@)@boxes".replace("@boxes", _BOXES)
_NEAR_LARGE: Final = "SELECT fact_id FROM crossing_facts~ WHERE 1 = 1@boxes".replace("@boxes", _BOXES)
_CURRENT: Final = "SELECT fact_id, position, since_us, body, shape FROM crossing_facts~ WHERE fact_id IN (@)"
_PLACED: Final = "SELECT fact_id, starts_us, west, south, east, north FROM crossing_facts~ WHERE fact_id IN (@)"
_LINKED: Final = (
    "SELECT c.conflict_id, c.left_position, c.right_position, c.left_fact, c.right_fact, c.since_us, c.until_us,"
    " l.fact_id FROM crossing_links~ l JOIN crossing_conflicts~ c ON c.conflict_id = l.conflict_id"
    " AND c.left_position = l.left_position AND c.right_position = l.right_position WHERE l.fact_id IN (@)"
)
_KEY: Final = "conflict_id = ? AND left_position = ? AND right_position = ?"
_CLOSE: Final = "UPDATE crossing_conflicts~ SET until_us = ? WHERE @key".replace("@key", _KEY)
_DROP: Final = "DELETE FROM crossing_conflicts~ WHERE @key".replace("@key", _KEY)
_UNLINK: Final = "DELETE FROM crossing_links~ WHERE fact_id = ? AND @key".replace("@key", _KEY)
_FORGET: Final = "DELETE FROM crossing_facts~ WHERE fact_id = ?"
_UNPLACE: Final = "DELETE FROM crossing_cells~ WHERE cell = ? AND starts_us = ? AND fact_id = ?"

_NOWHERE: Final = shapely.Point()

Key = tuple[bytes, int, int]


@dataclass(frozen=True, slots=True)
class Version:
    """A version as the read model writes it: position in ingest's store, when it was learnt, its serialised Fact."""

    fact_id: bytes
    position: int
    recorded_us: int
    body: bytes


class Crossing:
    """Detects what versions collide with, and writes it; the rules and the projection are the territory's."""

    def __init__(self, rules: Rules, metres: Metres) -> None:
        self.rules = rules
        self._metres = metres
        self._detector = Detector(rules, metres)
        self._reach = rules.reach_of(-1)

    @property
    def sources(self) -> frozenset[str]:
        """The sources whose versions `apply` is to be given."""
        return self.rules.sources

    def apply(
        self, connection: Connection, tables: CrossingTables, versions: Iterable[Version], erased: Collection[bytes]
    ) -> None:
        """Writes the effect of versions, each in its order, within the transaction; an erased fact leaves no row."""
        _erase(connection, tables, erased)
        fresh = self._subjects(versions)
        if not fresh:
            return
        superseded: dict[bytes, int] = {}
        for subject in fresh:
            superseded.setdefault(subject.fact_id, subject.since_us)
        concerned = [s for s in fresh if s.left | s.right and s.since_us < s.until_us]
        subjects, pairs = self.near(connection, tables, concerned, superseded)
        found = [*self._detector.of_needs(concerned)]
        if len(pairs[0]):
            found += self._detector.of_pairs(subjects, columns_of(subjects), pairs)
        _close(connection, tables, superseded)
        _write(connection, tables, found)
        _place(connection, tables, [subject for subject in concerned if subject.until_us == FOREVER])

    def _subjects(self, versions: Iterable[Version]) -> list[Subject]:
        """One a version, in their order; those on no side of any rule only supersede."""
        ordered = sorted(versions, key=lambda version: version.position)
        until: dict[int, int] = {}
        newest: dict[bytes, int] = {}
        for version in ordered:
            if version.fact_id in newest:
                until[newest[version.fact_id]] = version.recorded_us
            newest[version.fact_id] = version.position
        facts = [fact_pb2.Fact.FromString(version.body) for version in ordered]
        sides = [sides_of(self.rules, fact) for fact in facts]
        placed = [place for place, (left, right) in enumerate(sides) if left | right]
        shapes = dict(zip(placed, in_metres(self._metres, [facts[place] for place in placed]), strict=True))
        subjects = []
        for place, (version, fact) in enumerate(zip(ordered, facts, strict=True)):
            shape = shapes.get(place, _NOWHERE)
            # What cannot be projected is nowhere near anything.
            left, right = sides[place] if np.isfinite(shape.bounds).all() else (0, 0)
            span = version.recorded_us, until.get(version.position, FOREVER)
            windows = windows_of(fact)
            subjects.append(Subject(version.fact_id, version.position, *span, fact, shape, windows, left, right))
        return subjects

    def near(
        self, connection: Connection, tables: CrossingTables, fresh: Sequence[Subject], superseded: dict[bytes, int]
    ) -> tuple[list[Subject], Pairs]:
        """The fresh subjects and their neighbours, and which of them are near, as places among these."""
        near = [_lookup(connection, tables, subject, self.rules) for subject in fresh]
        known = self._current(connection, tables, {fact_id for ids in near for fact_id in ids})
        subjects, place = list(fresh), {}
        for fact_id, subject in known.items():
            until_us = superseded.get(fact_id, FOREVER)
            if subject.since_us < until_us:
                place[fact_id] = len(subjects)
                subjects.append(replace(subject, until_us=until_us))
        candidates = [(i, place[fact_id]) for i, ids in enumerate(near) for fact_id in ids if fact_id in place]
        one, other = np.array(candidates, dtype=np.int64).reshape(len(candidates), 2).T
        reach, margin_us = self._reach
        pairs = decided(columns_of(subjects), one, other, reach, margin_us)
        if len(fresh) > 1:
            among = near_pairs(columns_of(fresh), reach, margin_us)
            pairs = np.concatenate((pairs[0], among[0])), np.concatenate((pairs[1], among[1]))
        return subjects, pairs

    def _current(
        self, connection: Connection, tables: CrossingTables, fact_ids: Collection[bytes]
    ) -> dict[bytes, Subject]:
        found = {}
        for fact_id, position, since_us, body, shape in in_chunks(connection, tables.sql(_CURRENT), sorted(fact_ids)):
            fact = fact_pb2.Fact.FromString(bytes(body))
            left, right = sides_of(self.rules, fact)
            geometry = shapely.from_wkb(bytes(shape))
            key = bytes(fact_id)
            found[key] = Subject(key, position, since_us, FOREVER, fact, geometry, windows_of(fact), left, right)
        return found


def _lookup(connection: Connection, tables: CrossingTables, subject: Subject, rules: Rules) -> list[bytes]:
    """The current facts whose box and hull of windows are near; the subject's own fact may be among them."""
    west, south, east, north = subject.shape.bounds
    reach, margin = rules.reach_of(subject.left | subject.right)
    cells = cells_of(west, south, east, north, reach)
    times = (subject.windows[-1][1] + margin, subject.windows[0][0] - margin)
    box = _box(west - reach, south - reach, east + reach, north + reach)
    bounds = (*times, box[2], box[0], box[3], box[1], subject.right, subject.left)
    if cells is None:
        rows = run(connection, tables.sql(_NEAR_LARGE), bounds)
    else:
        cells.append(LARGE)
        rows = run(connection, tables.sql(_NEAR.replace("@", marks(len(cells)))), (*cells, *bounds))
    return [bytes(row[0]) for row in rows]


def _box(west: float, south: float, east: float, north: float) -> tuple[int, int, int, int]:
    low = math.floor(west * _DECIMETRES), math.floor(south * _DECIMETRES)
    return *low, math.ceil(east * _DECIMETRES), math.ceil(north * _DECIMETRES)


def _cells(box: tuple[float, float, float, float]) -> list[int]:
    cells = cells_of(*(edge / _DECIMETRES for edge in box))
    return [LARGE] if cells is None else cells


def _place(connection: Connection, tables: CrossingTables, subjects: Sequence[Subject]) -> None:
    facts, cells = [], []
    for subject in subjects:
        box = _box(*subject.shape.bounds)
        starts, ends = subject.windows[0][0], subject.windows[-1][1]
        body, shape = subject.fact.SerializeToString(deterministic=True), shapely.to_wkb(subject.shape)
        which = (*box, subject.left, subject.right)
        facts.append((subject.fact_id, subject.position, subject.since_us, starts, ends, *which, body, shape))
        cells += [(cell, starts, subject.fact_id, ends, *which) for cell in _cells(box)]
    insert(connection, tables.facts, sorted(facts))
    insert(connection, tables.cells, sorted(cells))


def _write(connection: Connection, tables: CrossingTables, found: Iterable[Found]) -> None:
    rows, links = [], set()
    for one in found:
        right = one.right
        key = (one.conflict_id, one.left.position, right.position if right else 0)
        rows.append(
            (
                *key,
                one.rule,
                one.left.fact_id,
                right.fact_id if right else b"",
                one.left.fact.source,
                right.fact.source if right else "",
                one.since_us,
                one.until_us,
                one.windows[0][0],
                one.windows[-1][1],
                *one.box,
                one.body,
            )
        )
        links.add((one.left.fact_id, *key))
        if right:
            links.add((right.fact_id, *key))
    insert(connection, tables.conflicts, sorted(rows))
    insert(connection, tables.links, sorted(links))


def _close(connection: Connection, tables: CrossingTables, superseded: dict[bytes, int]) -> None:
    """Ends what rested on superseded versions when they were; what was then known at no instant goes."""
    closed: dict[Key, int] = {}
    unseen: dict[Key, tuple[bytes, bytes]] = {}
    for *key, left, right, since_us, until_us, fact_id in in_chunks(
        connection, tables.sql(_LINKED), sorted(superseded)
    ):
        if until_us != FOREVER:
            continue
        row = (bytes(key[0]), key[1], key[2])
        at_us = min(superseded[bytes(fact_id)], closed.get(row, FOREVER))
        closed[row] = at_us
        if since_us >= at_us:
            unseen[row] = (bytes(left), bytes(right))
    run_many(connection, tables.sql(_CLOSE), [(at_us, *row) for row, at_us in closed.items() if row not in unseen])
    _delete(connection, tables, unseen)
    _unplace(connection, tables, superseded.keys())


def _erase(connection: Connection, tables: CrossingTables, erased: Collection[bytes]) -> None:
    rows = in_chunks(connection, tables.sql(_LINKED), sorted(erased))
    _delete(connection, tables, {(bytes(row[0]), row[1], row[2]): (bytes(row[3]), bytes(row[4])) for row in rows})
    _unplace(connection, tables, erased)


def _delete(connection: Connection, tables: CrossingTables, rows: dict[Key, tuple[bytes, bytes]]) -> None:
    run_many(connection, tables.sql(_DROP), list(rows))
    links = [(fact_id, *row) for row, facts in rows.items() for fact_id in facts if fact_id]
    run_many(connection, tables.sql(_UNLINK), links)


def _unplace(connection: Connection, tables: CrossingTables, fact_ids: Collection[bytes]) -> None:
    cells = []
    for fact_id, starts_us, *box in in_chunks(connection, tables.sql(_PLACED), sorted(fact_ids)):
        west, south, east, north = box
        cells += [(cell, starts_us, bytes(fact_id)) for cell in _cells((west, south, east, north))]
    run_many(connection, tables.sql(_UNPLACE), cells)
    run_many(connection, tables.sql(_FORGET), [(fact_id,) for fact_id in sorted(fact_ids)])
