"""Rates that small numbers do not drive: empirical Bayes estimates beside the raw ones; pure.

Marshall (1991, doi:10.2307/2347593) by moments; Clayton and Kaldor (1987, doi:10.2307/2532003), the Poisson-gamma
model, by their fixed point.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from services.analytics.tension.weights import Floats, in_parts

_ROUNDS = 200
_CLOSE = 1e-10


def raw(events: npt.ArrayLike, exposure: npt.ArrayLike) -> Floats:
    """Events by unit of exposure; 0 where there is no exposure."""
    exposed = np.asarray(exposure, np.float64)
    inverse = np.divide(1.0, exposed, out=np.zeros_like(exposed), where=exposed > 0)
    counted = np.asarray(events)
    rates: Floats = counted * _rows(inverse, counted)
    return rates


def marshall(events: npt.ArrayLike, exposure: npt.ArrayLike) -> Floats:
    """Marshall's global estimate: the raw rate drawn to the common one, the more the smaller the exposure.

    With m the common rate and s2 = sum n_i (r_i - m)^2 / sum n_i: A = max(0, s2 - m / mean(n)) and
    estimate = m + (r_i - m) A / (A + m / n_i). `events` has a row a unit; each column of a second dimension is apart.
    """
    counted, exposed = np.asarray(events), np.asarray(exposure, np.float64)
    common = counted.sum(axis=0) / exposed.sum()
    variance = np.zeros(counted.shape[1:])
    for part in in_parts(len(counted)):
        apart = raw(counted[part], exposed[part]) - common
        variance += np.einsum("i,i...,i...->...", exposed[part], apart, apart)
    variance /= exposed.sum()
    between = np.maximum(variance - common / exposed.mean(), 0.0)
    found = np.empty(counted.shape)
    for part in in_parts(len(counted)):
        apart = raw(counted[part], exposed[part]) - common
        apart *= _share(common, between, _rows(exposed[part], apart))
        np.add(apart, common, out=found[part])
    return found


def poisson_gamma(events: npt.ArrayLike, expected: npt.ArrayLike) -> Floats:
    """Relative risks O/E under a gamma prior fitted by Clayton and Kaldor's fixed point: (O + nu) / (E + alpha).

    nu / alpha = mean of the estimates; nu / alpha^2 = sum (1 + alpha / E_i) (estimate_i - mean)^2 / (n - 1). Where the
    risks vary no more than chance makes them, all are the common one.
    """
    observed, exposed = np.asarray(events, np.float64), np.asarray(expected, np.float64)
    size = len(observed)
    common = observed.sum() / exposed.sum()
    nu, alpha = 1.0, 1.0 / common if common > 0 else 1.0
    for _ in range(_ROUNDS):
        risks = (observed + nu) / (exposed + alpha)
        mean = risks.mean()
        variance = float(((1 + alpha / exposed) * (risks - mean) ** 2).sum()) / (size - 1)
        if variance <= 0 or mean / variance > 1 / _CLOSE:
            return np.full(size, common)
        before, alpha = alpha, mean / variance
        nu = mean * alpha
        if abs(alpha - before) <= _CLOSE * alpha:
            break
    return (observed + nu) / (exposed + alpha)


def _rows(exposed: Floats, events: npt.NDArray[Any]) -> Floats:
    """A value for each row, to go with all the columns there are."""
    return exposed[:, None] if events.ndim > 1 else exposed


def _share(common: Floats, between: Floats, exposed: Floats) -> Floats:
    """The part of its distance from the common rate that each rate keeps: A / (A + m / n), none where n is none."""
    # A n / (A n + m), which needs no division by n.
    share: Floats = between * exposed
    # Where nothing happened nothing is kept: 0 / (0 + 1).
    share /= share + np.where(common > 0, common, 1.0)
    return share
