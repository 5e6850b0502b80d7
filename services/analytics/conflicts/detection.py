"""What near pairs are under each rule: exact windows, place, factors, measures; a pure function of two versions.

Whatever else is known of other facts changes nothing here, so that detecting one version against its neighbours gives
the rows that detecting everything again would give.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from planier.analytics.v1 import conflicts_pb2 as pb
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry

from services.analytics.conflicts.crossing import Pairs
from services.analytics.conflicts.rules import Rule, Rules
from services.analytics.conflicts.subjects import Columns, Metres, Subject, choices_of
from services.analytics.conflicts.windows import Windows, common, widened
from services.analytics.placement import E7

HOUR_US: Final = 3_600_000_000
# Overlaps are drawn to a metre; what is only a line or some points is drawn that wide.
_DRAWN: Final = 1.0
_QUARTER_SEGMENTS: Final = 4
_SIMPLE: Final = ("Point", "LineString", "Polygon", "MultiPolygon")


@dataclass(frozen=True, slots=True)
class Found:
    """One row under a rule (its bit): two versions that collide, one that needs something, or it and what covers it.

    `box` is west, south, east, north in 1e-7 degree; `body` a serialised Conflict without what is derived.
    """

    conflict_id: bytes
    rule: int
    left: Subject
    right: Subject | None
    since_us: int
    until_us: int
    windows: Windows
    box: tuple[int, int, int, int]
    body: bytes


class Detector:
    """Applies rules on a territory's projection."""

    def __init__(self, rules: Rules, metres: Metres) -> None:
        self.rules = rules
        self.metres = metres
        self._sides = [(rule, np.uint64(1 << bit), bit) for bit, rule in enumerate(rules.rules)]

    def of_pairs(self, subjects: Sequence[Subject], columns: Columns, pairs: Pairs) -> Iterator[Found]:
        """What near pairs are under every rule that has both on its sides."""
        one, other = pairs
        for rule, mask, bit in self._sides:
            forward = (columns.left[one] & columns.right[other] & mask) != 0
            backward = (columns.left[other] & columns.right[one] & mask) != 0
            concerned = np.flatnonzero(forward | backward)
            if not len(concerned):
                continue
            close = shapely.dwithin(columns.shapes[one[concerned]], columns.shapes[other[concerned]], rule.metres)
            oriented = [
                _oriented(subjects[one[place]], subjects[other[place]], bool(forward[place]), bool(backward[place]))
                for place in concerned[close]
            ]
            yield from self._under(rule, bit, oriented)

    def of_needs(self, subjects: Sequence[Subject]) -> Iterator[Found]:
        """What needs something near it, whether or not it is there; not where the fact itself cites the measure."""
        for rule, _, bit in self._sides:
            if not rule.needs:
                continue
            for subject in subjects:
                if subject.left >> bit & 1 and not _answering(rule, (subject,)):
                    yield self._need(rule, bit, subject)

    def _under(self, rule: Rule, bit: int, oriented: Sequence[tuple[Subject, Subject]]) -> Iterator[Found]:
        timed = []
        for left, right in oriented:
            windows = common(widened(left.windows, rule.margin_us), right.windows)
            if windows and not (rule.needs and _answering(rule, (left,))):
                timed.append((left, right, windows))
        if not timed:
            return
        if rule.needs:
            for left, right, windows in timed:
                yield _cover(rule, bit, left, right, windows)
            return
        places = self._places(rule, [left.shape for left, _, _ in timed], [right.shape for _, right, _ in timed])
        for (left, right, windows), place, distance, surface in zip(timed, *places, strict=True):
            factors = [
                *_timing(windows),
                pb.SeverityFactor(kind=pb.SEVERITY_FACTOR_KIND_DISTANCE, value=round(distance, 1)),
                *_surface(surface),
                *_weights(self.rules, (left, right)),
            ]
            yield _found(rule, bit, (left, right), windows, place, factors)

    def _places(
        self, rule: Rule, lefts: Sequence[BaseGeometry], rights: Sequence[BaseGeometry]
    ) -> tuple[Sequence[BaseGeometry], Sequence[float], Sequence[float]]:
        """What both reach (degrees), the metres between them, and the surface (m2) that both take up."""
        left, right = _objects(lefts), _objects(rights)
        shared = _intersections(left, right)
        reached = shared.copy()
        if rule.metres:
            half = rule.metres / 2
            reached = _intersections(
                shapely.buffer(left, half, quad_segs=_QUARTER_SEGMENTS),
                shapely.buffer(right, half, quad_segs=_QUARTER_SEGMENTS),
            )
        # Drawn circles are a little smaller than true ones.
        missed = shapely.is_empty(reached)
        reached[missed] = shapely.shortest_line(left[missed], right[missed])
        drawn = self.metres.degrees([_drawn(shape) for shape in reached])
        return list(drawn), shapely.distance(left, right).tolist(), shapely.area(shared).tolist()

    def _need(self, rule: Rule, bit: int, subject: Subject) -> Found:
        place = self.metres.degrees([_drawn(subject.shape)])[0]
        return _found(rule, bit, (subject,), subject.windows, place, _weights(self.rules, (subject,)))


