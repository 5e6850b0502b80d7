"""The scan statistic against every cylinder tried one by one."""

import math

import numpy as np
import pytest

from services.analytics.tension.scan import nearest, scan


def brute(
    counts: np.ndarray, expected: np.ndarray, order: np.ndarray, most_steps: int, alive: bool
) -> tuple[object, ...]:
    total, steps = counts.sum(), counts.shape[1]
    even = expected * total / expected.sum()
    best = (0.0, frozenset[int](), 0, 0)
    for centre in range(len(counts)):
        for size in range(1, order.shape[1] + 1):
            units = order[centre, :size]
            for end in range(1, steps + 1):
                for first in range(max(0, end - most_steps), end):
                    c, e = counts[units, first:end].sum(), even[units, first:end].sum()
                    if (alive and end != steps) or c <= e or e > total / 2:
                        continue
                    ratio = c * math.log(c / e) + (total - c) * math.log((total - c) / (total - e)) if c < total else 0
                    if ratio > best[0] + 1e-12:
                        best = (ratio, frozenset(units.tolist()), first, end)
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alive", [True, False])
def test_the_likeliest_cylinder_is_the_best_of_all(seed: int, alive: bool) -> None:
    rng = np.random.default_rng(seed)
    # Six steps and cylinders of three: those that are alive leave earlier steps to be folded.
    points, expected = rng.random((9, 2)), rng.gamma(3, 1, (9, 6))
    counts = rng.poisson(expected * 2)
    counts[2:4, 4:] += 6
    order = nearest(points, 5)
    ratio, units, first, end = brute(counts, expected, order, 3, alive)
    found = scan(counts, expected, order, most_steps=3, alive=alive, replicates=0, seed=1)
    assert found[0].log_ratio == pytest.approx(ratio)
    assert (frozenset(found[0].units), found[0].first_step, found[0].end_step) == (units, first, end)
    assert found[0].observed == counts[sorted(found[0].units), first:end].sum()
    seen = [unit for cluster in found for unit in cluster.units]
    assert len(seen) == len(set(seen))


def test_a_burst_is_found_and_noise_is_not() -> None:
    grid = np.array([(x, y) for x in range(12) for y in range(12)], float)
    rng, order = np.random.default_rng(5), nearest(grid, 9)
    quiet = rng.poisson(3, (144, 12))
    calm = scan(quiet, np.ones((144, 12)), order, most_steps=6, alive=True, replicates=99, seed=2)
    assert calm[0].p > 0.05
    burst = quiet.copy()
    burst[np.ix_([65, 66, 77, 78], [10, 11])] += 6
    first = scan(burst, np.ones((144, 12)), order, most_steps=6, alive=True, replicates=99, seed=2)[0]
    assert first.p == 0.01
    assert len({65, 66, 77, 78} & set(first.units)) >= 3
    assert (first.first_step, first.end_step) == (10, 12)
    assert first.relative_risk > 2


def test_the_nearest_begin_with_oneself() -> None:
    order = nearest([(0, 0), (0, 1), (5, 5), (0, 0.5)], 3)
    assert order.tolist()[0] == [0, 3, 1]
    assert order[:, 0].tolist() == [0, 1, 2, 3]
    assert scan(np.zeros((4, 2)), np.ones((4, 2)), order, most_steps=2, alive=True, replicates=9, seed=1) == ()
