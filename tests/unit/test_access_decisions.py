"""What a verdict says beside permit or deny, and what it does when nothing is known."""

from datetime import timedelta

import pytest
from planier.access.v1.access_pb2 import CheckItem
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_CITY_USER, ROLE_PREFECTURE_VALIDATOR
from planier.common.v1.guard_pb2 import OPERATION_GOVERN
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_SITUATION

from services.access import decisions, view
from services.access.convention import Identity, State
from services.access.decisions import Decider
from services.access.policy import Policy
from tests.fixtures import access, access_states
from tests.fixtures.access import NOW, check_item

POLICY = Policy.load()


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider(POLICY, access.populated())


@pytest.mark.parametrize("who", [access.DGA, access.CITY_USER, access.CORTEGE])
def test_before_the_founding_everything_is_denied(who: Identity | str) -> None:
    verdict = Decider(POLICY, State()).decide(check_item(who, purpose=PURPOSE_SITUATION))
    assert (verdict.permit, list(verdict.clauses)) == (False, ["art2.documents"])


def test_a_verdict_bears_the_id_of_its_item(decider: Decider) -> None:
    items = [check_item(access.CITY_USER, purpose=PURPOSE_SITUATION) for _ in range(3)]
    assert [decider.decide(item).check_id for item in items] == [item.check_id for item in items]


def test_a_permit_names_title_party_role_organisation_and_versions(decider: Decider) -> None:
    verdict = decider.decide(check_item(access.CITY_USER, purpose=PURPOSE_SITUATION))
    assert verdict.clearance_id == access.CITY_CLEARANCE
    assert (verdict.party, verdict.role) == (PARTY_CITY, ROLE_CITY_USER)
    assert verdict.organisation == access.CITY_PERSON.service
    assert [d.instrument.version for d in verdict.instruments] == ["2025-03", "1"]
    assert list(verdict.clauses) == ["art6.habilitation", "art6.purpose", "art6.secure_access", "art9.term"]


def test_an_office_is_named_by_its_role(decider: Decider) -> None:
    verdict = decider.decide(check_item(access.VALIDATOR, OPERATION_GOVERN, "bindings", PURPOSE_ADMINISTRATION))
    assert verdict.permit
    assert verdict.clearance_id == "office:PREFECTURE_VALIDATOR"
    assert (verdict.party, verdict.role) == (PARTY_PREFECTURE, ROLE_PREFECTURE_VALIDATOR)


def test_no_verdict_names_a_person(decider: Decider) -> None:
    for who in (access.CITY_USER, access.DGA, access.PREFECTURE_USER, access.STRANGER):
        told = str(decider.decide(check_item(who, purpose=PURPOSE_SITUATION)))
        for person in (access.CITY_PERSON, access.DGA_PERSON, access.PREFECTURE_PERSON):
            assert person.usual_name not in told


def test_an_item_without_a_decision_time_is_denied(decider: Decider) -> None:
    item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)
    item.ClearField("decision_time")
    assert not decider.decide(item).permit


def test_an_item_without_a_subject_is_denied(decider: Decider) -> None:
    item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)
    item.ClearField("subject")
    assert not decider.decide(item).permit
    assert not decider.decide(CheckItem(check_id="x")).permit


def test_numbers_that_the_contract_does_not_know_are_denied(decider: Decider) -> None:
    item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)
    for field in ("operation", "purpose"):
        unknown = CheckItem()
        unknown.CopyFrom(item)
        setattr(unknown, field, 999)
        verdict = decider.decide(unknown)
        assert (verdict.permit, list(verdict.clauses)) == (False, ["default.deny"])


def test_a_certificate_beside_a_person_gives_the_person_nothing(decider: Decider) -> None:
    item = check_item(access.STRANGER, OPERATION_GOVERN, "declarations", sources=["demonstrations"])
    item.subject.certificate_identity = access.CORTEGE
    assert not decider.decide(item).permit


@pytest.mark.parametrize("name", ["", 'x", "y', "é\n", "a" * 5000])
def test_strange_names_are_denied_and_do_not_fail(decider: Decider, name: str) -> None:
    assert not decider.decide(check_item(Identity(name, name), resource=name, sources=[name])).permit
    assert not decider.decide(check_item(f"spiffe://{name}", resource="declarations")).permit


def test_memory_is_bounded_and_forgetting_changes_nothing(decider: Decider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_MEMORY", 3)
    small = Decider(POLICY, access.populated())
    for number in range(10):
        item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION, sources=["works", str(number)])
        assert small.decide(item) == decider.decide(item)
        assert len(small._memory) <= 3


def test_people_kept_ready_are_bounded_and_forgetting_changes_nothing(
    decider: Decider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_KEPT", 1)
    small = Decider(POLICY, access.populated())
    for who in (access.CITY_USER, access.PREFECTURE_USER, access.DGA, access.CITY_USER):
        item = check_item(who, purpose=PURPOSE_SITUATION)
        assert small.decide(item) == decider.decide(item)


def test_two_moments_of_one_interval_are_one_decision() -> None:
    fresh = Decider(POLICY, access.populated())
    for minutes in range(5):
        at = NOW + timedelta(minutes=minutes)
        fresh.decide(check_item(access.CITY_USER, purpose=PURPOSE_SITUATION, at=at))
    assert len(fresh._memory) == 1


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_799])
def test_an_item_without_a_real_instant_is_denied_alone(decider: Decider, seconds: int) -> None:
    item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)
    item.decision_time.seconds = seconds
    verdict = decider.decide(item)
    assert (verdict.permit, list(verdict.clauses), verdict.check_id) == (False, ["default.deny"], item.check_id)


@pytest.mark.parametrize("name", sorted(access_states.STATES))
def test_what_is_decided_together_is_what_is_decided_one_by_one(name: str) -> None:
    state = access_states.STATES[name]()
    items = [access_states.item_of(case) for _, case in access_states.cases()]
    timeless = access_states.item_of(access_states.cases()[0][1])
    timeless.decision_time.seconds = 1 << 40
    unknown = access_states.item_of(access_states.cases()[0][1])
    unknown.operation = 99  # type: ignore[assignment]
    items += [timeless, unknown]
    together, plain = Decider(POLICY, state), Decider(POLICY, state)
    one_by_one = [plain.decide(item) for item in items]
    assert together.decide_together(items) == one_by_one
    assert together.decide_together(items) == one_by_one, "and once they are remembered"


def test_what_was_decided_together_is_forgotten_where_it_would_be_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_MEMORY", 2)
    foreseeing = Decider(POLICY, access.populated())
    items = [check_item(who, purpose=PURPOSE_SITUATION) for who in (access.CITY_USER, access.PREFECTURE_USER)]
    for _ in range(2):
        assert all(verdict.permit for verdict in foreseeing.decide_together(items))


def test_a_refusal_of_the_first_of_several_titles_does_not_settle_it() -> None:
    state = access.bound(access.populated(), access.grant_command(sources=frozenset({"works"})), access.CITY_USER)
    item = check_item(access.CITY_USER, purpose=PURPOSE_SITUATION, sources=["weather", "works"])
    other = check_item(access.CITY_USER, purpose=PURPOSE_ADMINISTRATION, resource="clearances")
    together, plain = Decider(POLICY, state), Decider(POLICY, state)
    assert together.decide_together([item, other]) == [plain.decide(one) for one in (item, other)]


def test_nothing_is_decided_together_before_the_founding() -> None:
    item = access.check_item(access.CITY_USER)
    assert Decider(POLICY, State()).decide_together([item]) == [Decider(POLICY, State()).decide(item)]
