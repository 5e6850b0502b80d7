"""The order of the purposes, and what the texts of several sources permit together."""

import pytest
from planier.common.v1.release_pb2 import (
    PURPOSE_ADMINISTRATION,
    PURPOSE_CROSSING,
    PURPOSE_OVERSIGHT,
    PURPOSE_SITUATION,
    PURPOSE_TENSION,
    PURPOSE_UNSPECIFIED,
    Purpose,
)

from services.access.instruments import Instrument, Terms
from services.access.purposes import (
    ON_FACTS,
    ON_SYSTEM,
    REFUSED_BY_NAME,
    WITHIN,
    Standing,
    faults,
    inherited,
    is_within,
    standing,
)
from services.kernel.guard.admission import PERMITTED_PURPOSES

INTELLIGENCE = Purpose.PURPOSE_REFUSED_INTELLIGENCE
SOME = frozenset({PURPOSE_SITUATION, PURPOSE_CROSSING})


def test_the_vocabulary_is_the_contract_s_and_the_guard_admits_the_same() -> None:
    assert frozenset({PURPOSE_SITUATION, PURPOSE_CROSSING, PURPOSE_TENSION}) == ON_FACTS
    assert frozenset({PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT}) == ON_SYSTEM
    assert ON_FACTS | ON_SYSTEM == WITHIN.keys() == PERMITTED_PURPOSES
    assert {Purpose.Name(one) for one in REFUSED_BY_NAME} == {one for one in Purpose.keys() if "REFUSED" in one}  # noqa: SIM118 -- the enum is no mapping


def test_tension_is_broader_than_crossing_and_crossing_than_the_situation() -> None:
    assert is_within(PURPOSE_SITUATION, PURPOSE_CROSSING)
    assert is_within(PURPOSE_CROSSING, PURPOSE_TENSION)
    assert not is_within(PURPOSE_CROSSING, PURPOSE_SITUATION)
    assert not is_within(PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)
    assert not is_within(INTELLIGENCE, INTELLIGENCE)


@pytest.mark.parametrize(
    ("purpose", "permitted", "expected"),
    [
        (PURPOSE_CROSSING, SOME, Standing.PERMITTED),
        (PURPOSE_UNSPECIFIED, SOME, Standing.MISSING),
        (99, SOME, Standing.UNKNOWN),
        (INTELLIGENCE, SOME, Standing.REFUSED),
        # A text that names them does not permit them either.
        (INTELLIGENCE, frozenset({INTELLIGENCE}), Standing.REFUSED),
        (PURPOSE_UNSPECIFIED, frozenset({PURPOSE_UNSPECIFIED}), Standing.MISSING),
        (99, frozenset({99}), Standing.UNKNOWN),
        (PURPOSE_TENSION, SOME, Standing.BROADER),
        (PURPOSE_TENSION, SOME | {PURPOSE_ADMINISTRATION}, Standing.BROADER),
        # Narrower than what is named, and not named itself.
        (PURPOSE_SITUATION, frozenset({PURPOSE_CROSSING}), Standing.OTHER),
        (PURPOSE_CROSSING, frozenset({PURPOSE_SITUATION, PURPOSE_TENSION}), Standing.OTHER),
        (PURPOSE_OVERSIGHT, SOME, Standing.OTHER),
        (PURPOSE_SITUATION, frozenset(), Standing.OTHER),
    ],
)
def test_one_purpose_beside_those_permitted(
    purpose: Purpose.ValueType, permitted: frozenset[Purpose.ValueType], expected: Standing
) -> None:
    assert standing(purpose, permitted) is expected


def test_faults_say_each_reason_once() -> None:
    assert faults(SOME, SOME) == ()
    assert faults((), SOME) == ("a purpose is needed",)
    asked = (PURPOSE_SITUATION, PURPOSE_TENSION, INTELLIGENCE, Purpose.PURPOSE_REFUSED_ENFORCEMENT)
    assert faults(asked, SOME) == ("is broader than what is permitted", "is refused by name")


def test_what_is_derived_inherits_the_most_restrictive_purposes() -> None:
    assert inherited([]) == frozenset()
    assert inherited([ON_FACTS, SOME]) == SOME
    assert inherited([ON_FACTS, SOME, frozenset({PURPOSE_TENSION})]) == frozenset()


def test_terms_know_what_sources_together_permit() -> None:
    wide = Instrument("city-rules", "1", frozenset({"works"}), ON_FACTS | ON_SYSTEM)
    narrow = Instrument("convention", "1", frozenset({"demonstrations", "visits"}), SOME)
    terms = Terms("1", "", (wide, narrow), ())
    assert terms.purposes_of(frozenset({"works"})) == ON_FACTS
    assert terms.purposes_of(frozenset({"works", "visits"})) == SOME
    assert terms.purposes_of(frozenset({"weather"})) == frozenset()
