"""Gi* and local Moran against published values, against esda, and against their definitions written out."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from services.analytics.tension.local import _draw, gi_star, local_moran, permutation_p, two_sided
from services.analytics.tension.weights import Weights, from_pairs, without_self

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from esda import G_Local, Moran_Local
    from libpysal.weights import W

# esda's own documented example (esda.getisord.G_Local, binary weights, star): six points, neighbours within 15.
POINTS = np.array([(10, 10), (20, 10), (40, 10), (15, 20), (30, 20), (30, 30)], float)
VALUES = np.array([2, 3, 3.2, 5, 8, 7])
PUBLISHED_STAR = [-1.39727626, -0.28917762, 0.65064964, -0.28917762, 1.23452088, 2.02424331]
PUBLISHED_WITHOUT_SELF = [-1.0136729, -0.04361589, 1.31558703, -0.31412676, 1.15373986, 1.77833941]


def within(points: np.ndarray, reach: float) -> Weights:
    apart = np.hypot(*(points[:, None] - points[None]).T)
    rows, columns = np.nonzero(apart <= reach)
    return from_pairs(rows, columns, len(points))


def random_weights(seed: int, size: int, *, binary: bool = True) -> Weights:
    rng = np.random.default_rng(seed)
    drawn = sparse.random_array((size, size), density=min(1.0, 5 / size), rng=rng, format="csr")
    if binary:
        drawn.data[:] = 1.0
    return with_self(drawn)


def with_self(weights: Weights) -> Weights:
    apart = without_self(weights)
    return sparse.csr_array(apart + sparse.eye_array(apart.shape[0], format="csr"))


def row_standardised(weights: Weights) -> Weights:
    sums = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.csr_array(weights.multiply(1.0 / sums[:, None]))


def of_esda(weights: Weights) -> "W":
    apart = without_self(weights)
    rows = range(apart.shape[0])
    neighbours = {row: apart.indices[apart.indptr[row] : apart.indptr[row + 1]].tolist() for row in rows}
    return W(neighbours, silence_warnings=True)


def test_published_scores() -> None:
    assert gi_star(VALUES, within(POINTS, 15)) == pytest.approx(PUBLISHED_STAR, abs=1e-8)


def test_the_defining_sums() -> None:
    """Ord and Getis (1995), equation 5, with weights that are neither binary nor standardised."""
    weights, values = random_weights(5, 12, binary=False), np.random.default_rng(1).gamma(2, 3, 12)
    w, n, mean, s = weights.toarray(), 12, values.mean(), values.std()
    for i, score in enumerate(gi_star(values, weights)):
        total, squares = w[i].sum(), (w[i] ** 2).sum()
        wanted = (w[i] @ values - mean * total) / (s * np.sqrt((n * squares - total**2) / (n - 1)))
        assert score == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_scores_of_esda_with_binary_weights(seed: int) -> None:
    weights = random_weights(seed, 300)
    values = np.random.default_rng(seed).negative_binomial(1, 0.1, 300).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = G_Local(values, of_esda(weights), transform="B", permutations=0, star=True)
    assert np.abs(gi_star(values, weights) - peer.Zs).max() < 1e-9


def test_local_moran_of_esda() -> None:
    weights, values = random_weights(3, 80), np.random.default_rng(2).poisson(4, 80).astype(float)
    peer = Moran_Local(values, of_esda(weights), transformation="B", permutations=0)
    found = local_moran(values, weights)
    assert found.statistic == pytest.approx(peer.Is, abs=1e-9)
    # A lag of nothing but rounding errors has no side.
    clear = np.abs(found.statistic) > 1e-9
    assert found.quadrant[clear].tolist() == peer.q[clear].tolist()


counts = arrays(np.int64, st.integers(5, 25), elements=st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(0, 9), st.floats(0.1, 50))
def test_scores_do_not_depend_on_the_scale_of_weights_or_values(values: np.ndarray, seed: int, factor: float) -> None:
    weights = random_weights(seed, len(values))
    scores = gi_star(values, weights)
    assert gi_star(values, row_standardised(weights)) == pytest.approx(scores, abs=1e-9)
    assert gi_star(values * factor + 3, weights) == pytest.approx(scores, abs=1e-9)
    assert gi_star(-values, weights) == pytest.approx(-scores, abs=1e-9)
    side_by_side = gi_star(np.column_stack([values, values[::-1]]), weights)
    assert side_by_side[:, 0] == pytest.approx(scores, abs=1e-12)


def test_nothing_varies_nothing_scores() -> None:
    weights = random_weights(1, 9)
    assert gi_star(np.full(9, 0.1), weights).tolist() == [0.0] * 9
    everything = from_pairs(np.repeat(range(4), 4), np.tile(range(4), 4), 4)
    assert gi_star(np.arange(4), everything).tolist() == [0.0] * 4
    assert two_sided(np.array([0.0, 1.959963985, -1.959963985])) == pytest.approx([1, 0.05, 0.05], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(0, 9), st.booleans(), st.booleans())
def test_permutations_are_those_that_the_draws_say(
    values: np.ndarray, seed: int, standardise: bool, binary: bool
) -> None:
    """The running sums against the definition: unit by unit, draw by draw, over the others."""
    weights = random_weights(seed, len(values), binary=binary)
    if standardise:
        weights = row_standardised(weights)
    apart = without_self(weights)
    apart.sort_indices()
    degrees = np.diff(apart.indptr)
    found = permutation_p(values, weights, 29, seed)
    if not degrees.any():
        assert found.tolist() == [1.0] * len(values)
        return
    draws = _draw(len(values) - 1, int(degrees.max()), 29, np.random.default_rng(seed))
    for unit, degree in enumerate(degrees):
        row = slice(apart.indptr[unit], apart.indptr[unit + 1])
        shares, others = apart.data[row], np.delete(values, unit)
        observed = round(float(shares @ values[apart.indices[row]]), 9)
        sums = np.round(others[draws[:, :degree]] @ shares, 9)
        tail = min((sums >= observed).sum(), (sums <= observed).sum())
        assert found[unit] == pytest.approx(min(1.0, 2 * (tail + 1) / 30) if degree else 1.0)


@settings(max_examples=30, deadline=None)
@given(counts, st.integers(0, 9), st.integers(0, 2**25))
def test_few_or_all_are_asked_about_alike(values: np.ndarray, seed: int, bits: int) -> None:
    weights = random_weights(seed, len(values))
    asked = np.array([bool(bits >> place & 1) for place in range(len(values))])
    every = permutation_p(values, weights, 29, seed)
    assert permutation_p(values, weights, 29, seed, asked).tolist() == np.where(asked, every, 1).tolist()


def test_draws_hold_no_double_and_reach_everyone_alike() -> None:
    for population, size in ((400, 6), (12, 6)):
        draws = _draw(population, size, 4000, np.random.default_rng(1))
        assert all(len(set(row)) == size for row in draws.tolist())
        often = np.bincount(draws[:, :3].ravel(), minlength=population)
        assert np.abs(often - 12000 / population).max() < 6 * np.sqrt(12000 / population)


def test_without_association_small_p_are_as_rare_as_they_say() -> None:
    weights = within(np.array([(x, y) for x in range(40) for y in range(40)], float), 1.5)
    p = permutation_p(np.random.default_rng(7).poisson(6, 1600), weights, 999, 1)
    assert 0.02 < (p <= 0.05).mean() < 0.08
    assert p.min() >= 2 / 1000
