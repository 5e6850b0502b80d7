"""Tension statistics over 2.4 million synthetic facts beside esda and DuckDB, from stored cells and months.

The peer is what a person would otherwise run: count by cell in DuckDB, then esda.G_Local, analytic (transform B), or
with 999 conditional permutations once numba has compiled. Ours starts from the same columns, in memory as DuckDB's are.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt
from planier.analytics.v1.analytics_pb2 import BoundingBox
from planier.common.v1.fact_pb2 import FACT_STATUS_ENDED, Fact, Geometry, LngLat, Period
from pyproj import Transformer

from bench.harness import Row, medians, row
from services.analytics.area import area_of_box
from services.analytics.columns import FIELDS, Columns
from services.analytics.placement import CELL_RESOLUTION, place
from services.analytics.projections import code_of
from services.analytics.tension import weights
from services.analytics.tension.analysis import analyse_steps
from services.analytics.tension.facts import feeds
from services.analytics.tension.local import gi_star, permutation_p, two_sided
from services.analytics.tension.queries import TensionQuery, from_columns
from services.analytics.tension.rates import marshall
from services.analytics.tension.supports import Support
from services.analytics.tension.zones import DAY_US, Question, Study, study
from services.kernel.registry import Registry

FACTS = 2_400_000
MONTHS = 336
PERMUTATIONS = 999
STEP_US, HOUR_US = 30 * DAY_US, 3_600_000_000
ANNEX = Path(__file__).resolve().parents[1] / "deploy" / "annex" / "annex-1.json"
FEEDS = (
    ("residents-reports", "NOISE"),
    ("residents-reports", "OBSTRUCTION"),
    ("municipal-police-reports", "PUBLIC_PEACE"),
    ("infractions", "PARKING_INFRACTION"),
)
WEST, SOUTH, EAST, NORTH = 5.228, 43.169, 5.532, 43.391
PAIR = "DuckDB counts by cell, then esda Gi*"
PAIR_BY_MONTH = "DuckDB counts by cell and month, then esda Gi* of one grid"
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
        place = self.cell * MONTHS
        place += self.month
        table = np.bincount(place, minlength=self.support.size * MONTHS)
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


class Held:
    """The map's columns with those facts: what the service reads."""

    def __init__(self, data: City) -> None:
        middles = [h3.cell_to_center_child(cell, CELL_RESOLUTION) for cell in data.support.cells.tolist()]
        spots = [place(_fact(*h3.cell_to_latlng(cell))) for cell in middles]
        of_cell = {
            name: np.array([getattr(spot, name) for spot in spots]) for name in ("bucket", "longitude", "latitude")
        }
        known = {name: of_cell[name][data.cell] for name in of_cell}
        feed = np.random.default_rng(7).integers(0, len(FEEDS), FACTS)
        known["cell"] = np.array(middles)[data.cell]
        known["source"] = np.array([code_of(source) for source, _ in FEEDS])[feed]
        known["kind"] = np.array([code_of(kind) for _, kind in FEEDS])[feed]
        known["starts_us"] = data.month * np.int64(STEP_US) + np.arange(FACTS) % STEP_US
        known["ends_us"] = known["starts_us"] + HOUR_US
        known["position"], known["status"] = np.arange(1, FACTS + 1), np.full(FACTS, FACT_STATUS_ENDED)
        order = np.lexsort([known[name] for name in ("position", "starts_us", "source", "bucket")])
        nothing = np.zeros(FACTS, np.int64)
        self._columns = Columns()
        self._columns.load([np.stack([known.get(name, nothing)[order] for name in FIELDS])])
        self._registry = Registry.load(ANNEX)
        area = area_of_box(BoundingBox(west=WEST - 1, south=SOUTH - 1, east=EAST + 1, north=NORTH + 1))
        self._query = TensionQuery(area, 0, MONTHS * STEP_US)
        self._project = Transformer.from_crs(4326, 2154, always_xy=True).transform

    @contextmanager
    def columns(self, _connection: object) -> Iterator[Columns]:
        """As a snapshot that stands at the reader's position gives them."""
        yield self._columns

    def answer(self) -> Study:
        """Every zone of the 28 years, with its checks, its trend and its reading without patrols."""
        fed = feeds(self._registry, self._registry.sources, [kind for _, kind in FEEDS])
        facts = from_columns(cast("Any", None), fed, self._query, cast("Any", self))
        assert facts is not None
        assert len(facts) == FACTS
        return study(facts, Question(0, STEP_US, MONTHS), self._project)


def _fact(latitude: float, longitude: float) -> Fact:
    fact = Fact(geometry=Geometry(point=LngLat(latitude=latitude, longitude=longitude)), periods=[Period()])
    fact.periods[0].end.FromMicroseconds(HOUR_US)
    return fact


def rows() -> Sequence[Row]:
    """One grid beside the pair's cheapest, every month beside the count by month with one grid of esda's."""
    data = city()
    peer, held = Peer(data), Held(data)
    difference = float(np.abs(peer.gi().Zs - gi_star(data.counts(), data.support.weights)).max())
    peer.gi(9)  # numba compiles
    held.answer()  # cells are remembered
    grid, months, answer, permuted, pair, pair_months, warm = medians(
        _seconds(data.grid),
        _seconds(data.every_month),
        _seconds(held.answer),
        _seconds(data.permuted),
        _seconds(peer.gi),
        _seconds(lambda: (peer.months(), peer.gi())),
        _seconds(lambda: peer.gi(PERMUTATIONS)),
        rounds=5,
    )
    out = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout
    return (
        row("tension: one grid of 2.4 M facts, Gi* and p", grid, "s", PAIR, pair, "<= 0.1"),
        # The strictest reading of "no slower than that pair alone": all months beside the pair's one grid, counted by
        # cell alone. The pair that would at least count the months stands below it.
        row("tension: 336 months, Gi*, q, EB, trend, categories", months, "s", PAIR, pair, "<= 1"),
        row("tension: the same, beside a pair that counts by month", months, "s", PAIR_BY_MONTH, pair_months, ""),
        row("tension: a whole answer, from the map's columns to zones", answer, "s", PAIR_BY_MONTH, pair_months, ""),
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
