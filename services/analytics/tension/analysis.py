"""One analysis of one table of counts: which units stand out, and how sure that is; pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.analytics.tension.families import q_values, small_q
from services.analytics.tension.local import gi_star, permutation_p, two_sided
from services.analytics.tension.rates import marshall
from services.analytics.tension.supports import Support
from services.analytics.tension.trend import Trend, mann_kendall, patterns
from services.analytics.tension.weights import Floats

Flags = npt.NDArray[np.bool_]

ALPHA = 0.05
# Below this many expected facts in a neighbourhood the normal law says nothing (Cochran's rule of thumb).
LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """Gi* of each unit; `side` is 1 where it stands out above, -1 below, 0 elsewhere and where it was not tested.

    Permutations are made for the units that q leaves, and their p is 1 elsewhere.
    """

    z: Floats
    p: Floats
    q: Floats
    p_permutation: Floats
    tested: Flags
    side: npt.NDArray[np.int8]

    @property
    def family(self) -> int:
        """How many tests q was computed over."""
        return int(self.tested.sum())


def analyse(counts: npt.NDArray[np.int64], support: Support, *, permutations: int, seed: int) -> Analysis:
    """The analysis of facts counted by unit.

    A unit stands out when q <= 0.05 over all tested units and the permutations agree (p <= 0.05), because the normal
    law is generous to skewed counts. Units of unlike size are compared by their empirical-Bayes rates.
    """
    tested = expected_around(counts, support) >= LEAST_EXPECTED
    values = comparable(counts, support)
    z = gi_star(values, support.weights)
    p = two_sided(z)
    q = np.ones(support.size)
    q[tested] = q_values(p[tested])
    stands_out = tested & (q <= ALPHA)
    shuffled = np.ones(support.size)
    if stands_out.any():
        shuffled = permutation_p(values, support.weights, permutations, seed, stands_out)
        stands_out &= shuffled <= ALPHA
    return Analysis(z, p, q, shuffled, tested, np.where(stands_out, np.sign(z), 0).astype(np.int8))


def comparable(counts: npt.NDArray[np.int64], support: Support) -> Floats:
    """What Gi* compares: the counts themselves over equal units, else the smoothed rates by km2."""
    return counts.astype(np.float64) if support.even else marshall(counts, support.surfaces)


def expected_around(counts: npt.NDArray[np.int64], support: Support) -> Floats:
    """What each unit's neighbourhood would hold if all facts were spread evenly: over the units, or their surface."""
    share = np.ones(support.size) if support.even else support.surfaces
    around: Floats = support.weights @ share
    return around * (counts.sum(axis=0) / share.sum()) if support.size else around


@dataclass(frozen=True, slots=True)
class Steps:
    """Gi* of each unit (row) in each step (column): scores, and the side of those that stand out within their step."""

    z: Floats
    side: npt.NDArray[np.int8]

    def trends(self, units: npt.NDArray[np.int64]) -> tuple[Trend, npt.NDArray[np.int8]]:
        """Mann-Kendall of those units' scores, and their categories of emerging hot spots (signed Pattern)."""
        trend, side = mann_kendall(self.z[units]), self.side[units]
        return trend, patterns(side > 0, side < 0, trend, ALPHA)

    def categories(self) -> npt.NDArray[np.int8]:
        """The category of every unit; one that never stands out has none, whatever its trend."""
        found = np.zeros(len(self.z), np.int8)
        units = np.flatnonzero(self.side.any(axis=1))
        found[units] = self.trends(units)[1]
        return found


def analyse_steps(counts: npt.NDArray[np.int64], support: Support) -> Steps:
    """The analysis of facts counted by unit (row) and step (column), each step a family of its own."""
    z = gi_star(comparable(counts, support), support.weights)
    side = np.zeros(z.shape, np.int8)
    kept, _ = small_q(z, ALPHA)
    side.ravel()[kept] = np.sign(z.ravel()[kept])
    return Steps(z, side)
