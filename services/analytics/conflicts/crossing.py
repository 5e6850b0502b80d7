"""Which subjects are near one another in space and time: exact, over arrays; pure.

Subjects are put into square cells, sorted by start within each, and every one meets the later starters of its cells
that begin before it ends; a pair is taken in one cell only. Those over many cells meet all others without cells.
Candidates have boxes within `metres`, hulls of windows that meet within `margin_us`, times of knowledge that meet, and
opposite sides of some rule; `dwithin` on the shapes decides. Windows and each rule's own bounds are `detection`'s.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from services.analytics.conflicts.cells import CELL, MOST_CELLS
from services.analytics.conflicts.subjects import Columns

# Candidate pairs looked at together: some 100 MB of arrays at most.
_CHUNK: Final = 1_000_000

Ints = npt.NDArray[np.int64]
Pairs = tuple[Ints, Ints]
_NONE: Final = np.empty(0, dtype=np.int64)


def near_pairs(columns: Columns, metres: float, margin_us: int = 0) -> Pairs:
    """Every unordered pair that is near, once each."""
    count = len(columns.starts)
    west, south, east, north = _cells(columns.bounds, metres)
    covered = (east - west + 1) * (north - south + 1)
    empty = np.isnan(columns.bounds[:, 0])
    large = np.flatnonzero((covered > MOST_CELLS) & ~empty)
    small = np.flatnonzero((covered <= MOST_CELLS) & ~empty)
    found = [
        _decided(columns, left, right, metres, margin_us)
        for left, right in _sharing_cells(columns, small, (west, south, east, north), covered, margin_us)
    ]
    everyone = np.arange(count, dtype=np.int64)
    rank = np.full(count, -1, dtype=np.int64)
    rank[large] = np.arange(len(large))
    for place, one in enumerate(large):
        others = everyone[~empty & (rank < place)]
        found.append(_decided(columns, np.full(len(others), one), others, metres, margin_us))
    if not found:
        return _NONE, _NONE
    lefts, rights = zip(*found, strict=True)
    return np.concatenate(lefts), np.concatenate(rights)


def _cells(bounds: npt.NDArray[np.float64], metres: float) -> tuple[Ints, Ints, Ints, Ints]:
    """First and last column and row of each box grown by half the distance: near boxes then share a cell."""
    grown = np.nan_to_num(bounds) + np.array([-1.0, -1.0, 1.0, 1.0]) * (metres / 2 + 1e-6)
    edges = np.floor(grown / CELL).astype(np.int64)
    return edges[:, 0], edges[:, 1], edges[:, 2], edges[:, 3]


def _sharing_cells(
    columns: Columns, members: Ints, edges: tuple[Ints, Ints, Ints, Ints], covered: Ints, margin_us: int
) -> Iterator[Pairs]:
    """Pairs whose hulls meet, in the first cell that both cover, in chunks."""
    if len(members) < 2:  # noqa: PLR2004 -- a pair
        return
    west, south, _, north = edges
    sizes = covered[members]
    who = np.repeat(members, sizes)
    step = np.arange(len(who)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = (north - south + 1)[who]
    column, row = west[who] + step // rows, south[who] + step % rows
    _, cell = np.unique((column << 32) + row, return_inverse=True)
    starts = np.sort(columns.starts - margin_us)
    # One number orders by cell, then by start.
    scale = len(starts) + 1
    order_key = cell * scale + np.searchsorted(starts, (columns.starts - margin_us)[who])
    order = np.argsort(order_key, kind="stable")
    who, cell, column, row, order_key = who[order], cell[order], column[order], row[order], order_key[order]
    end_key = cell * scale + np.searchsorted(starts, (columns.ends + margin_us)[who])
    later = np.searchsorted(order_key, end_key) - np.arange(len(who)) - 1
    total = np.concatenate(([0], np.cumsum(later)))
    first = 0
    while first < len(who):
        last = max(first + 1, int(np.searchsorted(total, total[first] + _CHUNK, "right")) - 1)
        some = later[first:last]
        one = np.repeat(np.arange(first, last), some)
        other = one + 1 + np.arange(len(one)) - np.repeat(total[first:last] - total[first], some)
        left, right = who[one], who[other]
        here = (column[one] == np.maximum(west[left], west[right])) & (
            row[one] == np.maximum(south[left], south[right])
        )
        yield left[here], right[here]
        first = last


def _decided(columns: Columns, left: Ints, right: Ints, metres: float, margin_us: int) -> Pairs:
    """The candidates that are near; each test sees only what the one before it left."""
    bounds, starts, ends = columns.bounds, columns.starts, columns.ends
    for axis in (0, 1):
        near = bounds[left, axis] <= bounds[right, axis + 2] + metres
        left, right = left[near], right[near]
        near = bounds[right, axis] <= bounds[left, axis + 2] + metres
        left, right = left[near], right[near]
    meets = (starts[left] - margin_us < ends[right] + margin_us) & (starts[right] - margin_us < ends[left] + margin_us)
    left, right = left[meets], right[meets]
    known = (columns.since[left] < columns.until[right]) & (columns.since[right] < columns.until[left])
    sides = (columns.left[left] & columns.right[right]) | (columns.left[right] & columns.right[left])
    concerned = known & (sides != 0)
    left, right = left[concerned], right[concerned]
    near = shapely.dwithin(columns.shapes[left], columns.shapes[right], metres)
    return left[near], right[near]
