"""Keeps the conflicts beside the facts: each new version is compared with its neighbours only.

What a pair of versions is does not depend on any other (detection.py), so the rows are those that detecting all
versions against all would give; a property test holds it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import shapely
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection

from services.analytics.bulk import in_chunks, insert, run, run_many
from services.analytics.conflicts.cells import ENDLESS, LARGE, SPANS, cells_of, span_of, whole_box
from services.analytics.conflicts.crossing import Pairs, near_pairs
from services.analytics.conflicts.detection import Detector, Found
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.subjects import (
    FOREVER,
    Metres,
    Subject,
    columns_of,
    in_metres,
    is_placed,
    sides_of,
    windows_of,
)
from services.analytics.conflicts.tables import CrossingTables

# One row of the question for each cell and class of duration: the class's earliest start that can still be under way.
_NEAR: Final = (
    "WITH q (cell, span, after, west, south, east, north) AS (VALUES @rows),"
    # A route meets another in many cells: its row is read once.
    " d AS (SELECT DISTINCT c.fact_id FROM q CROSS JOIN crossing_cells~ c"
    " WHERE c.cell = q.cell AND c.span = q.span AND c.starts_us < ? AND c.starts_us > q.after AND c.ends_us > ?"
    " AND c.west <= q.east AND c.east >= q.west AND c.south <= q.north AND c.north >= q.south"
    " AND (c.left_rules & ? <> 0 OR c.right_rules & ? <> 0))"
    " SELECT f.fact_id, f.since_us, f.position, f.left_rules, f.right_rules, f.body, f.shape"
    " FROM d CROSS JOIN crossing_facts~ f WHERE f.fact_id = d.fact_id"
)
# What is too large for cells is compared with every box.
_NEAR_LARGE: Final = (
    "SELECT fact_id, since_us, position, left_rules, right_rules, body, shape FROM crossing_facts~ WHERE starts_us < ?"
    " AND ends_us > ? AND west <= ? AND east >= ? AND south <= ? AND north >= ?"
    " AND (left_rules & ? <> 0 OR right_rules & ? <> 0)"
)
_PLACED: Final = "SELECT fact_id, starts_us, ends_us, shape FROM crossing_facts~ WHERE fact_id IN (@)"
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
_UNPLACE: Final = "DELETE FROM crossing_cells~ WHERE cell = ? AND span = ? AND starts_us = ? AND fact_id = ?"

_NOWHERE: Final = shapely.Point()

# Since when it is known, position, the bits of its rules, the serialised fact, shape.
_Neighbour = tuple[int, int, int, int, bytes, BaseGeometry]

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
            left, right = sides[place] if is_placed(shape) else (0, 0)
            span = version.recorded_us, until.get(version.position, FOREVER)
            windows = windows_of(fact)
            subjects.append(Subject(version.fact_id, version.position, *span, fact, shape, windows, left, right))
        return subjects

    def near(
        self, connection: Connection, tables: CrossingTables, fresh: Sequence[Subject], superseded: Mapping[bytes, int]
    ) -> tuple[list[Subject], Pairs]:
        """The fresh subjects and their neighbours, and which of them are near, as places among these.

        `superseded`: the instant at which a current version, which may be a neighbour until then, ceases to be so.
        """
        found, known = [], dict[bytes, _Neighbour]()
        for number, subject in enumerate(fresh):
            neighbours = self._near_one(connection, tables, subject, superseded)
            found += [(number, fact_id) for fact_id in neighbours]
            known |= neighbours
        subjects, place = list(fresh), {}
        for fact_id, (since_us, position, left, right, body, shape) in known.items():
            fact = fact_pb2.Fact.FromString(body)
            place[fact_id] = len(subjects)
            until_us, windows = superseded.get(fact_id, FOREVER), windows_of(fact)
            subjects.append(Subject(fact_id, position, since_us, until_us, fact, shape, windows, left, right))
        pairs = np.array([(one, place[fact_id]) for one, fact_id in found], dtype=np.int64).reshape(len(found), 2).T
        if len(fresh) > 1:
            pairs = np.hstack((pairs, near_pairs(columns_of(fresh), *self._reach)))
        return subjects, (pairs[0], pairs[1])

    def _near_one(
        self, connection: Connection, tables: CrossingTables, subject: Subject, superseded: Mapping[bytes, int]
    ) -> dict[bytes, _Neighbour]:
        """The current facts that are near, on opposite sides of some rule, while both are known."""
        reach, margin_us = self.rules.reach_of(subject.left | subject.right)
        starts, ends = subject.windows[0][0] - margin_us, subject.windows[-1][1] + margin_us
        sides = (subject.right, subject.left)
        cells = cells_of(subject.shape, reach)
        if LARGE in cells:
            west, south, east, north = cells[LARGE]
            rows = run(connection, tables.sql(_NEAR_LARGE), (ends, starts, east, west, north, south, *sides))
        else:
            cells[LARGE] = whole_box(subject.shape, reach)
            asked = [
                (cell, span, starts - longest, *box)
                for cell, box in cells.items()
                for span, longest in enumerate((*SPANS, ENDLESS))
            ]
            sql = tables.sql(_NEAR.replace("@rows", ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(asked))))
            rows = run(connection, sql, (*chain.from_iterable(asked), ends, starts, *sides))
        met = {
            fact_id: (since_us, *row)
            for fact_id, since_us, *row in rows
            if since_us < subject.until_us and subject.since_us < superseded.get(fact_id, FOREVER)
        }
        if not met:
            return {}
        shapes = shapely.from_wkb([row[-1] for row in met.values()])
        near = shapely.dwithin(shapes, subject.shape, reach).tolist()
        return {
            bytes(fact_id): (row[0], row[1], row[2], row[3], bytes(row[4]), shape)
            for (fact_id, row), shape, is_near in zip(met.items(), shapes, near, strict=True)
            if is_near
        }


def _place(connection: Connection, tables: CrossingTables, subjects: Sequence[Subject]) -> None:
    facts, cells = [], []
    for subject in subjects:
        starts, ends = subject.windows[0][0], subject.windows[-1][1]
        body, shape = subject.fact.SerializeToString(deterministic=True), shapely.to_wkb(subject.shape)
        sides = (subject.left, subject.right)
        whole = (starts, ends, *whole_box(subject.shape), *sides)
        facts.append((subject.fact_id, subject.position, subject.since_us, *whole, body, shape))
        span = span_of(starts, ends)
        cells += [
            (cell, span, starts, subject.fact_id, ends, *box, *sides) for cell, box in cells_of(subject.shape).items()
        ]
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
    for fact_id, starts_us, ends_us, shape in in_chunks(connection, tables.sql(_PLACED), sorted(fact_ids)):
        span, places = span_of(starts_us, ends_us), cells_of(shapely.from_wkb(bytes(shape)))
        cells += [(cell, span, starts_us, bytes(fact_id)) for cell in places]
    run_many(connection, tables.sql(_UNPLACE), cells)
    run_many(connection, tables.sql(_FORGET), [(fact_id,) for fact_id in sorted(fact_ids)])
