"""A version of a fact as crossing sees it: shape in metres, windows, the sides of rules that it is on; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from planier.common.v1 import fact_pb2
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.windows import Windows, merged
from services.analytics.placement import microseconds_of, shape_of

# The end of what is still current.
FOREVER: Final = 2**63 - 1
# What does not take place collides with nothing.
IDLE: Final = frozenset((fact_pb2.FACT_STATUS_CANCELLED, fact_pb2.FACT_STATUS_PROHIBITED))
_WGS84: Final = 4326
# Metres from a projection's origin beyond which it means nothing; not a number is not below it.
_FARTHEST: Final = 1e8


class Metres:
    """Between degrees (WGS 84) and metres on the territory's projection."""

    def __init__(self, epsg: int) -> None:
        self._to = Transformer.from_crs(_WGS84, epsg, always_xy=True)
        self._back = Transformer.from_crs(epsg, _WGS84, always_xy=True)

    def shapes(self, shapes: Sequence[BaseGeometry]) -> npt.NDArray[np.object_]:
        """Shapes in degrees, in metres; an invalid one is made valid, as no distance to it is certain otherwise."""
        projected = _transformed(shapes, self._to)
        invalid = ~shapely.is_valid(projected)
        if invalid.any():
            mended = shapely.make_valid(projected[invalid])
            projected[invalid] = [_most_solid(shape) for shape in mended]
        return projected

    def degrees(self, shapes: Sequence[BaseGeometry]) -> npt.NDArray[np.object_]:
        """Shapes in metres, in degrees to 1e-7 (1 cm)."""
        return _transformed(shapes, self._back, decimals=7)


@dataclass(frozen=True, slots=True)
class Subject:
    """One version of one fact; `since_us` to `until_us` is when it was what the platform knew.

    `left` and `right` have the bit of each rule on whose side it is.
    """

    fact_id: bytes
    position: int
    since_us: int
    until_us: int
    fact: fact_pb2.Fact
    shape: BaseGeometry
    windows: Windows
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Subjects as arrays, one element each: shapes in metres, their boxes, hulls of windows, sides."""

    shapes: npt.NDArray[np.object_]
    bounds: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    since: npt.NDArray[np.int64]
    until: npt.NDArray[np.int64]
    left: npt.NDArray[np.uint64]
    right: npt.NDArray[np.uint64]


def sides_of(rules: Rules, fact: fact_pb2.Fact) -> tuple[int, int]:
    """The bits of the rules on whose left and right side a fact is; none for one that does not take place."""
    if fact.status in IDLE:
        return 0, 0
    attributes = choices_of(fact)
    left = right = 0
    for bit, rule in enumerate(rules.rules):
        left |= rule.left.takes(fact.source, fact.kind, attributes) << bit
        right |= rule.right.takes(fact.source, fact.kind, attributes) << bit
    return left, right


def choices_of(fact: fact_pb2.Fact) -> Mapping[str, str]:
    """The attributes of a fact that are choices."""
    return {one.name: one.choice for one in fact.attributes if one.HasField("choice")}


def windows_of(fact: fact_pb2.Fact) -> Windows:
    """The periods of a fact, merged."""
    if len(fact.periods) == 1:
        # Nearly all facts, and each neighbour of each look-up.
        start, end = microseconds_of(fact.periods[0].start), microseconds_of(fact.periods[0].end)
        return ((start, end),) if start < end else ()
    return merged((microseconds_of(period.start), microseconds_of(period.end)) for period in fact.periods)


def in_metres(metres: Metres, facts: Sequence[fact_pb2.Fact]) -> npt.NDArray[np.object_]:
    """The shapes of facts, in metres."""
    return metres.shapes([shape_of(fact.geometry) for fact in facts])


def is_placed(shape: BaseGeometry) -> bool:
    """Whether a shape in metres is somewhere that the projection knows."""
    return all(abs(edge) < _FARTHEST for edge in shape.bounds)


def columns_of(subjects: Sequence[Subject]) -> Columns:
    """The arrays of some subjects, in their order."""
    shapes = np.array([subject.shape for subject in subjects], dtype=object)
    whole = [(s.windows[0][0], s.windows[-1][1], s.since_us, s.until_us) for s in subjects]
    times = np.array(whole, dtype=np.int64).reshape(len(subjects), 4)
    sides = np.array([(s.left, s.right) for s in subjects], dtype=np.uint64).reshape(len(subjects), 2)
    bounds = np.asarray(shapely.bounds(shapes), dtype=np.float64).reshape(len(subjects), 4)
    return Columns(shapes, bounds, *times.T, *sides.T)


def _most_solid(shape: BaseGeometry) -> BaseGeometry:
    """Of a mixture, the parts of the highest dimension: overlays take no mixtures."""
    if shape.geom_type != "GeometryCollection":
        return shape
    parts = shapely.get_parts(shape)
    dimensions = shapely.get_dimensions(parts)
    return shapely.union_all(parts[dimensions == dimensions.max(initial=0)])


def _transformed(
    shapes: Sequence[BaseGeometry], transformer: Transformer, decimals: int | None = None
) -> npt.NDArray[np.object_]:
    def convert(coordinates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = transformer.transform(coordinates[:, 0], coordinates[:, 1])
        converted = np.column_stack((x, y))
        return converted if decimals is None else np.round(converted, decimals)

    array = np.empty(len(shapes), dtype=object)
    array[:] = shapes
    return np.asarray(shapely.transform(array, convert), dtype=object) if len(array) else array
