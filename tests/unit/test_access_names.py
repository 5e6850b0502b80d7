"""Names match as a clerk would match them."""

import pytest

from services.access.names import fold, may_be_same_person, same_person


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Élise", "elise"),
        ("  DUPRÉ--NOËL ", "dupre noel"),
        ("d\u2019Été", "d ete"),
        ("Œillet", "oeillet"),
        ("Strauß", "strauss"),
        ("e\u0301lise", "elise"),
        ("_-'", ""),
    ],
)
def test_fold(written: str, folded: str) -> None:
    assert fold(written) == folded


def test_given_and_usual_names_do_not_change_places() -> None:
    assert not same_person("Marc", "Paul", "Paul", "Marc")


@pytest.mark.parametrize("pair", [("", ""), ("Marc", ""), ("", "Paul"), ("Marc", "-")])
def test_an_empty_name_matches_nothing(pair: tuple[str, str]) -> None:
    assert not same_person(*pair, *pair)


@pytest.mark.parametrize(
    ("given", "usual"),
    [("JeanLuc", "ODonnell"), ("Jean\u200b-Luc", "O'Donnell"), ("O Donnell", "JEAN LUC"), ("Jean-Luc", "ø'Donnell")],
)
def test_nobody_is_somebody_else_by_spelling_or_order(given: str, usual: str) -> None:
    """A second account under such a name could else be granted and confirmed by its own holder."""
    assert may_be_same_person("Jean-Luc", "O'Donnell", given, usual)


@pytest.mark.parametrize(("given", "usual"), [("Jean", "O'Donnell"), ("Jean-Luc", "Donnell"), ("", "")])
def test_other_names_are_others(given: str, usual: str) -> None:
    assert not may_be_same_person("Jean-Luc", "O'Donnell", given, usual)
    assert not may_be_same_person("", "", given, usual)
