"""The detectors of personal data: what they must find, what they must leave alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.screening import detector_of, find_personal_data


@pytest.mark.parametrize(
    ("text", "detector"),
    [
        ("Contact : jean.dupont@exemple.fr", "email"),
        ("contact jean.dupont (at) exemple.fr", "email"),
        ("jean arobase exemple.fr", "email"),
        ("jean\uff20exemple.fr", "email"),
        ("Appeler 06 12 34 56 78", "phone"),
        ("Tél. 04.91.00.00.00", "phone"),
        ("0491000000", "phone"),
        ("+33 (0) 6 12 34 56 78", "phone"),
        ("0033612345678", "phone"),
        ("+39 06 1234 5678", "phone"),
        ("".join(chr(0xFF10 + int(digit)) for digit in "0612345678"), "phone"),
        ("06\u200b12\u200b34\u200b56\u200b78", "phone"),
        ("06\u201112\u201134\u201156\u201178", "phone"),
        ("Dossier 2 84 05 13 055 123 45", "nir"),
        ("184052A05512345", "nir"),
        ("1840513055123", "nir"),
        ("Véhicule AB-123-CD", "plate"),
        ("véhicule ab123cd", "plate"),
        ("Véhicule AB 123 CD en fourrière", "plate"),
        ("Véhicule 1234 ABC 13", "plate"),
        ("Véhicule 123ABC2A", "plate"),
    ],
)
def test_personal_data_is_found(text: str, detector: str) -> None:
    finding = find_personal_data(text)
    assert finding is not None
    assert finding.detector == detector == detector_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Travaux de voirie rue de Rome",
        "Fête du quartier · 2e édition",
        "Course de 100 km",
        "Commémoration du 8 MAI 45",
        "Match OM-PSG, 20 h 45",
        "Marché du 14/07/2026 au 15/08/2026",
        "Arrêté 2026-00123-VDM",
        "Concert au 12 rue de Rome, 13006 Marseille",
        "Chantier 2026/0451 lot 13",
        "Ligne 12 RUE 13 novembre",
    ],
)
def test_innocent_titles_pass(text: str) -> None:
    assert find_personal_data(text) is None
    assert detector_of(text) is None


@given(st.text(max_size=30), st.integers(0, 99_999_999), st.sampled_from(["", " ", ".", "-"]))
def test_a_mobile_number_is_found_whatever_surrounds_it(before: str, number: int, separator: str) -> None:
    digits = f"{number:08d}"
    phone = separator.join(["06", *(digits[i : i + 2] for i in range(0, 8, 2))])
    assert find_personal_data(f"{before} / {phone} / fin") is not None


@given(st.text(alphabet=st.characters(whitelist_categories=("L", "Zs", "Po")), max_size=140))
def test_a_text_without_digits_or_at_signs_holds_no_number(text: str) -> None:
    assert detector_of(text) in {None, "email"}
