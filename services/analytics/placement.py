"""Where and when a fact is: its box, its point, its H3 cell and the bucket that the map index keeps it in; pure.

Coordinates are integers of 1e-7 degree (about 1 cm), the grid on which points and boxes are compared.
Instants are microseconds since 1970. A bucket is (coarse H3 cell, class of extent, class of duration), so that both a
viewport and a period become short ranges although works last months and closures run along whole avenues.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import h3.api.basic_int as h3
import shapely
from google.protobuf.timestamp_pb2 import Timestamp
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry

E7 = 10_000_000
# Finest counts that the map can show: about 66 m of edge.
CELL_RESOLUTION = 10
# Class of extent: greatest side of the box (1e-7 degree) and resolution of the coarse cell. Class 0 holds points; the
# last class has no cell, its facts are found by time alone.
EXTENTS = ((0, 8), (E7 // 100, 7), (E7 // 10, 5))
NO_CELL = len(EXTENTS)
# What arrives is counted by cells of this resolution (5 km2), up to this class of extent.
AREA_RESOLUTION = 7
_AREA_LEVEL = 1
# `area_of` in SQL, and whether there is one.
AREA_OF_BUCKET = f"((bucket & {~(0xF << 52)}) | {AREA_RESOLUTION << 52 | (1 << 3 * (15 - AREA_RESOLUTION)) - 1})"
HAS_AREA = f"(bucket & {0x7F00}) <= {_AREA_LEVEL << 8}"
# Durations of class k are at most 1 h x 4^k: a period then scans at most four times the starts that can meet it.
SHORTEST_US = 3_600_000_000
# A cell's edges bulge beyond the box of its corners (2 m at resolution 5); half a thousandth of a degree covers it.
MARGIN = 5_000
FAR_WEST = -180 * E7
_WORLD = (FAR_WEST, -90 * E7, 180 * E7, 90 * E7)
# No cell of class 0 is wider (kilometres; 1.3 at most where H3's cells are greatest), nor nearer to a pole than this
# (degrees) without being looked for everywhere.
_WIDEST_KM, _POLAR = 1.5, 80


class Placement(NamedTuple):
    """Hull of the periods (microseconds), box and representative point (1e-7 degree), cell of the point, bucket."""

    starts_us: int
    ends_us: int
    west: int
    south: int
    east: int
    north: int
    longitude: int
    latitude: int
    cell: int
    bucket: int


class Bucket(NamedTuple):
    """What a bucket promises of its facts: they meet this box and last at most `span_us`; in the order of the table.

    `plain` facts are one point and one period: the index alone decides whether they match.
    """

    plain: int
    west: int
    bucket: int
    span_us: int
    south: int
    east: int
    north: int


def microseconds_of(moment: Timestamp) -> int:
    """Microseconds since 1970; finer digits are dropped, as everywhere in the product."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def place(fact: fact_pb2.Fact) -> Placement:
    """The placement of a valid fact; the same for the same fact, whatever came before it."""
    geometry, periods = fact.geometry, fact.periods
    several = len(periods) > 1
    if several:
        starts = min(microseconds_of(period.start) for period in periods)
        ends = max(microseconds_of(period.end) for period in periods)
    else:
        # Nearly all facts; the function would cost as much as what it does.
        start, end = periods[0].start, periods[0].end
        starts = start.seconds * 1_000_000 + start.nanos // 1000
        ends = end.seconds * 1_000_000 + end.nanos // 1000
    if geometry.HasField("point"):
        point = geometry.point
        longitude, latitude, cell, coarse = _point(point.longitude, point.latitude)
        bucket = coarse | several << 15 | _duration(ends - starts)
        return Placement(starts, ends, longitude, latitude, longitude, latitude, longitude, latitude, cell, bucket)
    west, south, east, north, longitude, latitude = _extent(shape_of(geometry))
    cell = _cell(latitude / E7, longitude / E7, CELL_RESOLUTION)
    bucket = _bucket(longitude, latitude, max(east - west, north - south), ends - starts, several)
    return Placement(starts, ends, west, south, east, north, longitude, latitude, cell, bucket)


@lru_cache(maxsize=65_536)
def _point(longitude: float, latitude: float) -> tuple[int, int, int, int]:
    """A point on the grid, its cell, and its bucket but for the duration; reduced places repeat."""
    east, north = round(longitude * E7), round(latitude * E7)
    coarse = _cell(north / E7, east / E7, EXTENTS[0][1])
    return east, north, _cell(latitude, longitude, CELL_RESOLUTION), coarse & ~0xFFFF


def parent(cell: int, resolution: int) -> int:
    """The cell of a coarser resolution that holds this one: H3's own bits, 0.2 microseconds instead of 1."""
    return (cell & ~(0xF << 52)) | (resolution << 52) | ((1 << (3 * (15 - resolution))) - 1)


def _cell(latitude: float, longitude: float, resolution: int) -> int:
    cell: int = h3.latlng_to_cell(latitude, longitude, resolution)
    return cell


