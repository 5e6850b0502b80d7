"""The purposes are partially ordered, and whatever the texts permit, what is derived stays within each of them."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import Purpose

from services.access.convention import State
from services.access.decisions import Decider
from services.access.policy import Policy
from services.access.purposes import ON_FACTS, WITHIN, Standing, inherited, is_within, standing
from tests.fixtures import access

KNOWN = st.sampled_from(sorted(WITHIN))
ANY = st.sampled_from([*sorted(Purpose.values()), 99])
TEXTS = st.frozensets(st.sampled_from(sorted(ON_FACTS)), min_size=1)
POLICY = Policy.load()


@given(KNOWN, KNOWN, KNOWN)
def test_the_order_is_reflexive_antisymmetric_and_transitive(
    first: Purpose.ValueType, second: Purpose.ValueType, third: Purpose.ValueType
) -> None:
    assert is_within(first, first)
    assert first == second or not (is_within(first, second) and is_within(second, first))
    assert is_within(first, third) or not (is_within(first, second) and is_within(second, third))


@cache
def decider(convention: frozenset[Purpose.ValueType], city: frozenset[Purpose.ValueType]) -> Decider:
    """Decisions under two texts that permit these purposes, and a City user whose clearance has all of these."""
    first, second = access.description()["instruments"]
    texts = [
        {**text, "purposes": [Purpose.Name(one) for one in sorted(permitted)]}
        for text, permitted in ((first, convention), (second, city))
    ]
    state = access.applied(State(), access.sign_command(access.deed({"instruments": texts})))
    grant = access.grant_command(purposes=convention | city)
    return Decider(POLICY, access.bound(state, grant, access.CITY_USER, access.DGA, access.NOW))


@settings(deadline=None)
@given(TEXTS, TEXTS, ANY)
def test_a_look_is_limited_to_the_texts_that_permit_its_purpose(
    convention: frozenset[Purpose.ValueType], city: frozenset[Purpose.ValueType], purpose: Purpose.ValueType
) -> None:
    item = access.check_item(access.CITY_USER, OPERATION_CONSULT, "facts", purpose)
    verdict = decider(convention, city).decide(item)
    texts = {"convention": convention, "city-rules": city}
    permitted = {one.instrument.instrument_id for one in verdict.instruments if one.permit}
    assert permitted == {name for name, text in texts.items() if standing(purpose, text) is Standing.PERMITTED}
    assert verdict.permit == bool(permitted)
    if permitted:
        assert purpose in inherited(texts[name] for name in permitted)
    else:
        assert "art6.purpose" in verdict.clauses or purpose == 99
