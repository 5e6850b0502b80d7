"""The units over which facts are counted: H3 cells of one resolution, or polygons given as a layer; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from services.analytics.placement import E7
from services.analytics.tension import weights
from services.analytics.tension.facts import Facts
from services.analytics.tension.weights import Floats, Weights

Units = npt.NDArray[np.int64]
# (longitudes, latitudes) in degrees to metres.
Project = Callable[[npt.ArrayLike, npt.ArrayLike], tuple[Floats, Floats]]
# (x, y) in metres to longitude and latitude.
Unproject = Callable[[float, float], tuple[float, float]]

# Metres between the edges of neighbouring polygons: layers drawn by hand leave slivers.
GAP = 25.0
# Cells of one resolution differ in surface by some percent over a city, quartiers tenfold and more.
_EVEN = 1.5


@dataclass(frozen=True, slots=True)
class Support:
    """Units with their binary weights (self included), surfaces in km2 and middles in metres."""

    name: str
    label: str
    weights: Weights
    weights_label: str
    surfaces: Floats
    middles: Floats
    # Of H3 units; empty for polygons.
    cells: npt.NDArray[np.uint64]
    # Of polygons; empty for H3 units.
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many units."""
        return len(self.surfaces)

    @property
    def even(self) -> bool:
        """Whether counts can be compared as they are, because the units are of one size."""
        return self.size == 0 or float(self.surfaces.max()) <= _EVEN * float(self.surfaces.min())


def on_cells(facts: Facts, resolution: int, ring: int, project: Project) -> tuple[Support, Units]:
    """The cells that hold at least one of the facts, and the cell of each fact."""
    used = np.bincount(facts.cell, minlength=len(facts.cells)) > 0
    cells, coarser = np.unique(parents(facts.cells[used], resolution), return_inverse=True)
    unit_of = np.full(len(facts.cells), -1, np.int64)
    unit_of[used] = coarser
    listed = cells.tolist()
    shapes = np.array([_shape(cell) for cell in listed], np.float64).reshape(-1, 3)
    latitudes, longitudes, surfaces = shapes.T
    around = "mailles contiguës" if ring == 1 else f"mailles à {ring} pas au plus"
    support = Support(
        name=f"h3-{resolution}" + (f"-ring-{ring}" if ring > 1 else ""),
        label=f"mailles H3 de niveau {resolution}" + (f", voisinage à {ring} pas" if ring > 1 else ""),
        weights=weights.of_cells(cells, ring),
        weights_label=f"binaires, {around}, la maille comprise",
        surfaces=surfaces,
        middles=np.column_stack(project(longitudes, latitudes)),
        cells=cells,
    )
    return support, unit_of[facts.cell]


def on_polygons(
    facts: Facts, names: Sequence[str], polygons: Sequence[BaseGeometry], project: Project
) -> tuple[Support, Units]:
    """Every polygon given (WGS 84), and the first that each fact's point is in: -1 for none."""
    flat = shapely.transform(np.array(polygons, dtype=object), lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1])))
    places, inverse = np.unique(facts.longitude.astype(np.int64) << 32 | facts.latitude, return_inverse=True)
    # Reduced places repeat: each is looked up once.
    x, y = project((places >> 32) / E7, ((places & 0xFFFFFFFF).astype(np.uint32).view(np.int32)) / E7)
    point, unit = shapely.STRtree(flat).query(shapely.points(x, y), predicate="intersects")
    found = np.full(len(places), len(names), np.int64)
    np.minimum.at(found, point, unit)
    found[found == len(names)] = -1
    middles = shapely.centroid(flat)
    support = Support(
        name="polygons",
        label="périmètres fournis",
        weights=weights.of_polygons(flat, GAP),
        weights_label="binaires, périmètres contigus, le périmètre compris",
        surfaces=shapely.area(flat) / 1e6,
        middles=np.column_stack([shapely.get_x(middles), shapely.get_y(middles)]),
        cells=np.zeros(0, np.uint64),
        names=tuple(names),
    )
    return support, found[inverse]


def parents(cells: npt.NDArray[np.uint64], resolution: int) -> npt.NDArray[np.uint64]:
    """The cells of a coarser resolution that hold these: placement.parent, for a column."""
    kept = cells & np.uint64(~(0xF << 52) & 0xFFFFFFFFFFFFFFFF)
    return kept | np.uint64(resolution << 52 | ((1 << (3 * (15 - resolution))) - 1))


@lru_cache(maxsize=100_000)
def _shape(cell: int) -> tuple[float, float, float]:
    """Latitude and longitude of the middle, surface in km2."""
    return (*h3.cell_to_latlng(cell), h3.cell_area(cell, "km^2"))
