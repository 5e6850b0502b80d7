"""What becomes of a hot spot: the Mann-Kendall test and the seventeen categories of emerging hot spots; pure.

Mann (1945, doi:10.2307/1907187), Kendall (1975). Categories: Esri, "How Emerging Hot Spot Analysis works",
pro.arcgis.com/en/pro-app/latest/tool-reference/space-time-pattern-mining/learnmoreemerging.htm, all read again in
November 2026 (doc.arcgis.com; "oscillating" and "historical" as published works quote them, word for word alike):
"consecutive" is one run of two steps or more that ends with the last, not hot before it, under 90 % of the steps;
"sporadic" is hot in the last, on and off before, under 90 %, never cold; "oscillating" is hot in the last, cold in some
step before, under 90 %; "historical" is hot in 90 %, not in the last. They overlap where a location was cold before and
hot in its last step only: "new", the earlier row of that table, goes before "oscillating", and what the last step is
goes before "historical".
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from services.analytics.tension.local import two_sided
from services.analytics.tension.weights import Floats

Flags = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.int8]

# Series compared at once: 1,024 of them, 336 steps, int16: enough for one instruction a pair to outweigh the call.
_BLOCK = 1024
# Rows of flags whose sum fits eight bits.
_ROWS = 255


class Pattern(IntEnum):
    """Hot patterns are positive; the cold pattern of the same name is the negative number."""

    NONE = 0
    NEW = 1
    CONSECUTIVE = 2
    INTENSIFYING = 3
    PERSISTENT = 4
    DIMINISHING = 5
    SPORADIC = 6
    OSCILLATING = 7
    HISTORICAL = 8


@dataclass(frozen=True, slots=True)
class Trend:
    """Mann-Kendall: S, tau-a, the standard score with the continuity correction, the two-sided p."""

    s: npt.NDArray[np.int64]
    tau: Floats
    z: Floats
    p: Floats


def mann_kendall(series: npt.ArrayLike) -> Trend:
    """The test on each row of `series` (one column a step), ties counted in the variance; z = 0 where S has none."""
    rows = np.atleast_2d(np.asarray(series, np.float64))
    steps = rows.shape[1]
    ranks, tied_pairs, tie_terms = _ranks(rows)
    pairs = steps * (steps - 1) // 2
    s = pairs - tied_pairs - 2 * _inversions(ranks)
    variance = (steps * (steps - 1) * (2 * steps + 5) - tie_terms) / 18.0
    z = np.zeros(len(rows))
    moves = variance > 0
    z[moves] = (s[moves] - np.sign(s[moves])) / np.sqrt(variance[moves])
    return Trend(s, s / max(pairs, 1), z, two_sided(z))


def _ranks(rows: Floats) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Dense ranks within each row, equal for equal values; tied pairs; the sum of t (t - 1) (2 t + 5) over ties."""
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    dense = np.zeros(rows.shape, np.int16)
    fresh = ordered[:, 1:] != ordered[:, :-1]
    np.cumsum(fresh, axis=1, out=dense[:, 1:])
    ranks = np.empty_like(dense)
    np.put_along_axis(ranks, order, dense, axis=1)
    tied_pairs, tie_terms = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for row in np.flatnonzero(~fresh.all(axis=1)).tolist():
        sizes = np.bincount(dense[row])
        tied_pairs[row] = (sizes * (sizes - 1) // 2).sum()
        tie_terms[row] = (sizes * (sizes - 1) * (2 * sizes + 5)).sum()
    return ranks, tied_pairs, tie_terms


def _inversions(ranks: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """Pairs of steps of which the later is strictly lower: every pair compared, sixteen a machine instruction."""
    found = np.zeros(len(ranks), np.int64)
    steps = ranks.shape[1]
    for first in range(0, len(ranks), _BLOCK):
        block = np.ascontiguousarray(ranks[first : first + _BLOCK].T)
        total = np.zeros(block.shape[1], np.int64)
        for step in range(steps - 1):
            lower = (block[step + 1 :] < block[step]).view(np.uint8)
            for row in range(0, len(lower), _ROWS):
                total += np.add.reduce(lower[row : row + _ROWS], axis=0, dtype=np.uint8)
        found[first : first + _BLOCK] = total
    return found


def patterns(hot: Flags, cold: Flags, trend: Trend, alpha: float) -> Kinds:
    """The category of each row: which steps are significantly hot and cold, and the trend of its scores over them."""
    rising = (trend.p <= alpha) & (trend.s > 0)
    falling = (trend.p <= alpha) & (trend.s < 0)
    warm, cool = _one_side(hot, cold, rising, falling), _one_side(cold, hot, falling, rising)
    # Two fit only where one is historical and the last step is of the other side: what holds now is said.
    colder = (cool != 0) & ((warm == 0) | (warm == Pattern.HISTORICAL))
    return np.where(colder, -cool, warm).astype(np.int8)


def _one_side(on: Flags, opposite: Flags, growing: Flags, waning: Flags) -> Kinds:
    steps = on.shape[1]
    times = on.sum(axis=1)
    last = on[:, -1]
    # Steps of the run that ends with the last one.
    run = np.where(on.all(axis=1), steps, np.argmin(on[:, ::-1], axis=1))
    # In whole numbers: 0.9 n in floating point puts 9 of 10 on either side.
    often = times * 10 >= steps * 9
    never_before = times == run
    return np.select(
        [
            last & ~often & (times == 1),
            last & ~often & never_before & (run > 1),
            last & often & growing,
            last & often & waning,
            last & often,
            last & opposite.any(axis=1),
            last,
            often,
        ],
        [
            Pattern.NEW,
            Pattern.CONSECUTIVE,
            Pattern.INTENSIFYING,
            Pattern.DIMINISHING,
            Pattern.PERSISTENT,
            Pattern.OSCILLATING,
            Pattern.SPORADIC,
            Pattern.HISTORICAL,
        ],
        Pattern.NONE,
    ).astype(np.int8)
