"""Tension statistics over 2.4 million synthetic facts beside esda and DuckDB, from stored cells and months.

The peer is what a person would otherwise run: count by cell in DuckDB, then esda.G_Local, analytic (transform B), or
with 999 conditional permutations once numba has compiled. Ours starts from the same columns, in memory as DuckDB's are.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt

from bench.harness import Row, medians, row
from services.analytics.tension import weights
from services.analytics.tension.analysis import analyse_steps
from services.analytics.tension.local import gi_star, permutation_p, two_sided
from services.analytics.tension.rates import marshall
from services.analytics.tension.supports import Support

FACTS = 2_400_000
MONTHS = 336
PERMUTATIONS = 999
WEST, SOUTH, EAST, NORTH = 5.228, 43.169, 5.532, 43.391
PAIR = "DuckDB counts by cell, then esda Gi*"
BY_MONTH = "DuckDB counts by cell and month, then esda Gi* of one grid"
# In a fresh process, so that nothing was compiled or loaded before.
COLD = """import time, bench.tension as tension
city, began = tension.city(), time.perf_counter()
city.permuted()
print(time.perf_counter() - began)"""


@dataclass(frozen=True)
class City:
    """Every cell of Marseille's box at resolution 9, and of each fact its cell's place among them and its month."""

    support: Support
    cell: npt.NDArray[np.int64]
    month: npt.NDArray[np.int16]

    def counts(self) -> npt.NDArray[np.int64]:
        """By cell."""
        return np.bincount(self.cell, minlength=self.support.size)

    def grid(self) -> npt.NDArray[np.float64]:
        """One grid: count, Gi*, p."""
        return two_sided(gi_star(self.counts(), self.support.weights))

    def every_month(self) -> npt.NDArray[np.int8]:
        """Count by cell and month, Gi*, q and smoothed rate of every month, Mann-Kendall and category of every cell."""
        table = np.bincount(self.cell * MONTHS + self.month, minlength=self.support.size * MONTHS)
        table = table.reshape(self.support.size, MONTHS)
        marshall(table, self.support.surfaces)
        return analyse_steps(table, self.support).categories()

    def permuted(self) -> npt.NDArray[np.float64]:
        """Count, Gi* and 999 conditional permutations of every cell."""
        counts = self.counts()
        gi_star(counts, self.support.weights)
        return permutation_p(counts, self.support.weights, PERMUTATIONS, 1)


@cache
def city() -> City:
    """A clustered mixture: a few cells hold most facts, and more of them are recent."""
    box = h3.LatLngPoly([(SOUTH, WEST), (SOUTH, EAST), (NORTH, EAST), (NORTH, WEST)])
    cells = np.array(sorted(h3.polygon_to_cells(box, 9)), np.uint64)
    rng = np.random.default_rng(13_055)
    near = weights.of_cells(cells)
    # Neighbours resemble each other: drawn shares averaged over rings, twice.
    shares = near @ (near @ (rng.pareto(1.2, len(cells)) + 0.2))
    cell = rng.choice(len(cells), FACTS, p=shares / shares.sum())
    month = (rng.beta(2.2, 1.4, FACTS) * MONTHS).astype(np.int16)
    surfaces = np.array([h3.cell_area(one, "km^2") for one in cells.tolist()])
    middles = np.array([h3.cell_to_latlng(one) for one in cells.tolist()])
    return City(Support("h3-9", "", near, "", surfaces, middles, cells), cell, month)


class Peer:
    """DuckDB with the same columns, esda with the same weights."""

    def __init__(self, data: City) -> None:
        import duckdb  # noqa: PLC0415 -- seven seconds of loading that only the peer needs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from esda import G_Local  # noqa: PLC0415
            from libpysal.weights import W  # noqa: PLC0415
        self._local = G_Local
        near = weights.without_self(data.support.weights)
        rows = range(data.support.size)
        self._near = W(
            {i: near.indices[near.indptr[i] : near.indptr[i + 1]].tolist() for i in rows}, silence_warnings=True
        )
        self._size = data.support.size
        self._connection = duckdb.connect()
        columns = {"cell": data.cell, "month": data.month}  # noqa: F841 -- DuckDB reads the local name
        self._connection.execute("CREATE TABLE facts AS SELECT * FROM columns")

    def counts(self) -> npt.NDArray[np.float64]:
        """By cell, of cells without facts too."""
        found = self._connection.execute("SELECT cell, count(*) AS n FROM facts GROUP BY cell").fetchnumpy()
        counts = np.zeros(self._size)
        counts[found["cell"]] = found["n"]
        return counts

    def months(self) -> int:
        """Counts by cell and month."""
        found = self._connection.execute("SELECT cell, month, count(*) FROM facts GROUP BY cell, month").fetchnumpy()
        return len(found["cell"])

    def gi(self, permutations: int = 0) -> Any:
        """Gi* of those counts."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._local(
                self.counts(), self._near, transform="B", permutations=permutations, star=True, n_jobs=1, seed=1
            )


def rows() -> Sequence[Row]:
    """One grid beside the pair's cheapest, every month beside the count by month with one grid of esda's."""
    data = city()
    peer = Peer(data)
    difference = float(np.abs(peer.gi().Zs - gi_star(data.counts(), data.support.weights)).max())
    peer.gi(9)  # numba compiles
    grid, months, permuted, pair, pair_months, warm = medians(
        _seconds(data.grid),
        _seconds(data.every_month),
        _seconds(data.permuted),
        _seconds(peer.gi),
        _seconds(lambda: (peer.months(), peer.gi())),
        _seconds(lambda: peer.gi(PERMUTATIONS)),
        rounds=5,
    )
    out = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout
    return (
        row("tension: one grid of 2.4 M facts, Gi* and p", grid, "s", PAIR, pair, "<= 0.1"),
        row("tension: 336 months, Gi*, q, EB, trend, categories", months, "s", BY_MONTH, pair_months, "<= 1"),
        row("tension: the same, beside one grid of the pair", months, "s", PAIR, pair, ""),
        row("tension: 999 conditional permutations", permuted, "s", "esda, warm", warm, "<= 1"),
        row("tension: the same, first call of a process", float(out), "s", "esda, warm", warm, "<= 1"),
        row("tension: greatest difference of z from esda, B", difference, "", "1e-9", 1e-9, "<= 1"),
    )


def _seconds(work: Callable[[], object]) -> Callable[[], float]:
    def measured() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measured
