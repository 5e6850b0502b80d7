"""Rates that small numbers do not drive: empirical Bayes estimates beside the raw ones; pure.

Marshall (1991, doi:10.2307/2347593) by moments; Clayton and Kaldor (1987, doi:10.2307/2532003), the Poisson-gamma
model, by their fixed point.
"""

import numpy as np
import numpy.typing as npt

from services.analytics.tension.weights import Floats, Weights

_ROUNDS = 200
_CLOSE = 1e-10


def raw(events: npt.ArrayLike, exposure: npt.ArrayLike) -> Floats:
    """Events by unit of exposure; 0 where there is no exposure."""
    counted, exposed = np.broadcast_arrays(np.asarray(events, np.float64), _column(events, exposure))
    rates: Floats = np.divide(counted, exposed, out=np.zeros(counted.shape), where=exposed > 0)
    return rates


def marshall(events: npt.ArrayLike, exposure: npt.ArrayLike) -> Floats:
    """Marshall's global estimate: the raw rate drawn to the common one, the more the smaller the exposure.

    With m the common rate and s2 = sum n_i (r_i - m)^2 / sum n_i: A = max(0, s2 - m / mean(n)) and
    estimate = m + (r_i - m) A / (A + m / n_i). `events` has a row a unit; each column of a second dimension is apart.
    """
    counted, exposed = np.asarray(events, np.float64), _column(events, exposure)
    rates = raw(counted, exposed)
    total = exposed.sum(axis=0)
    common = counted.sum(axis=0) / total
    variance = (exposed * (rates - common) ** 2).sum(axis=0) / total
    between = np.maximum(variance - common / exposed.mean(axis=0), 0.0)
    return _drawn(rates, common, between, exposed)


def marshall_local(events: npt.ArrayLike, exposure: npt.ArrayLike, weights: Weights) -> Floats:
    """Marshall's estimate drawn to the common rate of the neighbours of positive weight, self included as they say."""
    counted, exposed = np.asarray(events, np.float64), np.asarray(exposure, np.float64)
    near = weights.copy()
    near.data = (near.data > 0).astype(np.float64)
    rates = raw(counted, exposed)
    around, several = near @ exposed, np.diff(near.indptr)
    common = np.divide(near @ counted, around, out=np.zeros(len(counted)), where=around > 0)
    # sum n_j (r_j - m_i)^2 over the neighbours of i, opened up.
    moment = near @ (exposed * rates**2) - 2 * common * (near @ (exposed * rates)) + common**2 * around
    variance = np.divide(moment, around, out=np.zeros(len(counted)), where=around > 0)
    between = np.maximum(
        variance - common * np.divide(several, around, out=np.zeros(len(counted)), where=around > 0), 0.0
    )
    return _drawn(rates, common, between, exposed)


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


def _column(events: npt.ArrayLike, exposure: npt.ArrayLike) -> Floats:
    """The exposure with as many dimensions as the events."""
    exposed = np.asarray(exposure, np.float64)
    return exposed[:, None] if np.ndim(events) > exposed.ndim else exposed


def _drawn(rates: Floats, common: Floats, between: Floats, exposed: Floats) -> Floats:
    within = np.divide(
        common, exposed, out=np.zeros(np.broadcast_shapes(np.shape(common), exposed.shape)), where=exposed > 0
    )
    share = np.divide(between, between + within, out=np.zeros(rates.shape), where=between + within > 0)
    return common + (rates - common) * share
