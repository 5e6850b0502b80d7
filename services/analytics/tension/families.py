"""Many tests at once: the false discovery rate of Benjamini and Hochberg (1995); pure."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from services.analytics.tension.local import two_sided
from services.analytics.tension.weights import Floats


def q_values(p: Floats) -> Floats:
    """The least false discovery rate at which each test of a family would be kept.

    q(i) = min over j >= i of p(j) m / j, p sorted, m the size of the family: monotone in p, never above one.
    """
    size = len(p)
    order = np.argsort(p)
    scaled = p[order] * (size / np.arange(1, size + 1))
    found = np.empty(size)
    found[order[::-1]] = np.minimum(np.minimum.accumulate(scaled[::-1]), 1.0)
    return found


def small_q(scores: Floats, ceiling: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Of many families, one a column of two-sided scores, the tests whose q is at most `ceiling`, and those q.

    Tests are given by their place in the flattened table. A q is never below its p, so that a test whose p is above the
    ceiling neither has such a q nor lowers another's: the few others alone are sorted, once for all families.
    """
    size, families = scores.shape
    flat = np.ascontiguousarray(scores).ravel()
    # The nearest score that could do, less what rounding may take from it.
    far = np.flatnonzero(np.abs(flat) >= -ndtri(ceiling / 2) * (1 - 1e-9))
    p = two_sided(flat[far])
    by_p = np.argsort(p)
    # Families are 16 bits wide: numpy sorts them stably in linear time.
    order = by_p[np.argsort((far[by_p] % families).astype(np.uint16), kind="stable")]
    far, p = far[order], p[order]
    bounds = np.searchsorted(far % families, np.arange(families + 1))
    ratio = size / np.arange(1, size + 1)
    q = np.empty_like(p)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        scaled = p[first:last] * ratio[: last - first]
        q[first:last] = np.minimum.accumulate(scaled[::-1])[::-1]
    kept = q <= ceiling
    return far[kept], q[kept]
