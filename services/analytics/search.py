"""Facts by the words of their titles and by place; the same answers on every database.

SQL finds what may match (words by their trigrams, versions by their words); which do, and how well, is settled here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import marks, run
from services.analytics.postings import Postings
from services.analytics.queries import Found, MapQuery, Scan, details_of, permitted, scan
from services.analytics.words import fewest_common, grams, near, slips_in, words_of
from services.kernel.guard.grant import Grant

# Versions looked at for one question, those with the latest start first.
MOST_CANDIDATES = 20_000
MOST_WORDS = 8
# What a word may stand for, the nearest first.
MOST_MEANINGS = 50

_NEAR = "SELECT word FROM search_grams WHERE gram IN (@) GROUP BY word HAVING COUNT(*) >= ?"
WORLD = Area(-1_800_000_000, -900_000_000, 1_800_000_000, 900_000_000)


@dataclass(frozen=True, slots=True)
class Hits:
    """Features in order of rank, each a Found and its details, with their slips; whether there are more."""

    features: tuple[tuple[Found, tuple[Any, ...]], ...] = ()
    slips: tuple[int, ...] = ()
    more: bool = False
    # The words of titles that the question's words were taken for.
    meanings: tuple[str, ...] = ()


def search(connection: Connection, grant: Grant, words: str, query: MapQuery) -> Hits:
    """Facts whose titles hold every word, within the query's area and period; without words, all of these."""
    sources = permitted(grant, query.sources)
    if not sources or query.nothing:
        return Hits()
    asked = words_of(words)[:MOST_WORDS]
    if not asked:
        return _all(connection, query, sources) if words.strip() == "" else Hits()
    postings = Postings.read(connection)
    meanings = [_meanings(postings, word) for word in asked]
    if not all(meanings):
        return Hits()
    candidates, cut = _candidates(postings, meanings, query)
    rows = Scan(connection, query, sources).certain(candidates)
    details = details_of(connection, [row[0] for row in rows])
    ranked = []
    for row in rows:
        found = slips_in(details[row[0]][5], meanings)
        if found is not None:
            ranked.append((found, -row[1], bytes(details[row[0]][1]), row))
    ranked.sort(key=lambda item: item[:3])
    return _hits(ranked, details, query.limit, cut=cut, meanings=meanings)


def _all(connection: Connection, query: MapQuery, sources: Sequence[str]) -> Hits:
    rows, tally = scan(connection, replace(query, limit=MOST_CANDIDATES), sources)
    if tally is not None:
        return Hits(more=True)
    details = details_of(connection, [row[0] for row in rows])
    ranked = [(0, -row[1], bytes(details[row[0]][1]), row) for row in rows]
    ranked.sort(key=lambda item: item[:3])
    return _hits(ranked, details, query.limit, cut=False, meanings=())


def _hits(
    ranked: Sequence[tuple[int, int, bytes, Found]],
    details: Mapping[int, tuple[Any, ...]],
    limit: int,
    *,
    cut: bool,
    meanings: Sequence[Mapping[str, int]],
) -> Hits:
    best = ranked[:limit]
    return Hits(
        tuple((row, details[row[0]]) for _, _, _, row in best),
        tuple(item[0] for item in best),
        cut or len(ranked) > limit,
        tuple(sorted({word for meaning in meanings for word in meaning})),
    )


def _meanings(postings: Postings, word: str) -> dict[str, int]:
    """The words of titles that a typed word may stand for, with the slips that this forgives."""
    wanted = sorted(grams(word))
    rows = run(postings.connection, _NEAR.replace("@", marks(len(wanted))), (*wanted, fewest_common(word)))
    found = near(word, {*(row[0] for row in rows), *postings.recent_near(word)})
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0]))[:MOST_MEANINGS])


def _candidates(postings: Postings, meanings: Sequence[Mapping[str, int]], query: MapQuery) -> tuple[list[int], bool]:
    """Positions of the versions that hold the rarest of the words, and whether some were left out."""
    rarest = min(meanings, key=lambda words: sum(min(postings.count(word), MOST_CANDIDATES) for word in sorted(words)))
    found: set[tuple[int, int]] = set()
    for word in rarest:
        found.update(postings.latest(word, query.ends_us, MOST_CANDIDATES + 1))
    ordered = sorted(found, reverse=True)
    return [position for _, position in ordered[:MOST_CANDIDATES]], len(ordered) > MOST_CANDIDATES
