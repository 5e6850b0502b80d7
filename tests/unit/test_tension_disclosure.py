"""What is shown of counts never tells one below its minimum."""

from hypothesis import given
from hypothesis import strategies as st

from services.analytics.tension.disclosure import by_kind, least, may_show
from services.analytics.tension.facts import Feed

FEEDS = tuple(Feed("s", "S", "reported", f"K{minimum}", "K", minimum, 9) for minimum in (1, 3, 5, 11))
counts = st.tuples(*[st.integers(0, 30)] * 4).map(lambda numbers: dict(zip(FEEDS, numbers, strict=True)))


@given(counts)
def test_neither_a_count_nor_the_rest_of_the_total_is_too_small(numbers: dict[Feed, int]) -> None:
    shown, withheld = by_kind(numbers)
    present = {feed for feed, count in numbers.items() if count}
    assert set(shown) | set(withheld) == present
    assert not set(shown) & set(withheld)
    assert all(numbers[feed] == count >= feed.minimum_count for feed, count in shown.items())
    rest = sum(numbers.values()) - sum(shown.values())
    assert rest == 0 or not shown or rest >= max(feed.minimum_count for feed in withheld)
    if all(numbers[feed] >= feed.minimum_count for feed in present):
        assert not withheld


def test_the_strictest_kind_present_decides_for_a_total() -> None:
    one, three, five, eleven = FEEDS
    assert (least({five: 4, one: 4}), may_show({five: 4, one: 4})) == (5, True)
    assert not may_show({five: 8, eleven: 2})
    assert may_show({five: 8, eleven: 0})
    assert not may_show({})
    # 2 of a kind that shows from 11: 9 more of the next smallest are withheld with it.
    assert by_kind({eleven: 2, three: 12, five: 9}) == ({three: 12}, (eleven, five))
