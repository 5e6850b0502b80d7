"""Spatial weights as sparse matrices: who is whose neighbour, on H3 cells and among polygons; pure."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt
import shapely
from scipy import sparse

Floats = npt.NDArray[np.float64]
# scipy has no types: a CSR array of float64, n by n, row i holding the weights of i's neighbours.
Weights = Any

# Rows of a wide table worked on at once, 172 KB at 336 columns: what stays in a cache costs a third of what passes
# through memory.
_PART = 64


def from_pairs(rows: npt.ArrayLike, columns: npt.ArrayLike, size: int) -> Weights:
    """Binary weights with a one at each (row, column)."""
    ones = np.ones(len(np.asarray(rows)))
    weights = sparse.csr_array((ones, (rows, columns)), shape=(size, size))
    weights.data[:] = 1.0
    return weights


def in_parts(rows: int) -> Iterator[slice]:
    """All rows, a few at a time."""
    return (slice(first, first + _PART) for first in range(0, rows, _PART))


def without_self(weights: Weights) -> Weights:
    """The same weights without the diagonal."""
    pairs = sparse.coo_array(weights)
    apart = pairs.row != pairs.col
    return sparse.csr_array((pairs.data[apart], (pairs.row[apart], pairs.col[apart])), shape=pairs.shape)


def of_cells(cells: npt.NDArray[np.uint64], ring: int = 1) -> Weights:
    """Binary weights, self included, between H3 cells of one resolution at most `ring` steps apart; `cells` sorted."""
    rows: list[int] = []
    found: list[int] = []
    for index, cell in enumerate(cells.tolist()):
        disk = _disk(cell, ring)
        rows += [index] * len(disk)
        found += disk
    wanted = np.array(found, np.uint64)
    columns = np.minimum(np.searchsorted(cells, wanted), max(len(cells) - 1, 0))
    there = cells[columns] == wanted if len(cells) else np.zeros(0, bool)
    return from_pairs(np.array(rows)[there], columns[there], len(cells))


@lru_cache(maxsize=100_000)
def _disk(cell: int, ring: int) -> tuple[int, ...]:
    """A city's cells are asked for again and again: 0.1 microseconds instead of 5."""
    return tuple(h3.grid_disk(cell, ring))


def of_polygons(polygons: npt.NDArray[np.object_], gap: float) -> Weights:
    """Binary weights, self included, between polygons at most `gap` of their own unit apart."""
    tree = shapely.STRtree(polygons)
    rows, columns = tree.query(polygons, predicate="dwithin", distance=gap)
    return from_pairs(rows, columns, len(polygons))
