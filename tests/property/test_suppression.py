"""Counts that hide the few: sums hold, and nothing below a minimum can be read or reckoned from what is shown."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.analytics.suppression import Tally

MINIMUMS = {(1, 1): 5, (1, 2): 3, (2, 1): 11}
KINDS = [*MINIMUMS, (1, 9), (2, 9)]
facts = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(KINDS)), max_size=80)


def tally_of(found: list[tuple[int, tuple[int, int]]]) -> Tally[int]:
    tally: Tally[int] = Tally(MINIMUMS)
    for place, kind in found:
        tally.add(place, kind)
    return tally


@given(facts)
def test_what_is_shown_withheld_and_too_rare_is_all_there_is(found: list[tuple[int, tuple[int, int]]]) -> None:
    counts = tally_of(found).shown()
    rare = sum(kind in counts.rare for _, kind in found)
    assert counts.total == counts.shown.total() + counts.withheld == len(found) - rare
    whole = Counter(kind for _, kind in found)
    assert set(counts.rare) == {kind for kind, least in MINIMUMS.items() if 0 < whole[kind] < least}


@given(facts, st.sampled_from(list(MINIMUMS)))
def test_one_more_kind_never_tells_a_count_below_its_minimum(
    found: list[tuple[int, tuple[int, int]]], kind: tuple[int, int]
) -> None:
    """Who asks with the kind and without it may subtract: each difference is none or at least the minimum."""
    with_it = tally_of(found).shown()
    without = tally_of([one for one in found if one[1] != kind]).shown()
    for place in range(7):
        difference = with_it.shown[place] - without.shown[place]
        assert difference == 0 or difference >= MINIMUMS[kind]
    left_out = with_it.withheld - without.withheld
    assert left_out == 0 or left_out >= MINIMUMS[kind]


@given(facts)
def test_the_order_of_reading_changes_nothing(found: list[tuple[int, tuple[int, int]]]) -> None:
    shuffled = sorted(found, reverse=True)
    assert tally_of(found).shown() == tally_of(shuffled).shown()
