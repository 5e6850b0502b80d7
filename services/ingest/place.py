"""The place of a declaration: refused where it is no shape or not here, reduced to its kind's precision for storage."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import h3.api.basic_int as h3
import shapely
from planier.common.v1.fact_pb2 import Geometry, LngLat, Polygon
from shapely.geometry.base import BaseGeometry

from services.kernel.registry import Precision
from services.kernel.territory import Bounds

# 400 KB of coordinates: a fact stays below one message of the bus (512 KiB), and seconds away from blocking a process.
MOST_POINTS: Final = 20_000

Coordinates = tuple[tuple[float, float], ...]


def flaw(geometry: Geometry) -> str | None:
    """What makes the geometry invalid (OGC simple features), as a word in lower case, never a coordinate; or None."""
    shape = geometry.WhichOneof("shape")
    if shape == "point":
        return None
    if sum(1 for _ in vertices(geometry)) > MOST_POINTS:
        return "too many points"
    if shape != "line" and any(
        ring.points[0] != ring.points[-1] for part in _polygons(geometry) for ring in part.rings
    ):
        return "ring not closed"
    built = _built(geometry)
    if built.is_valid:
        return None
    # GEOS says "Self-intersection[5.37 43.29]": the kind of flaw may leave, the place may not.
    return str(shapely.is_valid_reason(built)).split("[", maxsplit=1)[0].strip().lower()


def inside(geometry: Geometry, bounds: Bounds) -> bool:
    """Whether every point lies within the territory."""
    if geometry.HasField("point"):
        point = geometry.point
        return bounds.holds(point.longitude, point.latitude)
    return all(bounds.holds(point.longitude, point.latitude) for point in vertices(geometry))


def reduce(geometry: Geometry, precision: Precision) -> None:
    """Gives every coordinate its kind's precision, in place; deterministic, since retries are compared after it.

    Cells: whatever the shape, the centre of the H3 cell that holds the mean of its points. Decimals: each point.
    """
    if precision.decimals is None:
        longitude, latitude = reduced(*middle(geometry), precision)
        if not geometry.HasField("point"):
            geometry.Clear()
        geometry.point.longitude, geometry.point.latitude = longitude, latitude
        return
    for point in vertices(geometry):
        point.longitude, point.latitude = reduced(point.longitude, point.latitude, precision)


def reduced(longitude: float, latitude: float, precision: Precision) -> tuple[float, float]:
    """One point at its kind's precision."""
    if precision.h3_resolution is not None:
        return _centre(h3.latlng_to_cell(latitude, longitude, precision.h3_resolution))
    return round(longitude, precision.decimals), round(latitude, precision.decimals)


@lru_cache(maxsize=50_000)
def _centre(cell: int) -> tuple[float, float]:
    latitude, longitude = h3.cell_to_latlng(cell)
    return round(longitude, 7), round(latitude, 7)


def mend(geometry: Geometry, precision: Precision) -> bool:
    """Repairs, in place, a valid shape that its reduction made invalid; whether it had to.

    Areas keep what remains of them on the coarser grid; what has collapsed becomes a point.
    """
    if geometry.HasField("point") or precision.decimals is None or _built(geometry).is_valid:
        return False
    longitude, latitude = middle(geometry)
    if not geometry.HasField("line"):
        snapped = shapely.set_precision(shapely.make_valid(_built(geometry)), 10.0**-precision.decimals)
        kept: Any = shapely.get_parts(shapely.get_parts(snapped))
        parts = [part for part in kept if part.geom_type == "Polygon"]
        if parts and _rewrite(geometry, parts, precision.decimals):
            return True
    geometry.Clear()
    geometry.point.longitude = round(longitude, precision.decimals)
    geometry.point.latitude = round(latitude, precision.decimals)
    return True


def middle(geometry: Geometry) -> tuple[float, float]:
    """The mean of a shape's points, (longitude, latitude); the point itself for a point."""
    if geometry.HasField("point"):
        point = geometry.point
        return point.longitude, point.latitude
    points = [(point.longitude, point.latitude) for point in vertices(geometry)]
    return sum(point[0] for point in points) / len(points), sum(point[1] for point in points) / len(points)


def vertices(geometry: Geometry) -> Iterator[LngLat]:
    """Every point of a shape, rings included."""
    shape = geometry.WhichOneof("shape")
    if shape == "point":
        yield geometry.point
    elif shape == "line":
        yield from geometry.line.points
    else:
        for polygon in _polygons(geometry):
            for ring in polygon.rings:
                yield from ring.points


def _polygons(geometry: Geometry) -> Iterable[Polygon]:
    return geometry.multi_polygon.polygons if geometry.HasField("multi_polygon") else (geometry.polygon,)


def _built(geometry: Geometry) -> BaseGeometry:
    if geometry.HasField("line"):
        return shapely.LineString(_coordinates(geometry.line.points))
    parts = [
        shapely.Polygon(rings[0], rings[1:])
        for rings in ([_coordinates(ring.points) for ring in polygon.rings] for polygon in _polygons(geometry))
    ]
    return parts[0] if geometry.HasField("polygon") else shapely.MultiPolygon(parts)


def _coordinates(points: Iterable[LngLat]) -> Coordinates:
    return tuple((point.longitude, point.latitude) for point in points)


def _rewrite(geometry: Geometry, parts: list[Any], decimals: int) -> bool:
    """Writes the polygons; False, and nothing of use written, where crossings off the grid leave them invalid."""
    fresh = Geometry()
    for part in parts:
        polygon = fresh.multi_polygon.polygons.add() if len(parts) > 1 else fresh.polygon
        for ring in (part.exterior, *part.interiors):
            target = polygon.rings.add()
            for longitude, latitude in ring.coords:
                target.points.add(longitude=round(longitude, decimals), latitude=round(latitude, decimals))
    if not _built(fresh).is_valid:
        return False
    geometry.CopyFrom(fresh)
    return True
