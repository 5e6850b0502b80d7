"""The nominative list, one test a deny path: what has no effect, who may not, which version is not relied on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.access.v1.access_pb2 import CheckVerdict
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_PREFECTURE_USER
from planier.access.v1.list_events_pb2 import ListedPerson, ListKeysAdopted, ListValidated, NominativeList
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access import list_version, nominative_list
from services.access.convention import State
from services.access.decisions import Decider
from services.access.deed import raw_public_key
from services.access.domain import Command, decide, evolve, stream_of
from services.access.list_state import ListStanding, ProposalStanding, listing_of, standing_of
from services.access.nominative_list import (
    AdoptListKeys,
    ProposeListChange,
    RefuseList,
    RefuseListedPerson,
    ResumeListedPerson,
    SuspendListedPerson,
    WithdrawList,
)
from services.access.people import Identity, Person, identity_message
from services.access.policy import Policy
from services.kernel.errors import Problem
from tests.fixtures import access, refusals
from tests.fixtures.access import applied, listed_person, submit_command, validate_command
from tests.fixtures.engagements import ENGAGEMENT, open_command

POLICY = Policy.load()
USER = access.PREFECTURE_PERSON
ENTRY = listed_person(USER)
OTHER = listed_person(Person("Jeanne", "Second", "État-major"))
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]


def refused(state: State, command: Command, at_days: int = 0) -> tuple[str, str]:
    problem = refusals.refused(state, command, access.NOW + timedelta(days=at_days))
    assert USER.usual_name not in f"{problem} {problem.violations}"
    return problem.reason, problem.clause


def verdict(state: State, at_days: int = 0) -> CheckVerdict:
    at = access.NOW + timedelta(days=at_days)
    return Decider(POLICY, state).decide(access.check_item(access.PREFECTURE_USER, purpose=PURPOSE_SITUATION, at=at))


def submitted(state: State, *persons: ListedPerson, actor: Identity = access.VALIDATOR) -> tuple[State, str, bytes]:
    """The state with a proposal, its id and the hash of its list."""
    command = submit_command(*persons, actor=actor)
    state = applied(state, command)
    return state, command.proposal_id, listing_of(state).proposals[command.proposal_id].hash


def change(*changed: ListedPerson, removed: tuple[str, ...] = (), actor: Identity = access.VALIDATOR) -> Command:
    return ProposeListChange(actor, str(uuid4()), changed, frozenset(removed), None, "record")


def suspend(actor: Identity, entry_id: str = ENTRY.entry_id) -> SuspendListedPerson:
    return SuspendListedPerson(actor, entry_id, "en attente", "record")


def test_a_proposal_has_no_effect_and_a_validated_version_has_it_at_once() -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    assert verdict(state).permit
    state = applied(state, validate_command(proposal_id, list_hash))
    denied = verdict(state)
    assert (denied.permit, list(denied.clauses)) == (False, ["art7.list"])
    assert denied.instruments[0].reason_admin == "liste nominative : personne sortie de la liste"
    assert all(decision.reason_user for decision in denied.instruments)


def test_who_left_the_list_and_came_back_needs_a_clearance_anew() -> None:
    state = access.listed(access.populated(), OTHER)
    state = access.listed(state, ENTRY)
    assert not verdict(state).permit
    clearance = state.clearances[access.PREFECTURE_CLEARANCE]
    assert listing_of(state).standing_of(clearance) is ListStanding.LEFT
    granted = access.grant_command(person=USER, party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER)
    assert decide(state, granted, access.NOW)


def test_a_change_keeps_those_whom_it_does_not_name() -> None:
    command = change(OTHER)
    state = applied(access.populated(), command)
    (proposal,) = [one for one in listing_of(state).proposals.values() if one.number == 2]
    state = applied(state, validate_command(proposal.proposal_id, proposal.hash))
    assert verdict(state).permit
    current = listing_of(state).current
    assert current is not None
    assert set(current.entries) == {ENTRY.entry_id, OTHER.entry_id}


@pytest.mark.parametrize("actor", [access.DGA, access.CITY_USER, access.AUDITOR, access.STRANGER])
def test_only_the_prefecture_proposes(actor: Identity) -> None:
    assert refused(access.populated(), submit_command(OTHER, actor=actor)) == ("NOT_OF_PREFECTURE", "art7.list")
    assert refused(access.populated(), change(OTHER, actor=actor)) == ("NOT_OF_PREFECTURE", "art7.list")


def test_a_listed_user_proposes_and_a_suspended_one_does_not() -> None:
    state = access.populated()
    assert decide(state, change(OTHER, actor=access.PREFECTURE_USER), access.NOW)
    state = applied(state, suspend(access.DGA))
    assert refused(state, change(OTHER, actor=access.PREFECTURE_USER)) == ("NOT_OF_PREFECTURE", "art7.list")


@pytest.mark.parametrize("actor", [access.DGA, access.CITY_USER, access.PREFECTURE_USER, access.STRANGER])
def test_only_a_validator_of_the_prefecture_validates_or_refuses(actor: Identity) -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    expected = ("NOT_PREFECTURE_VALIDATOR", "art7.validation")
    assert refused(state, validate_command(proposal_id, list_hash, actor=actor)) == expected
    assert refused(state, RefuseList(actor, proposal_id, "non", "record")) == expected


def test_nobody_validates_what_they_proposed() -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    command = validate_command(proposal_id, list_hash, actor=access.VALIDATOR)
    assert refused(state, command) == ("OWN_PROPOSAL", "art7.validation")


def test_nobody_validates_the_entry_that_names_them() -> None:
    entry = listed_person(replace(access.SECOND_VALIDATOR_PERSON, service="Autre service"))
    state, proposal_id, list_hash = submitted(access.populated(), ENTRY, entry)
    assert refused(state, validate_command(proposal_id, list_hash)) == ("OWN_ENTRY", "art7.validation")


def test_a_validator_signs_the_list_that_they_read() -> None:
    state, proposal_id, _ = submitted(access.populated(), OTHER)
    assert refused(state, validate_command(proposal_id, b"x" * 32)) == ("LIST_CHANGED", "art7.validation")


def test_a_version_without_its_letter_is_not_signed() -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    command = validate_command(proposal_id, list_hash, letter_hash=b"")
    assert refused(state, command) == ("LIST_LETTER_MISSING", "art7.validation")


def test_an_older_proposal_does_not_roll_the_list_back() -> None:
    state, older, older_hash = submitted(access.populated(), ENTRY, OTHER)
    state = access.listed(state, OTHER)
    assert refused(state, validate_command(older, older_hash)) == ("LIST_ROLLBACK", "art7.validation")
    proposal = listing_of(state).proposals[older]
    assert standing_of(listing_of(state), proposal) is ProposalStanding.OVERTAKEN


def test_a_list_that_expired_lets_nobody_in_nor_be_cleared() -> None:
    state = access.listed(access.populated(), ENTRY, expires_at=access.NOW + timedelta(days=50))
    assert verdict(state, 49).permit
    denied = verdict(state, 50)
    assert list(denied.clauses) == ["art7.validation"]
    assert denied.instruments[0].reason_admin == "liste nominative échue"
    command = access.grant_command(person=USER, party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER)
    assert refused(state, command, 50) == ("LIST_EXPIRED", "art7.validation")


@pytest.mark.parametrize("days", [-1, 0])
def test_a_list_is_not_over_when_it_is_proposed(days: int) -> None:
    command = submit_command(OTHER, expires_at=access.NOW + timedelta(days=days))
    assert refused(access.populated(), command) == ("LIST_INVALID", "art7.validation")


def test_a_list_expires_within_a_year_where_both_parties_signed_the_yearly_review() -> None:
    command = submit_command(OTHER, expires_at=access.NOW + timedelta(days=366))
    assert decide(access.populated(), command, access.NOW)
    state = applied(access.populated(), access.house_rules("house.yearly_review"))
    assert refused(state, command) == ("LIST_INVALID", "house.yearly_review")
    assert decide(state, replace(command, expires_at=access.NOW + timedelta(days=365)), access.NOW)


def test_nobody_off_the_list_is_cleared() -> None:
    command = access.grant_command(
        person=Person("Jeanne", "Absente", "X"), party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER
    )
    assert refused(access.populated(), command) == ("NOT_LISTED", "art7.list")
    assert refused(access.founded(), command) == ("LIST_MISSING", "art7.list")


def test_a_refused_person_is_not_cleared_until_their_entry_changes() -> None:
    state = applied(access.populated(), RefuseListedPerson(access.DGA, ENTRY.entry_id, "hors périmètre", "record"))
    assert listing_of(state).marks[ENTRY.entry_id].refused == "hors périmètre"
    assert list(verdict(state).clauses) == ["art7.list"]
    command = access.grant_command(person=USER, party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER)
    assert refused(state, command) == ("LISTED_PERSON_BARRED", "art7.validation")
    assert not decide(state, RefuseListedPerson(access.DGA, ENTRY.entry_id, "encore", "record"), access.NOW)
    changed = listed_person(USER, ENTRY.entry_id, "Renseignement territorial")
    assert decide(access.listed(state, changed), command, access.NOW)


@pytest.mark.parametrize("actor", [access.VALIDATOR, access.CITY_USER, access.AUDITOR])
def test_only_the_granting_authority_refuses_a_listed_person(actor: Identity) -> None:
    command = RefuseListedPerson(actor, ENTRY.entry_id, "non", "record")
    assert refused(access.populated(), command) == ("NOT_GRANTING_AUTHORITY", "art6.habilitation")


@pytest.mark.parametrize(("actor", "party"), [(access.DGA, PARTY_CITY), (access.VALIDATOR, PARTY_PREFECTURE)])
def test_either_party_suspends_alone_and_lifts_only_its_own(actor: Identity, party: int) -> None:
    state = applied(access.populated(), suspend(actor))
    assert list(verdict(state).clauses) == ["art7.validation"]
    assert not decide(state, suspend(actor), access.NOW)
    (other,) = {access.DGA, access.VALIDATOR} - {actor}
    assert not decide(state, ResumeListedPerson(other, ENTRY.entry_id, "record"), access.NOW)
    state = applied(state, suspend(other))
    state = applied(state, ResumeListedPerson(actor, ENTRY.entry_id, "record"))
    assert not verdict(state).permit
    assert party not in listing_of(state).marks[ENTRY.entry_id].suspensions
    state = applied(state, ResumeListedPerson(other, ENTRY.entry_id, "record"))
    assert verdict(state).permit


@pytest.mark.parametrize("actor", [access.AUDITOR, access.CITY_USER, access.PREFECTURE_USER])
def test_nobody_else_suspends_or_resumes(actor: Identity) -> None:
    expected = ("NOT_OF_EITHER_PARTY", "art7.validation")
    assert refused(access.populated(), suspend(actor)) == expected
    assert refused(access.populated(), ResumeListedPerson(actor, ENTRY.entry_id, "record")) == expected


def test_a_suspension_outlives_the_next_version() -> None:
    state = access.listed(applied(access.populated(), suspend(access.DGA)), ENTRY, OTHER)
    assert list(verdict(state).clauses) == ["art7.validation"]


def test_nobody_resumes_themselves() -> None:
    entry = listed_person(access.VALIDATOR_PERSON)
    state = applied(access.listed(access.populated(), ENTRY, entry), suspend(access.SECOND_VALIDATOR, entry.entry_id))
    command = ResumeListedPerson(access.VALIDATOR, entry.entry_id, "record")
    assert refused(state, command) == ("OWN_ENTRY", "art7.validation")


def test_only_the_proposer_withdraws_and_a_closed_proposal_stays_closed() -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    other = WithdrawList(access.SECOND_VALIDATOR, proposal_id, "record")
    assert refused(state, other) == ("NOT_PROPOSER", "art7.validation")
    withdrawn = applied(state, WithdrawList(access.VALIDATOR, proposal_id, "record"))
    closed = applied(state, RefuseList(access.SECOND_VALIDATOR, proposal_id, "incomplète", "record"))
    assert listing_of(closed).proposals[proposal_id].reason == "incomplète"
    for ended in (withdrawn, closed):
        assert refused(ended, validate_command(proposal_id, list_hash)) == ("PROPOSAL_CLOSED", "art7.validation")
    assert not decide(withdrawn, WithdrawList(access.VALIDATOR, proposal_id, "record"), access.NOW)
    assert not decide(closed, RefuseList(access.VALIDATOR, proposal_id, "encore", "record"), access.NOW)


UNKNOWN = str(UUID(int=77))


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (validate_command(UNKNOWN, b"x" * 32), "PROPOSAL_UNKNOWN"),
        (suspend(access.DGA, UNKNOWN), "ENTRY_UNKNOWN"),
        (change(removed=(UNKNOWN,)), "ENTRY_UNKNOWN"),
        (change(OTHER, OTHER), "LIST_INVALID"),
        (change(ENTRY, removed=(ENTRY.entry_id,)), "LIST_INVALID"),
    ],
)
def test_what_is_not_there_is_not_changed(command: Command, reason: str) -> None:
    assert refused(access.populated(), command)[0] == reason


def test_there_is_nothing_to_change_before_the_first_list() -> None:
    assert refused(access.founded(), change(OTHER)) == ("LIST_MISSING", "art7.list")
    assert refused(State(), AdoptListKeys(b"x", b"", "record")) == ("CONVENTION_NOT_SIGNED", "art2.documents")
    assert refused(State(), submit_command(OTHER)) == ("CONVENTION_NOT_SIGNED", "art2.documents")


@pytest.mark.parametrize(
    "persons",
    [
        (listed_person(Person("", "Sans-Prénom", "X")),),
        (listed_person(Person("Jeanne", "-", "X")),),
        (listed_person(Person("Jeanne", "Sans-Service", "")),),
        (listed_person(USER, directorate=" "),),
        (ENTRY, ENTRY),
        (ENTRY, listed_person(Person("marc", "OEILLET", "direction de l-ordre public"), UNKNOWN)),
    ],
)
def test_a_list_names_each_person_once_with_service_and_directorate(persons: tuple[ListedPerson, ...]) -> None:
    assert refused(access.founded(), submit_command(*persons)) == ("LIST_INVALID", "art7.services")


def test_the_same_proposal_again_changes_nothing_and_another_of_its_id_is_refused() -> None:
    command = submit_command(OTHER)
    state = applied(access.founded(), command)
    assert not decide(state, command, access.NOW)
    assert refused(state, replace(command, persons=(ENTRY,)))[0] == "PROPOSAL_EXISTS"
    proposal = listing_of(state).proposals[command.proposal_id]
    validation = validate_command(command.proposal_id, proposal.hash)
    assert not decide(applied(state, validation), validation, access.NOW)


def adopt(threshold: int = 2, version: int = 1, signer: Ed25519PrivateKey = access.PREFECTURE_KEY) -> AdoptListKeys:
    public = [raw_public_key(key.public_key()) for key in KEYS] if threshold else []
    content = list_version.keys_content(version, threshold, public)
    return AdoptListKeys(content, list_version.sign_keys(content, signer), "record")


def test_with_keys_of_its_own_so_many_of_them_sign() -> None:
    state = applied(access.populated(), adopt())
    state, proposal_id, list_hash = submitted(state, ENTRY, OTHER)
    content = listing_of(state).proposals[proposal_id].content
    first, second, other = (list_version.sign(content, key) for key in (*KEYS[:2], access.CITY_KEY))
    forged = list_version.sign(b"another list", KEYS[1])
    unsigned = validate_command(proposal_id, list_hash)
    for signatures in ((), (first,), (first, first), (first, other), (first, forged)):
        command = replace(unsigned, signatures=signatures)
        assert refused(state, command) == ("LIST_SIGNATURES_MISSING", "art7.validation")
    state = applied(state, replace(unsigned, signatures=(first, second), letter_hash=b""))
    assert verdict(state).permit


def test_keys_are_adopted_under_the_prefectures_key_of_the_deed_and_in_order() -> None:
    state = access.populated()
    expected = ("LIST_KEYS_INVALID", "art7.validation")
    assert refused(state, adopt(signer=access.CITY_KEY)) == expected
    assert refused(state, adopt(threshold=4)) == expected
    assert refused(state, AdoptListKeys(b"\xff", b"x" * 64, "record")) == expected
    assert refused(state, adopt(version=2)) == ("LIST_KEYS_ROLLBACK", "art7.validation")
    state = applied(state, adopt())
    assert not decide(state, adopt(), access.NOW)
    assert refused(state, adopt(threshold=1)) == ("LIST_KEYS_ROLLBACK", "art7.validation")
    state = applied(state, adopt(threshold=0, version=2))
    assert listing_of(state).keys.threshold == 0


def _rolled_back(event: ListValidated) -> None:
    message = NominativeList.FromString(event.list)
    message.version = 1
    event.list = message.SerializeToString(deterministic=True)


def _of_another_history(event: ListValidated) -> None:
    message = NominativeList.FromString(event.list)
    message.previous_hash = b"x" * 32
    event.list = message.SerializeToString(deterministic=True)


def _never_proposed(event: ListValidated) -> None:
    event.proposal_id = UNKNOWN


def _self_approved(event: ListValidated) -> None:
    event.validated_by.CopyFrom(identity_message(access.VALIDATOR))


def _without_letter(event: ListValidated) -> None:
    event.letter_hash = b""


def _no_list(event: ListValidated) -> None:
    event.list = b"\xff"


@pytest.mark.parametrize(
    "forge", [_rolled_back, _of_another_history, _never_proposed, _self_approved, _without_letter, _no_list]
)
def test_a_version_that_does_not_verify_when_loaded_leaves_none_to_rely_on(
    forge: Callable[[ListValidated], None],
) -> None:
    state, proposal_id, list_hash = submitted(access.populated(), ENTRY, OTHER)
    (event,) = decide(state, validate_command(proposal_id, list_hash), access.NOW)
    assert isinstance(event, ListValidated)
    forge(event)
    state = evolve(state, event, access.NOW)
    listing = listing_of(state)
    assert listing.fault
    assert (listing.highest, listing.current.number if listing.current else 0) == (2, 1)
    assert list(verdict(state).clauses) == ["art7.validation"]
    with pytest.raises(Problem, match="LIST_UNVERIFIED"):
        nominative_list.require_reliable(listing, access.NOW)
    # A next version, signed as it must be, stands on what verified.
    state = access.listed(state, ENTRY)
    assert verdict(state).permit


def test_keys_that_do_not_verify_when_loaded_leave_no_version_to_rely_on() -> None:
    (event,) = decide(access.populated(), adopt(), access.NOW)
    event.signature = b"x" * 64  # type: ignore[union-attr]
    assert not verdict(evolve(access.populated(), event, access.NOW)).permit


def test_a_version_that_rolls_the_list_back_is_not_relied_on_when_loaded() -> None:
    state, older, _ = submitted(access.populated(), ENTRY, OTHER)
    content = listing_of(state).proposals[older].content
    state = access.listed(state, OTHER)
    second = identity_message(access.SECOND_VALIDATOR)
    event = ListValidated(proposal_id=older, list=content, validated_by=second, letter_hash=access.LETTER_HASH)
    state = evolve(state, event, access.NOW)
    assert (listing_of(state).fault, listing_of(state).highest) == ("LIST_ROLLBACK", 3)
    assert not verdict(state).permit


def test_a_self_approval_is_not_relied_on_when_loaded() -> None:
    state, proposal_id, _ = submitted(access.populated(), ENTRY, OTHER)
    content = listing_of(state).proposals[proposal_id].content
    own = identity_message(access.VALIDATOR)
    event = ListValidated(proposal_id=proposal_id, list=content, validated_by=own, letter_hash=access.LETTER_HASH)
    assert listing_of(evolve(state, event, access.NOW)).fault == "OWN_PROPOSAL"


def test_keys_loaded_out_of_order_leave_no_version_to_rely_on() -> None:
    content = list_version.keys_content(3, 0, [])
    event = ListKeysAdopted(keys=content, signature=list_version.sign_keys(content, access.PREFECTURE_KEY))
    assert listing_of(evolve(access.populated(), event, access.NOW)).fault == "LIST_KEYS_ROLLBACK"


def test_only_canonical_bytes_are_a_version() -> None:
    good = list_version.build(1, b"", "2025-03", access.LIST_UNTIL, (ENTRY, OTHER))
    assert list_version.parse(good).content == good
    reordered = NominativeList.FromString(good)
    persons = list(reordered.persons)[::-1]
    del reordered.persons[:]
    reordered.persons.extend(persons)
    timeless = NominativeList.FromString(good)
    timeless.expires_at.seconds = 1 << 40
    for content in (reordered.SerializeToString(), timeless.SerializeToString(), b"\xff"):
        with pytest.raises(Problem, match="LIST_INVALID"):
            list_version.parse(content)


def test_keys_are_distinct_and_whole() -> None:
    for public in ([b"k" * 31], [b"k" * 32, b"k" * 32]):
        content = list_version.keys_content(1, 1, public)
        command = AdoptListKeys(content, list_version.sign_keys(content, access.PREFECTURE_KEY), "record")
        assert refused(access.populated(), command) == ("LIST_KEYS_INVALID", "art7.validation")


def test_a_list_of_another_version_of_the_convention_is_not_validated() -> None:
    state, proposal_id, list_hash = submitted(access.populated(), OTHER)
    state = applied(state, access.house_rules("house.delegate"))
    expected = ("LIST_OF_ANOTHER_CONVENTION", "art7.validation")
    assert refused(state, validate_command(proposal_id, list_hash)) == expected


def test_the_same_change_again_changes_nothing_and_a_mark_ends_with_its_entry() -> None:
    command = change(OTHER)
    state = applied(access.populated(), command)
    assert not decide(state, command, access.NOW)
    state = access.listed(applied(access.populated(), suspend(access.DGA)), OTHER)
    assert not listing_of(state).marks


def test_a_person_whom_no_list_ever_named_is_absent_from_it() -> None:
    clearance = access.populated().clearances[access.PREFECTURE_CLEARANCE]
    assert listing_of(State()).standing_of(clearance) is ListStanding.UNLISTED


def test_the_lists_events_share_a_stream_and_each_engagement_has_its_own() -> None:
    (event,) = decide(access.populated(), suspend(access.DGA), access.NOW)
    assert stream_of(event) == "nominative-list"
    (opened,) = decide(access.populated(), open_command(), access.NOW)
    assert stream_of(opened) == f"engagement-{ENGAGEMENT}"
