"""Local statistics of association: Getis-Ord Gi* and local Moran, analytic and by conditional permutation; pure.

Getis and Ord (1992), Ord and Getis (1995, doi:10.1111/j.1538-4632.1995.tb00912.x), Anselin (1995,
doi:10.1111/j.1538-4632.1995.tb00338.x). Weights may be binary or not, standardised or not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from services.analytics.tension.weights import Floats, Weights, in_parts, without_self

Counts = npt.NDArray[np.int64]

# Rows of simulated sums worked on at once: 256 x 999 float64 is 2 MiB, the size of a level-2 cache.
_BLOCK = 256
# Up to this share of all units each is better drawn for by itself.
_FEW = 0.2


def gi_star(values: npt.ArrayLike, weights: Weights) -> Floats:
    """Standard scores of Gi*; `values` has one row a unit, and a column for each series where it has two dimensions.

    z = (sum_j w_ij x_j - X W_i) / (s sqrt((n S_i - W_i^2) / (n - 1))), X and s the mean and the standard deviation of
    all units, W_i and S_i the sums of i's weights and of their squares. Weights include self. Rows scaled by a constant
    give the same score. A series without variance, or a unit that neighbours everything alike, scores 0.
    """
    series = np.asarray(values, np.float64)
    size = series.shape[0]
    if not size:
        return series
    total = np.asarray(weights.sum(axis=1)).ravel()
    squares = np.asarray(weights.power(2).sum(axis=1)).ravel()
    variance = (size * squares - total**2) / max(size - 1, 1)
    mean = series.mean(axis=0)
    deviation = _deviation(series, mean)
    # What is nothing comes out as rounding errors, here and for a constant series below.
    spreads = variance > squares * 1e-12
    inverse = np.divide(1.0, np.sqrt(np.abs(variance)), out=np.zeros_like(variance), where=spreads)
    varies = deviation > np.abs(mean) * 1e-12
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    scores: Floats = weights @ series
    if series.ndim == 1:
        alone: Floats = (scores - mean * total) * inverse * scale
        return alone
    expected = total * inverse
    for part in in_parts(size):
        block = scores[part]
        block *= inverse[part, None]
        block -= expected[part, None] * mean
        block *= scale
    return scores


def _deviation(series: Floats, mean: Floats) -> Floats:
    """Of each column; as numpy's, whose temporary copies of a wide table cost more than the sums."""
    squares = np.zeros(series.shape[1:])
    for part in in_parts(len(series)):
        apart = series[part] - mean
        squares += np.einsum("i...,i...->...", apart, apart)
    found: Floats = np.sqrt(squares / len(series))
    return found


def two_sided(scores: Floats) -> Floats:
    """The chance of a score at least this far from 0 on either side, under the normal law."""
    p: Floats = ndtr(-np.abs(scores))
    p *= 2.0
    return p


@dataclass(frozen=True, slots=True)
class Moran:
    """Local Moran: the statistic, and the quadrant: 1 high-high, 2 low-high, 3 low-low, 4 high-low."""

    statistic: Floats
    quadrant: npt.NDArray[np.int8]


def local_moran(values: npt.ArrayLike, weights: Weights) -> Moran:
    """I_i = (n - 1) d_i sum_j w_ij d_j / sum_k d_k^2, d the deviations from the mean; self is left out of the sum."""
    series = np.asarray(values, np.float64)
    deviations = series - series.mean()
    lag = without_self(weights) @ deviations
    squares = float(deviations @ deviations)
    statistic = (len(series) - 1) * deviations * lag / squares if squares else np.zeros(len(series))
    high, around = deviations > 0, lag > 0
    return Moran(statistic, np.select([high & around, ~high & around, ~high & ~around], [1, 2, 3], 4).astype(np.int8))


