"""Counts by zone of a reference layer: a fact counts in the zone that its representative point lies in."""

from collections.abc import Sequence

import h3.api.basic_int as h3
import numpy as np
import shapely
from planier.analytics.v1.layer_pb2 import LayerReference
from sqlalchemy import Connection

from services.analytics import columns
from services.analytics.area import Area
from services.analytics.placement import E7
from services.analytics.queries import PAGE, Found, Held, MapQuery, Scan, permitted
from services.analytics.segments import Ints
from services.analytics.snapshot import Snapshot
from services.analytics.suppression import NONE, Counts, Minimums, Tally
from services.kernel.clock import from_microseconds
from services.kernel.errors import not_found
from services.kernel.guard.grant import Grant
from services.kernel.layers import Layer, LayerFolder, Zone

# In the place of a zone's index.
OUTSIDE = -1
_BORDER = -2


def known_layer(layers: LayerFolder | None, name: str, as_of_us: int | None) -> Layer:
    """The layer in use at that instant, now where none is given; blocking. Raises Problem NOT_FOUND LAYER_UNKNOWN."""
    at = None if as_of_us is None else from_microseconds(as_of_us)
    layer = layers.find(name, at) if layers else None
    if layer is None:
        raise not_found("LAYER_UNKNOWN", "no such reference layer was imported by then")
    return layer


def reference_to(layer: Layer) -> LayerReference:
    """The version of a layer that an answer rests on."""
    reference = LayerReference(name=layer.name, hash=layer.hash)
    reference.imported_at.FromDatetime(layer.imported_at)
    return reference


class ZoneFinder:
    """Which zone points lie in; cells of resolution 10 that lie wholly within one zone, or none, are looked up once."""

    def __init__(self, layer: Layer) -> None:
        self.zones: tuple[Zone, ...] = layer.zones
        self._tree = shapely.STRtree([zone.shape for zone in layer.zones])
        self._cells: dict[int, int] = {}

    @property
    def area(self) -> Area:
        """The layer's bounding box, on the grid of points."""
        west, south, east, north = shapely.total_bounds([zone.shape for zone in self.zones])
        return Area(
            int(np.floor(west * E7)), int(np.floor(south * E7)), int(np.ceil(east * E7)), int(np.ceil(north * E7))
        )

    def find(self, longitudes: Ints, latitudes: Ints, cells: Ints) -> Ints:
        """The index of the zone of each point (1e-7 degree), OUTSIDE where there is none; on a border the first."""
        distinct, inverse = np.unique(cells, return_inverse=True)
        found: Ints = np.array([self._of_cell(cell) for cell in distinct.tolist()], dtype=np.int64)[inverse]
        unsure = np.flatnonzero(found == _BORDER)
        if len(unsure):
            points = shapely.points(longitudes[unsure] / E7, latitudes[unsure] / E7)
            point, zone = self._tree.query(points, predicate="intersects")
            first = np.full(len(unsure), len(self.zones), dtype=np.int64)
            np.minimum.at(first, point, zone)
            found[unsure] = np.where(first == len(self.zones), OUTSIDE, first)
        return found

    def _of_cell(self, cell: int) -> int:
        known = self._cells.get(cell)
        if known is None:
            known = self._cells[cell] = self._settle(cell)
        return known

    def _settle(self, cell: int) -> int:
        # Points are rounded to the grid: a cell counts as a metre wider than it is.
        hexagon = shapely.Polygon([(lng, lat) for lat, lng in h3.cell_to_boundary(cell)]).buffer(1e-5)
        near = sorted(self._tree.query(hexagon, predicate="intersects").tolist())
        if not near:
            return OUTSIDE
        only = len(near) == 1 and self.zones[near[0]].shape.contains(hexagon)
        return int(near[0]) if only else _BORDER


class _ByZone(Held):
    """Every matching row, counted in its zone."""

    def __init__(self, finder: ZoneFinder, minimums: Minimums) -> None:
        super().__init__(0, minimums)
        self._finder = finder
        self.overflown = True

    def add(self, rows: list[Found]) -> None:
        if not rows:
            return
        table = np.array([(row[3], row[4], row[8], row[5], row[6]) for row in rows], dtype=np.int64).T
        self.add_points(table)

    def add_found(self, found: columns.Found) -> None:
        """Counts what was found in the columns."""
        for part in found.points(PAGE):
            self.add_points(part)

    def add_points(self, table: Ints) -> None:
        """Counts points: longitude, latitude, cell, source and kind, a line each."""
        zones = self._finder.find(table[0], table[1], table[2])
        keys, counts = np.unique(np.stack([zones, table[3], table[4]]), axis=1, return_counts=True)
        for (zone, source, kind), count in zip(keys.T.tolist(), counts.tolist(), strict=True):
            self.tally.add(zone, (source, kind), count)


def count_by_zone(
    connection: Connection,
    grant: Grant,
    query: MapQuery,
    finder: ZoneFinder,
    minimums: Minimums = NONE,
    snapshot: Snapshot | None = None,
) -> Counts[int]:
    """Facts of the granted sources by index of their zone, or OUTSIDE; the query's area is the finder's."""
    sources: Sequence[str] = permitted(grant, query.sources)
    held = _ByZone(finder, minimums)
    if sources and not query.nothing:
        scan = Scan(connection, query, sources, snapshot)
        for table in scan.tables:
            if not scan.in_columns(held.add_found):
                scan.rows(table, held)
            scan.others(table, held)
    tally: Tally[int] = held.tally
    return tally.shown()
