"""Names of persons, compared as a registry clerk would: without case, accents or punctuation."""

import re
import unicodedata

# Letters that Unicode does not decompose.
_LETTERS = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"})
_SEPARATORS = re.compile(r"[^\w]+|_+")


def fold(name: str) -> str:
    """The comparable form of a name: "Élise  D'Été-Noël" gives "elise d ete noel"; "" where nothing is left."""
    decomposed = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    # Nor what nobody sees: a zero-width space makes no other name.
    bare = "".join(c for c in decomposed if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return _SEPARATORS.sub(" ", bare).strip()


def same_person(given_a: str, usual_a: str, given_b: str, usual_b: str) -> bool:
    """Whether both pairs of names read alike; an empty part matches nothing."""
    a, b = (fold(given_a), fold(usual_a)), (fold(given_b), fold(usual_b))
    return a == b and all(a)


def may_be_same_person(given_a: str, usual_a: str, given_b: str, usual_b: str) -> bool:
    """Whether the names might be one person's, however spaced and ordered: where nobody may act for themselves.

    Wider than `same_person`, which binds a login to a clearance and must not bind too much.
    """
    a, b = ({fold(part).replace(" ", "") for part in pair} for pair in ((given_a, usual_a), (given_b, usual_b)))
    return a == b and all(a)
