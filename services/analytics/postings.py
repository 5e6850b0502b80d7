"""Which versions have a word: a row for each word and lot of consecutive positions, its entries in the order of start.

A lot is written once it is whole, so that a flow of facts writes one row a word every LOT positions instead of one a
word and fact, each in a page of its own. What has come since the last whole lot is read from the versions themselves:
an answer misses nothing, and both are of one transaction. Where lots begin depends on positions alone.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from services.analytics.bulk import marks, run
from services.analytics.words import fewest_common, grams, words_of

# A search reads half of these titles on average, in 2 ms.
LOT = 4_096
# Lots of a word whose entries are read at a time, those with the latest starts first.
_LOTS_READ = 16
_POSITION = "SELECT position FROM projections WHERE name = 'facts'"
_RECENT = "SELECT position, starts_us, title FROM fact_versions WHERE position > ? ORDER BY position LIMIT ?"
_LOTS = "SELECT lot, latest_us FROM search_postings WHERE word = ? ORDER BY latest_us DESC"
_ENTRIES = "SELECT entries FROM search_postings WHERE word = ? AND lot IN (@)"
_COUNT = "SELECT COALESCE(SUM(facts), 0) FROM search_postings WHERE word = ?"

# (start, position) of each version, ascending.
Entries = npt.NDArray[np.int64]


def whole_lots(position: int) -> int:
    """The last position of the last whole lot."""
    return position - position % LOT


def lot_of(position: int) -> int:
    """The position before the first one of the lot that holds this one."""
    return whole_lots(position - 1)


def packed(entries: Collection[tuple[int, int]]) -> tuple[int, int, bytes]:
    """(start, position) pairs as a row holds them: latest start, number, 16 bytes each."""
    ordered = sorted(entries)
    return ordered[-1][0], len(ordered), np.array(ordered, dtype="<i8").tobytes()


def unpacked(data: bytes) -> Entries:
    """The entries of one row."""
    return np.frombuffer(data, dtype="<i8").reshape(-1, 2)


def by_word(rows: Sequence[tuple[int, int, str]]) -> dict[str, list[tuple[int, int]]]:
    """The (start, position) of each (position, start, title) under each word of its title."""
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    # Titles repeat within a lot; none is remembered longer, as an erased one must not be.
    words: dict[str, frozenset[str]] = {}
    for position, starts_us, title in rows:
        if title not in words:
            words[title] = frozenset(words_of(title))
        entry = starts_us, position
        for word in words[title]:
            found[word].append(entry)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Postings:
    """The postings as one transaction sees them, those of the lot that is not whole yet included."""

    connection: Connection
    recent: Mapping[str, list[tuple[int, int]]]
    _counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: Connection) -> "Postings":
        """Reads what is in no lot yet."""
        ((position,),) = run(connection, _POSITION, ())
        rows: list[Any] = run(connection, _RECENT, (whole_lots(position), LOT))
        return cls(connection, by_word(rows))

    def recent_near(self, word: str) -> Iterator[str]:
        """Words in no lot yet that have enough trigrams of a word to be meant by it."""
        wanted, fewest = grams(word), fewest_common(word)
        return (known for known in self.recent if len(wanted & grams(known)) >= fewest)

    def count(self, word: str) -> int:
        """How many versions have the word."""
        if word not in self._counts:
            self._counts[word] = int(run(self.connection, _COUNT, (word,))[0][0]) + len(self.recent.get(word, ()))
        return self._counts[word]

    def latest(self, word: str, before_us: int, most: int) -> list[tuple[int, int]]:
        """(start, position) of at most so many versions that have the word and start before, the latest first."""
        found = _latest(np.array(self.recent.get(word, ()), dtype=np.int64).reshape(-1, 2), before_us, most)
        lots = run(self.connection, _LOTS, (word,))
        for first in range(0, len(lots), _LOTS_READ):
            some = lots[first : first + _LOTS_READ]
            if len(found) == most and found[-1][0] > some[0][1]:
                break
            sql = _ENTRIES.replace("@", marks(len(some)))
            rows = run(self.connection, sql, (word, *(lot for lot, _ in some)))
            found = _latest(np.concatenate([found, *(unpacked(bytes(row[0])) for row in rows)]), before_us, most)
        return [(int(starts_us), int(position)) for starts_us, position in found.tolist()]


def _latest(entries: Entries, before_us: int, most: int) -> Entries:
    kept = entries[entries[:, 0] < before_us]
    return kept[np.lexsort((kept[:, 1], kept[:, 0]))[::-1][:most]]