def identity(rule_id: str, *fact_ids: bytes) -> bytes:
    """A conflict's id, 16 bytes: the rule and the facts, in the rule's order, whatever their versions."""
    return hashlib.blake2b(b"\n".join((rule_id.encode(), *fact_ids)), digest_size=16).digest()


def fingerprint(conflict: pb.Conflict) -> str:
    """What the conflict is: rule version, place, windows, factors; a title or a measure changes nothing of it."""
    seen = pb.Conflict(
        rule_id=conflict.rule_id,
        rule_version=conflict.rule_version,
        overlap=conflict.overlap,
        windows=conflict.windows,
        factors=conflict.factors,
    )
    return hashlib.blake2b(seen.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def set_windows(conflict: pb.Conflict, windows: Windows) -> None:
    """Puts other windows in, and what follows from them: of a fact that lacks something for a part of its time."""
    del conflict.windows[:]
    conflict.windows.extend(_period(window) for window in windows)
    timing = (pb.SEVERITY_FACTOR_KIND_DURATION, pb.SEVERITY_FACTOR_KIND_WINDOWS)
    others = [factor for factor in conflict.factors if factor.kind not in timing]
    del conflict.factors[:]
    conflict.factors.extend([*_timing(windows), *others])


def _oriented(one: Subject, other: Subject, forward: bool, backward: bool) -> tuple[Subject, Subject]:
    if forward and backward:
        forward = one.fact_id < other.fact_id
    return (one, other) if forward else (other, one)


def _found(
    rule: Rule,
    bit: int,
    subjects: Sequence[Subject],
    windows: Windows,
    place: BaseGeometry,
    factors: Iterable[pb.SeverityFactor],
) -> Found:
    conflict_id = identity(rule.rule_id, *(subject.fact_id for subject in subjects))
    present = _answering(rule, subjects)
    kinds = {measure.kind for measure in present}
    body = pb.Conflict(
        conflict_id=conflict_id.hex(),
        rule_id=rule.rule_id,
        rule_version=rule.version,
        label=rule.label,
        facts=[_fact(subject) for subject in subjects],
        overlap=_geometry(place),
        windows=[_period(window) for window in windows],
        factors=factors,
        measures_present=present,
        measures_missing=[kind for kind in rule.answers if kind not in kinds],
    )
    west, south, east, north = place.bounds
    box = (math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7))
    return Found(
        conflict_id,
        bit,
        subjects[0],
        subjects[1] if len(subjects) > 1 else None,
        max(subject.since_us for subject in subjects),
        min(subject.until_us for subject in subjects),
        windows,
        box,
        body.SerializeToString(deterministic=True),
    )


def _cover(rule: Rule, bit: int, left: Subject, right: Subject, windows: Windows) -> Found:
    """A fact that gives another what it needs, for a time; the conflict is the other's."""
    body = pb.Conflict(windows=[_period(window) for window in windows], covering_fact_ids=[right.fact_id.hex()])
    return Found(
        identity(rule.rule_id, left.fact_id),
        bit,
        left,
        right,
        max(left.since_us, right.since_us),
        min(left.until_us, right.until_us),
        windows,
        (0, 0, 0, 0),
        body.SerializeToString(deterministic=True),
    )


def _answering(rule: Rule, subjects: Sequence[Subject]) -> list[fact_pb2.Measure]:
    """The measures of the facts that answer a rule, each once."""
    found = {
        (measure.kind, measure.reference): measure
        for subject in subjects
        for measure in subject.fact.measures
        if measure.kind in rule.answers
    }
    return [found[key] for key in sorted(found)]


