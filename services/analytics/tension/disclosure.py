"""What small numbers must not tell: counts below a kind's minimum, alone or by subtraction; pure."""

from collections.abc import Iterable, Mapping

from services.analytics.tension.facts import Feed


def least(counts: Mapping[Feed, int]) -> int:
    """The smallest total that an aggregate of these kinds may show: the strictest of the kinds in it."""
    return max((feed.minimum_count for feed, count in counts.items() if count), default=1)


def may_show(counts: Mapping[Feed, int]) -> bool:
    """Whether the total may be shown; an aggregate of nothing may not, for nothing is a small number too."""
    total = sum(counts.values())
    return total >= least(counts) and total > 0


def by_kind(counts: Mapping[Feed, int]) -> tuple[dict[Feed, int], tuple[Feed, ...]]:
    """The counts that may be shown beside their total, and the kinds whose counts may not.

    Those withheld are, together, the total less the others: while that sum may not be shown either, the smallest of the
    others is withheld with them.
    """
    present = {feed: count for feed, count in counts.items() if count}
    withheld = {feed: count for feed, count in present.items() if count < feed.minimum_count}
    others = sorted(present.keys() - withheld.keys(), key=lambda feed: (present[feed], feed.source, feed.kind))
    for feed in others:
        if not withheld or may_show(withheld):
            break
        withheld[feed] = present[feed]
    kept = {feed: count for feed, count in present.items() if feed not in withheld}
    return kept, tuple(feed for feed in present if feed in withheld)


def strictest(feeds: Iterable[Feed]) -> int:
    """The smallest count of facts of unsaid kinds, any of these, that may be shown."""
    return max((feed.minimum_count for feed in feeds), default=1)
