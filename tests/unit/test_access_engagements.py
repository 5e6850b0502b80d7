"""Providers' engagements, one test a deny path: nothing beyond them, and nothing more to whoever owes a certificate."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.access.v1.engagement_events_pb2 import ENGAGEMENT_END_BREACH
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION, PURPOSE_TENSION

from services.access import engagements
from services.access.convention import Identity, Person, State, in_force
from services.access.domain import Command, decide
from services.access.engagements import CertifyDestruction, EngagementStanding, Provider
from services.kernel.errors import Problem
from tests.fixtures import access, refusals
from tests.fixtures.access import applied
from tests.fixtures.engagements import (
    ENGAGEMENT,
    PROVIDER,
    RECIPIENT,
    SUBCONTRACTOR,
    certify_command,
    end_command,
    hand_over_command,
    open_command,
)

NOW = access.NOW
OTHER = str(UUID(int=502))
DAY = timedelta(days=1)


def refused(state: State, command: Command, at: datetime = NOW) -> tuple[str, str]:
    problem = refusals.refused(state, command, at)
    assert RECIPIENT.person.usual_name not in f"{problem} {problem.violations}"
    return problem.reason, problem.clause


def opened() -> State:
    return applied(access.founded(), open_command())


def standing(state: State, at: datetime, engagement_id: str = ENGAGEMENT) -> EngagementStanding:
    return state.engagements[engagement_id].standing(in_force(state), at)


def test_an_engagement_goes_from_its_plan_to_its_certificate() -> None:
    state = applied(access.founded(), open_command(valid_from=NOW + DAY))
    assert standing(state, NOW) is EngagementStanding.PLANNED
    assert standing(state, NOW + DAY) is EngagementStanding.UNDER_WAY
    end = NOW + 30 * DAY
    assert standing(state, end) is EngagementStanding.DESTRUCTION_DUE
    state = applied(state, certify_command(end + DAY), end + 2 * DAY)
    assert standing(state, end + 90 * DAY) is EngagementStanding.CLOSED
    assert state.engagements[ENGAGEMENT].document_hash


def test_the_certificate_is_due_within_local_days_of_the_end() -> None:
    # 31 March 2026 in Paris is summer time: the tenth day ends at 22:00 UTC.
    state = opened()
    due = datetime(2026, 4, 10, 22, tzinfo=UTC)
    assert state.engagements[ENGAGEMENT].certificate_due(in_force(state)) == due
    assert standing(state, due - timedelta(microseconds=1)) is EngagementStanding.DESTRUCTION_DUE
    assert standing(state, due) is EngagementStanding.OVERDUE
    assert [one.engagement_id for one in engagements.overdue(state, due)] == [ENGAGEMENT]
    assert not engagements.overdue(state, due - timedelta(microseconds=1))
    assert not engagements.overdue(State(), due)


def test_any_cause_ends_it_and_a_second_end_changes_nothing() -> None:
    state = applied(opened(), end_command(cause=ENGAGEMENT_END_BREACH), NOW + DAY)
    assert standing(state, NOW + DAY) is EngagementStanding.DESTRUCTION_DUE
    assert not decide(state, end_command(), NOW + 2 * DAY)
    assert not decide(opened(), end_command(), NOW + 30 * DAY)


def test_the_end_of_the_convention_ends_what_covers_its_data_only() -> None:
    ends = in_force(access.founded()).ends_at
    assert ends is not None
    far: dict[str, Any] = {"valid_until": ends + 400 * DAY}
    state = applied(access.founded(), open_command(**far))
    state = applied(state, open_command(OTHER, sources=frozenset({"works"}), **far))
    assert standing(state, ends) is EngagementStanding.DESTRUCTION_DUE
    assert standing(state, ends, OTHER) is EngagementStanding.UNDER_WAY


@pytest.mark.parametrize("actor", [access.VALIDATOR, access.CITY_USER, access.AUDITOR, access.STRANGER])
def test_only_the_granting_authority_acts_on_engagements(actor: Identity) -> None:
    state = opened()
    acts: tuple[Command, ...] = (
        open_command(OTHER, actor),
        end_command(actor=actor),
        hand_over_command(actor=actor),
        certify_command(NOW, actor=actor),
    )
    for act in acts:
        assert refused(state, act) == ("NOT_GRANTING_AUTHORITY", "art6.habilitation")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"provider": Provider("12345678901234", "X")}, "provider.siret"),
        ({"subcontractors": (Provider("12345678901234", "X"),)}, "provider.siret"),
        ({"subcontractors": (PROVIDER,)}, "subcontractors"),
        ({"purposes": frozenset()}, "purposes"),
        ({"purposes": frozenset({PURPOSE_SITUATION, PURPOSE_OVERSIGHT})}, "purposes"),
        (
            {"purposes": frozenset({PURPOSE_TENSION})},
            "purposes",
        ),  # one of its two texts does not permit it
        ({"sources": frozenset()}, "sources"),
        ({"sources": frozenset({"weather"})}, "sources"),
        ({"valid_until": NOW}, "valid_until"),
        ({"valid_from": NOW - 3 * DAY, "valid_until": NOW - DAY}, "valid_until"),
        ({"destruction_days": 0}, "destruction_days"),
        ({"certificate_key": b"short"}, "certificate_key"),
        ({"persons": ()}, "persons"),
        ({"persons": (RECIPIENT, RECIPIENT)}, "persons"),
        ({"persons": (replace(RECIPIENT, person=Person("", "X")),)}, "persons.person"),
        ({"persons": (replace(RECIPIENT, siret="13000548100010"),)}, "persons.siret"),
    ],
)
def test_an_engagement_bounds_persons_data_purposes_and_dates(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as problem:
        decide(access.founded(), open_command(**changes), NOW)
    assert (problem.value.reason, problem.value.clause) == ("ENGAGEMENT_INVALID", "art8.provider")
    assert field in [violation.field for violation in problem.value.violations]


def test_the_same_opening_again_changes_nothing_and_another_of_its_id_is_refused() -> None:
    assert not decide(opened(), open_command(), NOW)
    assert refused(opened(), open_command(destruction_days=11))[0] == "ENGAGEMENT_EXISTS"


def test_there_is_no_engagement_without_a_convention_nor_an_act_on_one_that_is_not() -> None:
    assert refused(State(), open_command()) == ("CONVENTION_NOT_SIGNED", "art2.documents")
    for act in (end_command(OTHER), hand_over_command(OTHER), certify_command(NOW, OTHER)):
        assert refused(opened(), act)[0] == "ENGAGEMENT_UNKNOWN"


def test_a_hand_over_stays_within_its_engagement() -> None:
    state = applied(opened(), hand_over_command())
    assert set(state.engagements[ENGAGEMENT].hand_overs) == {str(UUID(int=600))}
    assert not decide(state, hand_over_command(), NOW)
    wider = hand_over_command(number=601, sources=frozenset({"markets"}))
    assert refused(state, wider) == ("BEYOND_THE_ENGAGEMENT", "art8.provider")
    nothing = hand_over_command(number=601, sources=frozenset())
    assert refused(state, nothing) == ("BEYOND_THE_ENGAGEMENT", "art8.provider")
    somebody = hand_over_command(number=601, person_id=OTHER)
    assert refused(state, somebody) == ("NOT_A_RECIPIENT", "art8.provider")
    assert refused(state, hand_over_command(sources=frozenset({"demonstrations"})))[0] == "HAND_OVER_EXISTS"
    with pytest.raises(Problem, match="NOT_A_RECIPIENT"):
        engagements.require_recipient(state, ENGAGEMENT, Person("Paule", "Autre"), NOW)


@pytest.mark.parametrize("at", [NOW - DAY, NOW + 30 * DAY, NOW + 100 * DAY])
def test_nothing_is_handed_over_outside_its_dates(at: datetime) -> None:
    assert refused(opened(), hand_over_command(), at) == ("ENGAGEMENT_NOT_UNDER_WAY", "art8.provider")


@pytest.mark.parametrize(
    "involved",
    [
        {"provider": PROVIDER, "subcontractors": ()},
        {"provider": SUBCONTRACTOR, "subcontractors": (), "persons": (replace(RECIPIENT, siret=SUBCONTRACTOR.siret),)},
        {
            "provider": Provider("13000548100010", "Autre"),
            "subcontractors": (PROVIDER,),
            "persons": (replace(RECIPIENT, siret="13000548100010"),),
        },
    ],
)
def test_whoever_owes_a_late_certificate_is_engaged_and_handed_nothing(involved: dict[str, Any]) -> None:
    late = NOW + 60 * DAY
    running = open_command(OTHER, valid_until=NOW + 90 * DAY, **involved)
    state = applied(opened(), running)
    expected = ("DESTRUCTION_OVERDUE", "art8.destruction")
    assert refused(state, hand_over_command(OTHER), late) == expected
    again = open_command(str(UUID(int=503)), valid_until=NOW + 90 * DAY, **involved)
    assert refused(state, again, late) == expected
    state = applied(state, certify_command(late), late)
    assert decide(state, hand_over_command(OTHER), late)
    assert decide(state, again, late)


def test_an_overdue_provider_stops_nobody_else() -> None:
    other = Provider("13000548100010", "Autre")
    command = open_command(
        OTHER,
        provider=other,
        subcontractors=(),
        persons=(replace(RECIPIENT, siret=other.siret),),
        valid_until=NOW + 90 * DAY,
    )
    assert decide(opened(), command, NOW + 60 * DAY)


END = NOW + 30 * DAY


@pytest.mark.parametrize(
    "command",
    [
        certify_command(END, key=Ed25519PrivateKey.from_private_bytes(b"w" * 32)),
        certify_command(END, of=OTHER),
        certify_command(END, document_hash=b"short"),
        certify_command(END, covers=(PROVIDER.siret,)),
        CertifyDestruction(access.DGA, ENGAGEMENT, b"\xff", b"x" * 64, "record"),
        replace(certify_command(END), signature=certify_command(END + DAY).signature),
    ],
)
def test_only_the_providers_certificate_for_everybody_closes_it(command: CertifyDestruction) -> None:
    assert refused(opened(), command, END + DAY) == ("CERTIFICATE_INVALID", "art8.destruction")


def test_a_certificate_follows_the_end_and_the_destruction() -> None:
    assert refused(opened(), certify_command(NOW), NOW + DAY) == ("ENGAGEMENT_UNDER_WAY", "art8.destruction")
    for destroyed in (END - DAY, END + 2 * DAY):
        assert refused(opened(), certify_command(destroyed), END + DAY) == ("CERTIFICATE_DATE", "art8.destruction")


def test_a_second_certificate_changes_nothing() -> None:
    state = applied(opened(), certify_command(END), END + DAY)
    assert not decide(state, certify_command(END + DAY), END + 3 * DAY)
