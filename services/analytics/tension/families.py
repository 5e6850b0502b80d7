"""Many tests at once: the false discovery rate of Benjamini and Hochberg (1995); pure."""

import numpy as np

from services.analytics.tension.weights import Floats


def q_values(p: Floats) -> Floats:
    """The least false discovery rate at which each test would be kept; each column is a family of its own.

    q(i) = min over j >= i of p(j) m / j, p sorted, m the size of the family: monotone in p, never above one.
    """
    family = np.asarray(p, np.float64)
    size = family.shape[0]
    if size == 0:
        return family.copy()
    rows = np.ascontiguousarray(family.T) if family.ndim > 1 else family[None, :]
    found = np.empty_like(rows)
    ratio = size / np.arange(1, size + 1)
    # Row by row: what one family needs stays in the nearest cache.
    for row, into in zip(rows, found, strict=True):
        order = np.argsort(row)
        scaled = row[order]
        scaled *= ratio
        into[order[::-1]] = np.minimum.accumulate(scaled[::-1])
    np.minimum(found, 1.0, out=found)
    return np.ascontiguousarray(found.T) if family.ndim > 1 else found[0]


def discoveries(p: Floats, alpha: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which tests are kept at that rate: q_values(p) <= alpha, column by column, without sorting the others."""
    family = np.asarray(p, np.float64)
    rows = np.ascontiguousarray(family.T) if family.ndim > 1 else family[None, :]
    kept = np.zeros(rows.shape, bool)
    size = rows.shape[1]
    ratio = size / np.arange(1, size + 1)
    for row, keep in zip(rows, kept, strict=True):
        # A test above alpha is never kept, nor does it count for the rank of those below it.
        few = np.sort(row[row <= alpha])
        under = np.flatnonzero(few * ratio[: len(few)] <= alpha)
        if len(under):
            keep[:] = row <= few[under[-1]]
    return np.ascontiguousarray(kept.T) if family.ndim > 1 else kept[0]