def _bucket(longitude: int, latitude: int, extent: int, span_us: int, several: bool) -> int:
    """The 21 lowest bits of a cell of resolution 8 or coarser say nothing: 16 of them hold the classes.

    The coarse cell is the one that the point lies in, not the fine cell's ancestor: H3's children bulge out.
    """
    level = 0
    while level < NO_CELL and extent > EXTENTS[level][0]:
        level += 1
    coarse = _cell(latitude / E7, longitude / E7, EXTENTS[level][1]) if level < NO_CELL else 0
    return (coarse & ~0xFFFF) | several << 15 | level << 8 | _duration(span_us)


def _duration(span_us: int) -> int:
    duration = 0
    while span_us > SHORTEST_US << (2 * duration):
        duration += 1
    return duration


@lru_cache(maxsize=65_536)
def bucket_of(bucket: int) -> Bucket:
    """What a bucket's key says of its facts."""
    level, duration = (bucket >> 8) & 0x7F, bucket & 0xFF
    plain = int(level == 0 and not bucket & 0x8000)
    span_us = SHORTEST_US << (2 * duration)
    if level == NO_CELL:
        return _promise(bucket, plain, span_us, _WORLD)
    extent, resolution = EXTENTS[level]
    return _promise(bucket, plain, span_us, _box_around([parent(bucket | 0xFFFF, resolution)], extent + MARGIN))


def _promise(bucket: int, plain: int, span_us: int, box: tuple[int, int, int, int]) -> Bucket:
    west, south, east, north = box
    return Bucket(plain, west, bucket, span_us, south, east, north)


def westernmost(west: int, south: int, east: int, north: int) -> int:
    """No bucket of plain facts that meets this box begins west of it: what lets an index skip the others."""
    furthest = max(abs(south), abs(north)) / E7
    if furthest > _POLAR or west < -179 * E7 or east > 179 * E7:
        return FAR_WEST
    # A cell that meets the box has a part a little nearer to the pole.
    degrees = _WIDEST_KM / (111 * math.cos(math.radians(furthest + 0.1)))
    return west - math.ceil(degrees * E7) - 2 * MARGIN


@lru_cache(maxsize=65_536)
def box_of_area(area: int) -> tuple[int, int, int, int]:
    """West, south, east and north of an area (area_of) and of whatever lies in the finer cells that it stands for."""
    return _box_around(h3.cell_to_children(area, EXTENTS[0][1]), MARGIN)


def area_of(bucket: int) -> int | None:
    """The cell of resolution 7 that a bucket lies in; None where its facts are larger than that."""
    return parent(bucket | 0xFFFF, AREA_RESOLUTION) if (bucket >> 8) & 0x7F <= _AREA_LEVEL else None


def _box_around(cells: Iterable[int], reach: int) -> tuple[int, int, int, int]:
    corners = [corner for cell in cells for corner in h3.cell_to_boundary(cell)]
    latitudes, longitudes = [corner[0] for corner in corners], [corner[1] for corner in corners]
    south, north = round(min(latitudes) * E7) - reach, round(max(latitudes) * E7) + reach
    west, east = round(min(longitudes) * E7) - reach, round(max(longitudes) * E7) + reach
    if east - west > 180 * E7 or max(abs(south), abs(north)) > 85 * E7:
        # Across the antimeridian or around a pole the corners' box means nothing.
        return _WORLD
    return west, south, east, north


def shape_of(geometry: fact_pb2.Geometry) -> BaseGeometry:
    """The geometry in shapely's words; longitude first."""
    shape = geometry.WhichOneof("shape")
    if shape == "point":
        return shapely.Point(geometry.point.longitude, geometry.point.latitude)
    if shape == "line":
        return shapely.LineString([(point.longitude, point.latitude) for point in geometry.line.points])
    if shape == "polygon":
        return polygon_of(geometry.polygon)
    return shapely.MultiPolygon([polygon_of(polygon) for polygon in geometry.multi_polygon.polygons])


def polygon_of(polygon: fact_pb2.Polygon) -> shapely.Polygon:
    """One polygon: first ring outer, others holes."""
    rings = [[(point.longitude, point.latitude) for point in ring.points] for ring in polygon.rings]
    return shapely.Polygon(rings[0], rings[1:])


def _extent(shape: BaseGeometry) -> tuple[int, int, int, int, int, int]:
    """Box rounded outwards, and a point of the shape (a line's middle) within it."""
    west, south, east, north = shape.bounds
    try:
        point = shape.interpolate(0.5, normalized=True) if shape.geom_type == "LineString" else shape.point_on_surface()
        longitude, latitude = float(point.x), float(point.y)
    except shapely.errors.ShapelyError:
        # A shape that crosses itself has no sure inside; nothing that was recorded may stop the read model.
        longitude, latitude = (west + east) / 2, (south + north) / 2
    box = (math.floor(west * E7), math.floor(south * E7), math.ceil(east * E7), math.ceil(north * E7))
    return *box, round(longitude * E7), round(latitude * E7)
