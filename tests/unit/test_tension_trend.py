"""Mann-Kendall against scipy's Kendall; the categories against the words of their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau, norm

from services.analytics.tension.trend import Pattern, Trend, mann_kendall, patterns


@settings(max_examples=150, deadline=None)
@given(arrays(np.int64, st.integers(3, 40), elements=st.integers(0, 12)))
def test_mann_kendall_by_its_definition(series: np.ndarray) -> None:
    found = mann_kendall(series)
    pairs = [np.sign(series[j] - series[i]) for i in range(len(series)) for j in range(i + 1, len(series))]
    assert found.s[0] == sum(pairs)
    n, ties = len(series), np.unique(series, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    if variance == 0:
        assert (found.z[0], found.p[0]) == (0, 1)
        return
    wanted = (found.s[0] - np.sign(found.s[0])) / variance**0.5
    assert found.z[0] == pytest.approx(wanted)
    assert found.p[0] == pytest.approx(2 * norm.sf(abs(wanted)))


def test_long_series_agree_with_scipy() -> None:
    """336 months, more than one byte's sum of flags and one block's worth of series, with and without ties."""
    rng = np.random.default_rng(3)
    series = rng.normal(size=(1100, 336)) + np.linspace(0, 1, 336) * rng.normal(size=(1100, 1))
    series[::3] = np.round(series[::3], 1)
    found = mann_kendall(series)
    for row in range(0, 1100, 37):
        tau = kendalltau(np.arange(336), series[row], method="asymptotic")
        # scipy has no continuity correction: the same variance, S instead of S - sign(S).
        s = found.s[row]
        assert found.z[row] * s / (s - np.sign(s)) == pytest.approx(-norm.ppf(tau.pvalue / 2) * np.sign(s), rel=1e-6)


def test_a_rise_without_exception() -> None:
    found = mann_kendall(np.arange(10))
    assert (found.s[0], found.tau[0]) == (45, 1)
    # Var(S) = 10 x 9 x 25 / 18 = 125, z = 44 / sqrt(125).
    assert found.z[0] == pytest.approx(3.93548, abs=1e-5)


def one(steps: str, trend: int = 0) -> Pattern:
    """The category of a history such as "..++-": + hot, - cold; `trend` 1 rising, -1 falling, 0 none."""
    hot, cold = (np.array([[step == sign for step in steps]]) for sign in "+-")
    told = Trend(np.array([trend * 9]), np.array([0.0]), np.array([0.0]), np.array([0.01 if trend else 0.6]))
    return int(patterns(hot, cold, told, 0.05)[0])  # type: ignore[return-value]


NEW, CONSECUTIVE, INTENSIFYING, PERSISTENT = Pattern.NEW, Pattern.CONSECUTIVE, Pattern.INTENSIFYING, Pattern.PERSISTENT
DIMINISHING, SPORADIC, OSCILLATING = Pattern.DIMINISHING, Pattern.SPORADIC, Pattern.OSCILLATING
HISTORICAL, NONE = Pattern.HISTORICAL, Pattern.NONE

CASES = [
    ("..........", 0, NONE),
    (".........+", 0, NEW),
    (".........+", 1, NEW),
    ("-........+", 0, NEW),  # both definitions fit; the table's earlier one is taken
    ("........++", 0, CONSECUTIVE),
    ("-.......++", 0, CONSECUTIVE),
    ("..++++++++", 0, CONSECUTIVE),  # 8 of 10: below ninety percent
    ("..++++++++", 1, CONSECUTIVE),
    (".+++++++++", 0, PERSISTENT),  # 9 of 10: exactly ninety percent
    (".+++++++++", 1, INTENSIFYING),
    (".+++++++++", -1, DIMINISHING),
    ("-+++++++++", 0, PERSISTENT),
    ("++++++++++", 1, INTENSIFYING),
    ("++++++++++", 0, PERSISTENT),
    ("+++++++++.", 0, HISTORICAL),
    ("+++++++++.", -1, HISTORICAL),
    ("---------+", 0, NEW),  # also a historical cold spot; what holds now is said first
    ("++++++++..", 0, NONE),
    ("+........+", 0, SPORADIC),
    ("+.......++", 0, SPORADIC),
    ("+-......++", 0, OSCILLATING),
    ("+++-.....+", 0, OSCILLATING),
    ("++++.+++.+", 0, SPORADIC),
    ("+.........", 0, NONE),
    ("+-+-+-+-+.", 0, NONE),
    ("+++++++++++++++++++.", 0, HISTORICAL),
    ("..++++++++++++++++++", 0, PERSISTENT),  # 18 of 20
    ("...+++++++++++++++++", 0, CONSECUTIVE),  # 17 of 20
]


@pytest.mark.parametrize(("steps", "trend", "pattern"), CASES)
def test_each_category_at_its_edges_hot_and_cold(steps: str, trend: int, pattern: Pattern) -> None:
    assert one(steps, trend) == pattern
    assert one(steps.translate(str.maketrans("+-", "-+")), -trend) == -pattern


def test_every_category_is_among_the_cases() -> None:
    assert {pattern for *_, pattern in CASES} == set(Pattern)


@settings(max_examples=400, deadline=None)
@given(st.text("+-.", min_size=10, max_size=30), st.sampled_from([-1, 0, 1]))
def test_the_definitions_in_their_own_words(steps: str, trend: int) -> None:
    n, hot = len(steps), steps.count("+")
    often, last_hot = hot / n >= 0.9 - 1e-9, steps[-1] == "+"
    final_run = n - len(steps.rstrip("+"))
    fits = {
        NEW: last_hot and hot == 1,
        CONSECUTIVE: last_hot and final_run >= 2 and hot == final_run and not often,
        INTENSIFYING: often and last_hot and trend > 0,
        PERSISTENT: often and last_hot and trend == 0,
        DIMINISHING: often and last_hot and trend < 0,
        SPORADIC: last_hot and not often and hot > final_run and "-" not in steps,
        OSCILLATING: last_hot and not often and "-" in steps,
        HISTORICAL: often and not last_hot,
    }
    found = one(steps, trend)
    if found > 0:
        assert fits[Pattern(found)]
    elif steps[-1] != "-":
        assert not any(fits.values())
    assert one(steps.translate(str.maketrans("+-", "-+")), -trend) == -found
