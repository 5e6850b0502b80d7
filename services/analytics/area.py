"""The area that a question is about, and the exact test of what meets it; its edge counts as in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from planier.analytics.v1.analytics_pb2 import BoundingBox
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry

from services.analytics.placement import E7, polygon_of
from services.kernel.errors import Problem, Violation, invalid


@dataclass(frozen=True, slots=True)
class Area:
    """A box, in 1e-7 degree, that holds the whole area; the area itself for shapely; whether they are the same."""

    west: int
    south: int
    east: int
    north: int
    shape: BaseGeometry
    is_box: bool

    def holds_box(self, west: int, south: int, east: int, north: int) -> bool:
        """Whether the box is surely within; a polygon never says so."""
        return self.is_box and west >= self.west and east <= self.east and south >= self.south and north <= self.north

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
    west, south, east, north = (round(edge * E7) for edge in (box.west, box.south, box.east, box.north))
    corners = [(x / E7, y / E7) for x, y in ((west, south), (east, south), (east, north), (west, north))]
    if west == east or south == north:
        # A box without surface is a line or a point; as a polygon it would be invalid.
        shape: BaseGeometry = (
            shapely.Point(corners[0]) if corners[0] == corners[2] else shapely.LineString(corners[::2])
        )
    else:
        shape = shapely.Polygon(corners)
    shapely.prepare(shape)
    return Area(west, south, east, north, shape, is_box=True)


def area_of_polygon(polygon: fact_pb2.Polygon) -> Area:
    """The polygon. Raises Problem INVALID_ARGUMENT AREA_INVALID where its rings cross or are not closed."""
    if any(ring.points[0] != ring.points[-1] for ring in polygon.rings):
        raise _invalid("closed", "first and last point of a ring are the same")
    shape = polygon_of(polygon)
    if not shape.is_valid:
        raise _invalid("valid", "rings must not cross themselves or each other")
    west, south, east, north = shape.bounds
    shapely.prepare(shape)
    return Area(
        math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7), shape, is_box=False
    )


def _invalid(rule: str, description: str) -> Problem:
    return invalid("AREA_INVALID", "the area is not a polygon", Violation("polygon", rule, description))
