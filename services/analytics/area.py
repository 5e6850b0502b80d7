"""The area that a question is about, and the exact test of what meets it; its edge counts as in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely
from planier.analytics.v1.analytics_pb2 import BoundingBox
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry

from services.analytics.placement import E7, polygon_of
from services.kernel.errors import Problem, Violation, invalid


@dataclass(frozen=True)
class Area:
    """A box, in 1e-7 degree, that holds the whole area; the polygon, where the area is not that box itself."""

    west: int
    south: int
    east: int
    north: int
    polygon: BaseGeometry | None = None

    @property
    def is_box(self) -> bool:
        """Whether the area is the whole box."""
        return self.polygon is None

    @cached_property
    def shape(self) -> BaseGeometry:
        """The area for shapely, prepared; made when first needed: most questions about a box never need it."""
        shape = _box_shape(self) if self.polygon is None else self.polygon
        shapely.prepare(shape)
        return shape

    def holds_box(self, west: int, south: int, east: int, north: int) -> bool:
        """Whether the box is surely within; a polygon never says so."""
        return self.is_box and west >= self.west and east <= self.east and south >= self.south and north <= self.north

    def meets_box(self, west: int, south: int, east: int, north: int) -> bool:
        """Whether the box meets the area's own box."""
        return west <= self.east and east >= self.west and south <= self.north and north >= self.south

    def holds_points(self, longitudes: Sequence[int], latitudes: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which points (1e-7 degree) are in the area, box or polygon."""
        x, y = np.array(longitudes, dtype=np.int64), np.array(latitudes, dtype=np.int64)
        inside: npt.NDArray[np.bool_] = (x >= self.west) & (x <= self.east) & (y >= self.south) & (y <= self.north)
        if not self.is_box:
            inside[inside] = self.meets_points(x[inside].tolist(), y[inside].tolist())
        return inside

    def meets_points(self, longitudes: Sequence[int], latitudes: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which points (1e-7 degree) are in a polygon."""
        found: npt.NDArray[np.bool_] = shapely.intersects_xy(
            self.shape, np.array(longitudes) / E7, np.array(latitudes) / E7
        )
        return found

    def meets_shapes(self, shapes: Sequence[BaseGeometry]) -> npt.NDArray[np.bool_]:
        """Which shapes share at least a point with the area."""
        found: npt.NDArray[np.bool_] = shapely.intersects(self.shape, np.array(shapes, dtype=object))
        return found


def area_of_box(box: BoundingBox) -> Area:
    """The box on the grid of 1e-7 degree, on which points are stored: a point returned as its corner is within."""
    return Area(round(box.west * E7), round(box.south * E7), round(box.east * E7), round(box.north * E7))


def area_of_polygon(polygon: fact_pb2.Polygon) -> Area:
    """The polygon. Raises Problem INVALID_ARGUMENT AREA_INVALID where its rings cross or are not closed."""
    if any(ring.points[0] != ring.points[-1] for ring in polygon.rings):
        raise _invalid("closed", "first and last point of a ring are the same")
    shape = polygon_of(polygon)
    if not shape.is_valid:
        raise _invalid("valid", "rings must not cross themselves or each other")
    west, south, east, north = shape.bounds
    return Area(math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7), shape)


def _box_shape(box: Area) -> BaseGeometry:
    """A box without surface is a line or a point; as a polygon it would be invalid."""
    west, south, east, north = (edge / E7 for edge in (box.west, box.south, box.east, box.north))
    if (west, south) == (east, north):
        return shapely.Point(west, south)
    if west == east or south == north:
        return shapely.LineString([(west, south), (east, north)])
    return shapely.Polygon([(west, south), (east, south), (east, north), (west, north)])


def _invalid(rule: str, description: str) -> Problem:
    return invalid("AREA_INVALID", "the area is not a polygon", Violation("polygon", rule, description))
