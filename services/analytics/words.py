"""Words as people type them: without case and accents, with slips forgiven; pure.

The same on every database: what SQL compares are whole words and their trigrams; nearness is counted here.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

# Words of a title or question that count, and letters of each.
MOST_WORDS = 12
LONGEST = 32
_WORD = re.compile(r"[0-9a-z]+")
_LETTERS = str.maketrans({"œ": "oe", "æ": "ae", "ß": "ss", "ø": "o", "ł": "l", "đ": "d"})
# Articles and prepositions: in nearly every title, and never what is looked for.
_EMPTY = frozenset(re.split("[ ]", "a au aux d de des du en et l la le les ou par pour s sur un une"))
# Slips forgiven from a word's length on.
_FORGIVEN = ((8, 2), (4, 1))
_PAD = "  "


def words_of(text: str) -> list[str]:
    """The words of a text, in order, that can be looked for."""
    plain = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = [word[:LONGEST] for word in _WORD.findall(plain) if word not in _EMPTY]
    return found[:MOST_WORDS]


def grams(word: str) -> set[str]:
    """The trigrams of a word and of its beginning, as many as it has letters at most."""
    padded = _PAD + word
    return {padded[start : start + 3] for start in range(len(word))}


def forgiven(word: str) -> int:
    """How many slips of typing are forgiven in a word of this length."""
    return next((slips for length, slips in _FORGIVEN if len(word) >= length), 0)


def fewest_common(word: str) -> int:
    """Trigrams that a word within the forgiven slips shares at least: a slip of two swapped letters spoils four."""
    return max(1, len(grams(word)) - 4 * forgiven(word))


def slips(typed: str, word: str) -> int:
    """Letters inserted, left out, replaced or swapped with their neighbour between `typed` and a beginning of `word`.

    Optimal string alignment distance, to the nearest beginning.
    """
    before: list[int] = []
    row = list(range(len(word) + 1))
    for place, letter in enumerate(typed, 1):
        two_before, before = before, row
        row = [place]
        for other, against in enumerate(word, 1):
            cost = min(before[other] + 1, row[-1] + 1, before[other - 1] + (letter != against))
            if place > 1 and other > 1 and letter == word[other - 2] and typed[place - 2] == against:
                cost = min(cost, two_before[other - 2] + 1)
            row.append(cost)
    return min(row)


def near(typed: str, vocabulary: Iterable[str]) -> dict[str, int]:
    """The words that `typed` may stand for, each with its slips."""
    most = forgiven(typed)
    counted = ((word, slips(typed, word)) for word in vocabulary)
    return {word: count for word, count in counted if count <= most}


def slips_in(title: str, asked: Iterable[Mapping[str, int]]) -> int | None:
    """Slips in a title over all words asked for, each given as what it may stand for; None where one is not met."""
    known, total = words_of(title), 0
    for meanings in asked:
        fewest = min((meanings[word] for word in known if word in meanings), default=None)
        if fewest is None:
            return None
        total += fewest
    return total
