"""Kulldorff's space-time scan statistic under the Poisson model, by Monte Carlo; pure.

Kulldorff (1997, doi:10.1080/03610929708831995), Kulldorff (2001, doi:10.1111/1467-985X.00186).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from services.analytics.tension.weights import Floats

Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cylinder: units, half-open steps, what it counted and was expected to, ln of its likelihood ratio."""

    units: tuple[int, ...]
    first_step: int
    end_step: int
    observed: int
    expected: float
    log_ratio: float
    p: float

    @property
    def relative_risk(self) -> float:
        """Observed over expected."""
        return self.observed / self.expected


def nearest(points: npt.ArrayLike, most: int) -> Indexes:
    """For each point the indexes of the `most` nearest, itself first; equal distances by index."""
    from scipy.spatial import KDTree  # noqa: PLC0415 -- 40 ms of loading that only the second opinion needs

    place = np.asarray(points, np.float64)
    distances, found = KDTree(place).query(place, k=min(most, len(place)))
    distances, found = np.atleast_2d(distances.T).T, np.atleast_2d(found.T).T
    order = np.lexsort((found, np.round(distances, 3)), axis=1)
    return np.take_along_axis(found, order, axis=1).astype(np.int64)


def scan(
    counts: npt.ArrayLike,
    expected: npt.ArrayLike,
    order: Indexes,
    *,
    most_steps: int,
    alive: bool,
    replicates: int,
    seed: int,
    most_clusters: int = 10,
) -> tuple[Cluster, ...]:
    """Clusters of excess, most likely first, none sharing a unit with a likelier one.

    Args:
        counts: facts, a row a unit, a column a step.
        expected: what each would hold if risk were equal, up to a factor.
        order: for each centre its neighbours by distance, itself first: cylinders are its beginnings.
        most_steps: longest cylinder.
        alive: only cylinders that reach the last step.
        replicates: Monte Carlo repetitions; p is the rank of a ratio among their greatest, by replicates + 1.
        seed: of the repetitions.
        most_clusters: most that are returned.
    """
    observed = np.asarray(counts, np.int64)
    total = int(observed.sum())
    if not total:
        return ()
    even = np.asarray(expected, np.float64)
    even = even * (total / even.sum())
    earlier = 0
    if alive and observed.shape[1] > most_steps + 1:
        # No cylinder reaches that far back: all earlier steps are one.
        earlier = observed.shape[1] - most_steps - 1
        observed, even = _folded(observed, earlier + 1), _folded(even, earlier + 1)
    cylinders = _Cylinders(even, order, most_steps, alive=alive, total=total)
    found = list(cylinders.likeliest(observed, most_clusters))
    rng = np.random.default_rng(seed)
    shares = (even / total).ravel()
    greatest = [
        cylinders.greatest(rng.multinomial(total, shares).reshape(observed.shape))
        for _ in range(replicates if found else 0)
    ]
    simulated = np.sort(greatest)
    return tuple(
        Cluster(
            tuple(order[centre, : size + 1].tolist()),
            first + earlier,
            end + earlier,
            int(observed[order[centre, : size + 1], first:end].sum()),
            float(even[order[centre, : size + 1], first:end].sum()),
            ratio,
            float(1 + len(simulated) - np.searchsorted(simulated, ratio - 1e-9)) / (replicates + 1),
        )
        for ratio, centre, size, first, end in found
    )


Table = TypeVar("Table", Floats, Indexes)


def _folded(table: Table, steps: int) -> Table:
    """The table with its first steps added up into one."""
    return np.column_stack([table[:, :steps].sum(axis=1), table[:, steps:]])


class _Cylinders:
    """Every cylinder at once, one array (centre, neighbours, first step) for each last step and length."""

    def __init__(self, expected: Floats, order: Indexes, most_steps: int, *, alive: bool, total: int) -> None:
        self._order = order
        self._total = total
        steps = expected.shape[1]
        self._windows = [
            (end - length, end)
            for end in ([steps] if alive else range(1, steps + 1))
            for length in range(1, min(most_steps, end) + 1)
        ]
        self._expected = self._sums(expected)
        # A cylinder of more than half of all that is expected is the rest of the city's calm, not an excess.
        self._allowed = self._expected <= total / 2

    def _sums(self, table: npt.NDArray[np.generic]) -> Floats:
        """(window, centre, neighbours) sums."""
        along = np.zeros((table.shape[0], table.shape[1] + 1))
        np.cumsum(table, axis=1, out=along[:, 1:])
        by_unit = np.stack([along[:, end] - along[:, first] for first, end in self._windows])
        sums: Floats = np.cumsum(by_unit[:, self._order], axis=2)
        return sums

    def _ratios(self, counts: npt.NDArray[np.int64]) -> Floats:
        observed, total = self._sums(counts), self._total
        ratios = np.zeros(observed.shape)
        more = (observed > self._expected) & self._allowed
        inside, even = observed[more], self._expected[more]
        outside, rest = total - inside, total - even
        ratio = inside * np.log(inside / even)
        some = outside > 0
        ratio[some] += outside[some] * np.log(outside[some] / rest[some])
        ratios[more] = ratio
        return ratios

    def greatest(self, counts: npt.NDArray[np.int64]) -> float:
        """Ln of the greatest likelihood ratio."""
        return float(self._ratios(counts).max(initial=0.0))

    def likeliest(self, counts: npt.NDArray[np.int64], most: int) -> Iterator[tuple[float, int, int, int, int]]:
        """(ln ratio, centre, place of the last neighbour, first step, end step), no unit in two of them."""
        ratios = self._ratios(counts)
        taken = np.zeros(counts.shape[0], bool)
        for _ in range(most):
            best = int(np.argmax(ratios))
            window, centre, size = (int(part) for part in np.unravel_index(best, ratios.shape))
            ratio = float(ratios[window, centre, size])
            if ratio <= 0:
                return
            yield (ratio, centre, size, *self._windows[window])
            taken[self._order[centre, : size + 1]] = True
            ratios *= ~np.logical_or.accumulate(taken[self._order], axis=1)