def permutation_p(
    values: npt.ArrayLike,
    weights: Weights,
    permutations: int,
    seed: int,
    asked: npt.NDArray[np.bool_] | None = None,
) -> Floats:
    """Two-sided pseudo p-values by conditional permutation: i keeps its value, its neighbours draw from the others.

    p = min(1, 2 (min(#sums >= observed, #sums <= observed) + 1) / (permutations + 1)). Given i's own value, Gi* and
    local Moran both rise or fall with the neighbours' weighted sum alone, so that one p serves both. Draws are shared
    by all units, as in PySAL. A unit without neighbours, or not `asked` about, has p = 1.
    """
    series = np.asarray(values, np.float64)
    apart = without_self(weights)
    apart.sort_indices()
    degrees = np.diff(apart.indptr)
    p = np.ones(len(series))
    if len(series) < 3 or not degrees.any():  # noqa: PLR2004 -- nothing to exchange
        return p
    draws = _draw(len(series) - 1, int(degrees.max()), permutations, np.random.default_rng(seed))
    even = _even_rows(apart)
    wanted = degrees > 0 if asked is None else asked & (degrees > 0)
    above, below = np.zeros(len(series), np.int64), np.zeros(len(series), np.int64)
    # Neighbours of equal weight: the sum alone matters, and it changes by one draw in a few from unit to unit.
    summed = even & wanted & (np.count_nonzero(wanted) > _FEW * len(series))
    observed = _neighbour_sums(apart) @ series
    for degree in np.unique(degrees[summed]).tolist():
        mine = summed & (degrees == degree)
        found = _compare_sums(series, draws[:, :degree], observed, mine)
        above[mine], below[mine] = found[0][mine], found[1][mine]
    for unit in np.flatnonzero(wanted & ~summed).tolist():
        row = apart.data[apart.indptr[unit] : apart.indptr[unit + 1]]
        drawn = draws[:, : len(row)]
        sums = series[drawn + (drawn >= unit)] @ row
        mine_observed = row @ series[apart.indices[apart.indptr[unit] : apart.indptr[unit + 1]]]
        slack = _slack(series, float(np.abs(row).sum()))
        above[unit] = np.count_nonzero(sums >= mine_observed - slack)
        below[unit] = np.count_nonzero(sums <= mine_observed + slack)
    p[wanted] = np.minimum(1.0, 2.0 * (np.minimum(above, below)[wanted] + 1) / (permutations + 1))
    return p


def _even_rows(weights: Weights) -> npt.NDArray[np.bool_]:
    """Which rows give all their neighbours one positive weight."""
    degrees = np.diff(weights.indptr)
    filled = degrees > 0
    least, greatest = np.ones(len(degrees)), np.ones(len(degrees))
    starts = weights.indptr[:-1][filled]
    least[filled], greatest[filled] = (
        np.minimum.reduceat(weights.data, starts),
        np.maximum.reduceat(weights.data, starts),
    )
    return (greatest - least <= 1e-12 * np.abs(greatest)) & (least > 0)


def _neighbour_sums(weights: Weights) -> Weights:
    sums = weights.copy()
    sums.data = np.ones_like(sums.data)
    return sums


def _slack(series: Floats, weight: float) -> float:
    """Sums that differ by less are equal: adding in another order moves the last bits, and ties decide with counts."""
    return (
        0.0
        if weight.is_integer() and np.array_equal(series, np.rint(series))
        else 1e-10 * weight * float(np.abs(series).max())
    )


def _draw(population: int, size: int, times: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`times` ordered samples without replacement from range(population); a prefix of each is such a sample too."""
    if size * size > population:
        return np.argsort(rng.random((times, population)), axis=1)[:, :size]
    draws = rng.integers(0, population, (times, size))
    while len(again := _with_doubles(draws)):
        draws[again] = rng.integers(0, population, (len(again), size))
    return draws


def _with_doubles(draws: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ordered = np.sort(draws, axis=1)
    return np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))


def _compare_sums(
    series: Floats, draws: npt.NDArray[np.int64], observed: Floats, mine: npt.NDArray[np.bool_]
) -> tuple[Counts, Counts]:
    """How many simulated sums reach, and how many stay within, each unit's observed one.

    Draw j means the j-th of the others: j itself, or j + 1 from the unit on. So the sums of unit i + 1 are those of
    unit i but for the draws equal to i, one in a few: a running sum along the units replaces 36 million look-ups by six
    million additions at 6,000 cells.
    """
    size = len(series)
    slack = _slack(series, float(draws.shape[1]))
    where, which = np.unravel_index(np.argsort(draws, axis=None, kind="stable"), draws.shape)
    drawn = draws[where, which]
    change = series[drawn] - series[drawn + 1]
    sums = series[draws + 1].sum(axis=1)
    above, below = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for first in range(0, size, _BLOCK):
        last = min(first + _BLOCK, size)
        block = np.zeros((last - first + 1, len(sums)))
        block[0] = sums
        begin, end = np.searchsorted(drawn, [first, last])
        # Row r of the block is unit first + r; draw d changes the sums from unit d + 1 on.
        block[drawn[begin:end] - first + 1, where[begin:end]] = change[begin:end]
        np.cumsum(block, axis=0, out=block)
        sums = block[-1].copy()
        rows = np.flatnonzero(mine[first:last])
        if len(rows):
            seen, goal = block[rows], observed[first + rows][:, None]
            above[first + rows] = np.count_nonzero(seen >= goal - slack, axis=1)
            below[first + rows] = np.count_nonzero(seen <= goal + slack, axis=1)
    return above, below
