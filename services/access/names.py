"""Names of persons, compared as a registry clerk would: without case, accents or punctuation."""

import re
import unicodedata

_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae"})
_SEPARATORS = re.compile(r"[^\w]+|_+")


def fold(name: str) -> str:
    """The comparable form of a name: "Élise  D'Été-Noël" gives "elise d ete noel"; "" where nothing is left."""
    decomposed = unicodedata.normalize("NFKD", name.casefold().translate(_LIGATURES))
    bare = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return _SEPARATORS.sub(" ", bare).strip()


def same_person(given_a: str, usual_a: str, given_b: str, usual_b: str) -> bool:
    """Whether both pairs of names read alike; an empty part matches nothing."""
    a, b = (fold(given_a), fold(usual_a)), (fold(given_b), fold(usual_b))
    return a == b and all(a)