def _timing(windows: Windows) -> list[pb.SeverityFactor]:
    hours = sum(end - start for start, end in windows) / HOUR_US
    return [
        pb.SeverityFactor(kind=pb.SEVERITY_FACTOR_KIND_DURATION, value=round(hours, 3)),
        pb.SeverityFactor(kind=pb.SEVERITY_FACTOR_KIND_WINDOWS, value=len(windows)),
    ]


def _surface(surface: float) -> list[pb.SeverityFactor]:
    rounded = round(surface)
    return [pb.SeverityFactor(kind=pb.SEVERITY_FACTOR_KIND_SURFACE, value=rounded)] if rounded else []


def _weights(rules: Rules, subjects: Sequence[Subject]) -> list[pb.SeverityFactor]:
    """The attendance that is known, and the attributes that the rules count as severity."""
    attendance = sum(subject.fact.attendance.maximum for subject in subjects)
    factors = [pb.SeverityFactor(kind=pb.SEVERITY_FACTOR_KIND_ATTENDANCE, value=attendance)] if attendance else []
    for subject in subjects:
        choices = choices_of(subject.fact)
        factors += [
            pb.SeverityFactor(
                kind=pb.SEVERITY_FACTOR_KIND_ATTRIBUTE,
                attribute=name,
                choice=choices[name],
                fact_id=subject.fact_id.hex(),
            )
            for name in sorted(rules.severity_attributes & choices.keys())
        ]
    return factors


def _fact(subject: Subject) -> pb.ConflictFact:
    fact = subject.fact
    return pb.ConflictFact(
        fact_id=subject.fact_id.hex(),
        source=fact.source,
        kind=fact.kind,
        title=fact.title,
        revision=fact.revision,
        status=fact.status,
        attendance=fact.attendance if fact.HasField("attendance") else None,
    )


def _period(window: tuple[int, int]) -> fact_pb2.Period:
    period = fact_pb2.Period()
    period.start.FromMicroseconds(window[0])
    period.end.FromMicroseconds(window[1])
    return period


def _objects(shapes: Sequence[BaseGeometry]) -> npt.NDArray[np.object_]:
    array = np.empty(len(shapes), dtype=object)
    array[:] = shapes
    return array


def _intersections(left: npt.NDArray[np.object_], right: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """What each two have in common; empty where the overlay fails, which must not stop the read model."""
    try:
        return np.asarray(shapely.intersection(left, right), dtype=object)
    except shapely.errors.GEOSException:
        if len(left) == 1:
            return _objects([shapely.Point()])
        return np.concatenate([_intersections(left[i : i + 1], right[i : i + 1]) for i in range(len(left))])


def _drawn(shape: BaseGeometry) -> BaseGeometry:
    """The shape in one of the forms that contracts know, its outline to a metre."""
    if shape.geom_type == "GeometryCollection":
        surfaces = [part for part in shapely.get_parts(shape) if part.geom_type in ("Polygon", "MultiPolygon")]
        shape = shapely.union_all(surfaces) if surfaces else shape
    if shape.geom_type not in _SIMPLE:
        shape = shape.buffer(_DRAWN, quad_segs=_QUARTER_SEGMENTS)
    if shape.geom_type == "LineString" and not shape.length:
        return shapely.Point(shape.coords[0])
    return shape.simplify(_DRAWN) if shape.geom_type in ("Polygon", "MultiPolygon") else shape


def _geometry(shape: BaseGeometry) -> fact_pb2.Geometry:
    if shape.geom_type == "Point":
        return fact_pb2.Geometry(point=_points(shape)[0])
    if shape.geom_type == "LineString":
        return fact_pb2.Geometry(line=fact_pb2.LineString(points=_points(shape)))
    if shape.geom_type == "Polygon":
        return fact_pb2.Geometry(polygon=_polygon(shape))
    several = fact_pb2.MultiPolygon(polygons=[_polygon(part) for part in shapely.get_parts(shape)])
    return fact_pb2.Geometry(multi_polygon=several)


def _polygon(shape: BaseGeometry) -> fact_pb2.Polygon:
    # The outer one first.
    return fact_pb2.Polygon(rings=[fact_pb2.Ring(points=_points(ring)) for ring in shapely.get_rings(shape)])


def _points(shape: BaseGeometry) -> list[fact_pb2.LngLat]:
    return [fact_pb2.LngLat(longitude=x, latitude=y) for x, y in shapely.get_coordinates(shape).tolist()]
