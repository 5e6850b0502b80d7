"""Which cells a shape lies in, and where in each: what makes a look-up of neighbours short; pure.

A shape is taken piece by piece, a line by its segments, so that a long route lies in the cells along it and in each by
the box of its part there. Two shapes within `reach` share a cell in which their boxes meet, one of them grown by it.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry

# Side of a cell, metres: a street or a square lies in one to four.
CELL: Final = 500.0
# A shape over more cells than this is in none of them, but in one for all such.
MOST_CELLS: Final = 64
LARGE: Final = -1
# Greatest durations (microseconds) of the first classes; the last one has no bound. A look-up then reads, of each
# class, the starts that can still be under way: events last hours, works months.
SPANS: Final = (16 * 3_600_000_000, 128 * 3_600_000_000, 1024 * 3_600_000_000)
ENDLESS: Final = 2**62
_DECIMETRES: Final = 10

# West, south, east, north: in metres, and as kept, in decimetres rounded outwards.
MetricBox = tuple[float, float, float, float]
Box = tuple[int, int, int, int]


def cells_of(shape: BaseGeometry, reach: float = 0.0) -> dict[int, Box]:
    """The cells that a shape grown by `reach` metres may lie in, each with the box of what it may take up there."""
    found: dict[int, MetricBox] = {}
    for west, south, east, north in _pieces(shape):
        box = (west - reach, south - reach, east + reach, north + reach)
        columns = range(math.floor(box[0] / CELL), math.floor(box[2] / CELL) + 1)
        rows = range(math.floor(box[1] / CELL), math.floor(box[3] / CELL) + 1)
        if len(columns) * len(rows) > MOST_CELLS or len(found) > MOST_CELLS:
            return {LARGE: whole_box(shape, reach)}
        for column in columns:
            for row in rows:
                cell = (column << 32) + row
                part = _within(box, column, row)
                known = found.get(cell)
                found[cell] = part if known is None else _hull(known, part)
    if len(found) > MOST_CELLS:
        return {LARGE: whole_box(shape, reach)}
    return {cell: _rounded(box) for cell, box in found.items()}


def whole_box(shape: BaseGeometry, reach: float = 0.0) -> Box:
    """The box of a shape grown by `reach` metres."""
    west, south, east, north = shape.bounds
    return _rounded((west - reach, south - reach, east + reach, north + reach))


def span_of(starts_us: int, ends_us: int) -> int:
    """The class of a duration."""
    return sum(ends_us - starts_us > bound for bound in SPANS)


def _pieces(shape: BaseGeometry) -> Iterable[MetricBox]:
    single = shape.geom_type in ("Point", "LineString", "Polygon")
    for part in (shape,) if single else shapely.get_parts(shape).tolist():
        if part.geom_type != "LineString":
            yield part.bounds
            continue
        points = shapely.get_coordinates(part).tolist()
        for (x, y), (other_x, other_y) in pairwise(points):
            yield (min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))


def _within(box: MetricBox, column: int, row: int) -> MetricBox:
    west, south = column * CELL, row * CELL
    return (max(box[0], west), max(box[1], south), min(box[2], west + CELL), min(box[3], south + CELL))


def _hull(one: MetricBox, other: MetricBox) -> MetricBox:
    low = min(one[0], other[0]), min(one[1], other[1])
    return (*low, max(one[2], other[2]), max(one[3], other[3]))


def _rounded(box: MetricBox) -> Box:
    low = math.floor(box[0] * _DECIMETRES), math.floor(box[1] * _DECIMETRES)
    return (*low, math.ceil(box[2] * _DECIMETRES), math.ceil(box[3] * _DECIMETRES))
