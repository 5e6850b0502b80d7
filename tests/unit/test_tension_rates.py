"""Empirical Bayes rates and false discovery rates against published tables."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.analytics.tension.families import q_values, small_q
from services.analytics.tension.local import two_sided
from services.analytics.tension.rates import marshall, poisson_gamma, raw

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import libpysal
    from esda.smoothing import Empirical_Bayes

# Benjamini and Hochberg (1995), section 3: fifteen comparisons of two treatments of myocardial infarction.
HEART = [
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.324,
    0.4262,
    0.5719,
    0.6528,
    0.759,
    1,
]


@pytest.fixture(scope="module")
def sids() -> tuple[np.ndarray, np.ndarray]:
    """Sudden infant deaths and births in North Carolina's 100 counties, 1974 to 1978."""
    table = libpysal.io.open(libpysal.examples.load_example("sids2").get_path("sids2.dbf"))
    events, births = np.array(table.by_col("SID74"), float), np.array(table.by_col("BIR74"), float)
    table.close()
    return events, births


def test_the_published_family_keeps_its_four_smallest() -> None:
    p = np.array(HEART)[::-1]
    assert (q_values(p) <= 0.05).sum() == 4
    # By hand: 0.0095 x 15 / 4; the sixth is drawn down by the seventh, 0.0298 x 15 / 7.
    assert q_values(p)[::-1][[3, 5]] == pytest.approx([0.035625, 0.0298 * 15 / 7])


scores = arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.floats(-6, 6) | st.just(3.0))


@given(scores, st.sampled_from([0.01, 0.05, 0.2]))
def test_q_by_its_definition_alone_and_in_columns(z: np.ndarray, ceiling: float) -> None:
    whole = np.ones(z.shape)
    for column in range(z.shape[1]):
        p = two_sided(z[:, column])
        q = q_values(p)
        order = np.argsort(p, kind="stable")
        ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
        assert q[order] == pytest.approx([min(1, ranked[place:].min()) for place in range(len(p))])
        assert ((p <= q + 1e-15) & (q <= 1)).all()
        whole[:, column] = np.where(q <= ceiling, q, 1)
    places, small = small_q(z, ceiling)
    found = np.ones(z.shape)
    found.ravel()[places] = small
    # A q at the ceiling itself may fall on either side by its last bit.
    clear = np.abs(whole - ceiling) > 1e-12
    assert found[clear] == pytest.approx(whole[clear])


def test_the_published_gamma_prior(sids: tuple[np.ndarray, np.ndarray]) -> None:
    """Bivand, Pebesma and Gomez-Rubio, Applied Spatial Data Analysis with R, on these data: nu 4.6307, alpha 4.3956."""
    events, births = sids
    expected = births * events.sum() / births.sum()
    risks = poisson_gamma(events, expected)
    # (O + nu) / (E + alpha) = risk is linear in the two.
    (nu, alpha), *_ = np.linalg.lstsq(np.c_[np.ones(100), -risks], risks * expected - events, rcond=None)
    assert (nu, alpha) == pytest.approx((4.6307, 4.3956), abs=5e-4)


def test_marshall_of_esda(sids: tuple[np.ndarray, np.ndarray]) -> None:
    events, births = sids
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide = Empirical_Bayes(events, births).r.ravel()
    assert marshall(events, births) == pytest.approx(wide, rel=1e-9)


def test_small_exposures_are_drawn_more_and_columns_are_apart(sids: tuple[np.ndarray, np.ndarray]) -> None:
    events, births = sids
    smoothed, rates, common = marshall(events, births), raw(events, births), events.sum() / births.sum()
    kept = (smoothed - common) / (rates - common)
    assert ((kept > 0) & (kept < 1)).all()
    assert (np.diff(kept[np.argsort(births)]) >= -1e-12).all()
    both = marshall(np.column_stack([events, events[::-1]]), births)
    assert both[:, 0] == pytest.approx(smoothed)
    assert both[:, 1] == pytest.approx(marshall(events[::-1], births))


def test_what_chance_alone_makes_is_drawn_all_the_way() -> None:
    events, exposure = np.full(20, 3.0), np.full(20, 2.0)
    assert marshall(events, exposure).tolist() == [1.5] * 20
    assert poisson_gamma(events, exposure).tolist() == [1.5] * 20
    assert marshall(np.zeros(4), np.ones(4)).tolist() == [0] * 4
    assert raw([1, 2], [0, 4]).tolist() == [0, 0.5]
