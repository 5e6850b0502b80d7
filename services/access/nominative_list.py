"""The Préfecture's nominative list: who may be habilitated, under which version (art7.list, art7.validation). Pure.

A proposal has no effect; a version has it, once a validator of the Préfecture other than its proposer signed it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from planier.access.v1.events_pb2 import (
    PARTY_PREFECTURE,
    ROLE_PREFECTURE_USER,
    ROLE_PREFECTURE_VALIDATOR,
)
from planier.access.v1.list_events_pb2 import (
    ListChangeProposed,
    ListedPerson,
    ListedPersonRefused,
    ListedPersonResumed,
    ListedPersonSuspended,
    ListKeysAdopted,
    ListRefused,
    ListSignature,
    ListSubmitted,
    ListValidated,
    ListWithdrawn,
    NominativeList,
)

from services.access import list_version
from services.access.convention import Convention, Standing, State, in_force, office_of
from services.access.convention import standing_of as clearance_standing
from services.access.granting import granting_office
from services.access.instruments import YEARLY_REVIEW
from services.access.list_state import (
    ListEvent,
    Listing,
    ListStanding,
    Mark,
    Proposal,
    ProposalStanding,
    adopted_keys,
    listing_of,
    standing_of,
)
from services.access.list_version import VALIDATION, Entry, Version
from services.access.offices import GRANTING, Office
from services.access.people import Identity, Person, identity_message, named_alike
from services.access.term import review_due
from services.kernel.errors import Violation, conflict, denied, invalid, not_found, precondition

LIST = "art7.list"


@dataclass(frozen=True, slots=True)
class AdoptListKeys:
    """The Préfecture's own keys, signed by its key of the deed; again changes nothing."""

    keys: bytes
    signature: bytes
    record_id: str


@dataclass(frozen=True, slots=True)
class SubmitList:
    """A whole list."""

    actor: Identity
    proposal_id: str
    persons: tuple[ListedPerson, ...]
    expires_at: datetime
    record_id: str


@dataclass(frozen=True, slots=True)
class ProposeListChange:
    """Changes to the version in force; `expires_at` None keeps its expiry."""

    actor: Identity
    proposal_id: str
    changed: tuple[ListedPerson, ...]
    removed: frozenset[str]
    expires_at: datetime | None
    record_id: str


@dataclass(frozen=True, slots=True)
class ValidateList:
    """`list_hash`: SHA-256 of the list that the validator read."""

    actor: Identity
    proposal_id: str
    list_hash: bytes
    letter_hash: bytes
    signatures: tuple[ListSignature, ...]
    record_id: str


@dataclass(frozen=True, slots=True)
class RefuseList:
    """By a validator."""

    actor: Identity
    proposal_id: str
    reason: str
    record_id: str


@dataclass(frozen=True, slots=True)
class WithdrawList:
    """By the proposer."""

    actor: Identity
    proposal_id: str
    record_id: str


@dataclass(frozen=True, slots=True)
class RefuseListedPerson:
    """By the granting authority."""

    actor: Identity
    entry_id: str
    reason: str
    record_id: str


@dataclass(frozen=True, slots=True)
class SuspendListedPerson:
    """By either party, alone; again changes nothing."""

    actor: Identity
    entry_id: str
    reason: str
    record_id: str


@dataclass(frozen=True, slots=True)
class ResumeListedPerson:
    """By the party that suspended; again changes nothing."""

    actor: Identity
    entry_id: str
    record_id: str


ListCommand = (
    AdoptListKeys
    | SubmitList
    | ProposeListChange
    | ValidateList
    | RefuseList
    | WithdrawList
    | RefuseListedPerson
    | SuspendListedPerson
    | ResumeListedPerson
)


def require_listed(state: State, person: Person, at: datetime) -> None:
    """Raises Problem unless the list in force names the person: nobody else of the Préfecture can be habilitated."""
    listing = listing_of(state)
    require_reliable(listing, at)
    entry = listing.entry_of(person)
    if entry is None:
        raise precondition("NOT_LISTED", "the Préfecture's list in force does not name this person", LIST)
    mark = listing.marks.get(entry.entry_id, Mark())
    if mark.refused or mark.suspensions:
        raise precondition("LISTED_PERSON_BARRED", "this listed person was refused or suspended", VALIDATION)


def require_reliable(listing: Listing, at: datetime) -> None:
    """Raises Problem where there is no version in force, it is not verified, or it expired."""
    if listing.highest == 0:
        raise precondition("LIST_MISSING", "the Préfecture has no validated list", LIST)
    if listing.current is None or listing.current.number != listing.highest:
        raise precondition("LIST_UNVERIFIED", "the newest version of the list does not verify", VALIDATION)
    if at >= listing.current.expires_at:
        raise precondition("LIST_EXPIRED", "the list in force expired", VALIDATION)


def decide(state: State, command: ListCommand, at: datetime) -> tuple[ListEvent, ...]:
    """The events that a command causes at an instant: none where nothing changes. Raises Problem where it may not."""
    match command:
        case AdoptListKeys():
            return _adopt(state, command)
        case RefuseListedPerson():
            return _refuse_person(state, command, at)
        case SuspendListedPerson():
            return _suspend(state, command, at)
        case ResumeListedPerson():
            return _resume(state, command, at)
        case _:
            return _decide_version(state, command, at)


def _decide_version(
    state: State, command: SubmitList | ProposeListChange | ValidateList | RefuseList | WithdrawList, at: datetime
) -> tuple[ListEvent, ...]:
    match command:
        case SubmitList():
            return _submit(state, command, at)
        case ProposeListChange():
            return _propose(state, command, at)
        case ValidateList():
            return _validate(state, command, at)
        case RefuseList():
            return _refuse(state, command, at)
    return _withdraw(state, command)


def _adopt(state: State, command: AdoptListKeys) -> tuple[ListEvent, ...]:
    listing = listing_of(state)
    if command.keys == listing.keys.content:
        return ()
    adopted_keys(state, listing, command.keys, command.signature)
    return (ListKeysAdopted(keys=command.keys, signature=command.signature, record_id=command.record_id),)


def _submit(state: State, command: SubmitList, at: datetime) -> tuple[ListEvent, ...]:
    convention = in_force(state)
    _proposer(state, command.actor, at)
    content = _drafted(state, convention, command.proposal_id, command.persons, command.expires_at, at)
    if content is None:
        return ()
    return (
        ListSubmitted(
            proposal_id=command.proposal_id,
            list=content,
            proposed_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def _propose(state: State, command: ProposeListChange, at: datetime) -> tuple[ListEvent, ...]:
    convention = in_force(state)
    _proposer(state, command.actor, at)
    current = listing_of(state).current
    if current is None:
        raise precondition("LIST_MISSING", "there is no list to change; submit one", LIST)
    changed = {person.entry_id: person for person in command.changed}
    if len(changed) != len(command.changed) or changed.keys() & command.removed:
        raise invalid("LIST_INVALID", "a person is named twice", clause=LIST)
    if command.removed - current.entries.keys():
        raise not_found("ENTRY_UNKNOWN", "the list in force has no such entry")
    kept = {person.entry_id: person for person in NominativeList.FromString(current.content).persons}
    persons = tuple(person for entry_id, person in {**kept, **changed}.items() if entry_id not in command.removed)
    expires_at = command.expires_at or current.expires_at
    content = _drafted(state, convention, command.proposal_id, persons, expires_at, at)
    if content is None:
        return ()
    return (
        ListChangeProposed(
            proposal_id=command.proposal_id,
            changed=command.changed,
            removed=sorted(command.removed),
            list=content,
            proposed_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def _drafted(
    state: State,
    convention: Convention,
    proposal_id: str,
    persons: Iterable[ListedPerson],
    expires_at: datetime,
    at: datetime,
) -> bytes | None:
    """The bytes of the next version with these persons; None where the same proposal is known already."""
    _require_period(convention, expires_at, at)
    listing = listing_of(state)
    content = list_version.build(
        listing.highest + 1, listing.head_hash, convention.terms(at).version, expires_at, persons
    )
    known = listing.proposals.get(proposal_id)
    if known is None:
        return content
    if known.content == content:
        return None
    raise conflict("PROPOSAL_EXISTS", "this id names a proposal with other content")


def _require_period(convention: Convention, expires_at: datetime, at: datetime) -> None:
    if expires_at <= at:
        found = Violation("expires_at", "period", "is over already")
        raise invalid("LIST_INVALID", "the list's expiry is not one that it may have", found, clause=VALIDATION)
    # Where both parties signed that what is granted is looked at again each year, so is the list.
    if convention.house_since(YEARLY_REVIEW, at) is not None and expires_at > review_due(at, convention.zone):
        found = Violation("expires_at", YEARLY_REVIEW, "must be within one year from now")
        raise invalid("LIST_INVALID", "the list's expiry is not one that it may have", found, clause=YEARLY_REVIEW)


def _validate(state: State, command: ValidateList, at: datetime) -> tuple[ListEvent, ...]:
    convention = in_force(state)
    validator = _validator(state, command.actor, at)
    listing = listing_of(state)
    proposal = _proposal(listing, command.proposal_id)
    if proposal.standing is ProposalStanding.VALIDATED:
        return ()
    if proposal.proposed_by == command.actor or _is_person(state, proposal.proposed_by, validator.person, at):
        raise denied("OWN_PROPOSAL", "a validator other than the proposer signs", VALIDATION)
    _require_pending(listing, proposal)
    version = list_version.parse(proposal.content)
    if version.hash != command.list_hash:
        raise precondition("LIST_CHANGED", "the proposal holds another list than the one read", VALIDATION)
    if version.convention_version != convention.terms(at).version:
        raise precondition("LIST_OF_ANOTHER_CONVENTION", "the list names another version of the convention", VALIDATION)
    _require_period(convention, version.expires_at, at)
    if any(named_alike(validator.person, entry.person) for entry in _new_entries(listing, version)):
        raise denied("OWN_ENTRY", "nobody validates for themselves", VALIDATION)
    list_version.require_signed(proposal.content, command.letter_hash, command.signatures, listing.keys)
    return (
        ListValidated(
            proposal_id=command.proposal_id,
            list=proposal.content,
            validated_by=identity_message(command.actor),
            letter_hash=command.letter_hash,
            signatures=command.signatures,
            record_id=command.record_id,
        ),
    )


def _new_entries(listing: Listing, version: Version) -> Iterable[Entry]:
    known = listing.current.entries if listing.current else {}
    return (entry for entry_id, entry in version.entries.items() if known.get(entry_id) != entry)


def _refuse(state: State, command: RefuseList, at: datetime) -> tuple[ListEvent, ...]:
    _validator(state, command.actor, at)
    listing = listing_of(state)
    proposal = _proposal(listing, command.proposal_id)
    if proposal.standing is ProposalStanding.REFUSED:
        return ()
    _require_pending(listing, proposal)
    return (
        ListRefused(
            proposal_id=command.proposal_id,
            reason=command.reason,
            refused_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def _withdraw(state: State, command: WithdrawList) -> tuple[ListEvent, ...]:
    listing = listing_of(state)
    proposal = _proposal(listing, command.proposal_id)
    if proposal.proposed_by != command.actor:
        raise denied("NOT_PROPOSER", "only the proposer withdraws", VALIDATION)
    if proposal.standing is ProposalStanding.WITHDRAWN:
        return ()
    _require_pending(listing, proposal)
    event = ListWithdrawn(
        proposal_id=command.proposal_id, withdrawn_by=identity_message(command.actor), record_id=command.record_id
    )
    return (event,)


def _refuse_person(state: State, command: RefuseListedPerson, at: datetime) -> tuple[ListEvent, ...]:
    granting_office(state, command.actor, at)
    listing = listing_of(state)
    _entry(listing, command.entry_id)
    if listing.marks.get(command.entry_id, Mark()).refused:
        return ()
    event = ListedPersonRefused(
        entry_id=command.entry_id,
        reason=command.reason,
        refused_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def _suspend(state: State, command: SuspendListedPerson, at: datetime) -> tuple[ListEvent, ...]:
    office = _of_either_party(state, command.actor, at)
    listing = listing_of(state)
    _entry(listing, command.entry_id)
    if office.party in listing.marks.get(command.entry_id, Mark()).suspensions:
        return ()
    event = ListedPersonSuspended(
        entry_id=command.entry_id,
        party=office.party,
        reason=command.reason,
        suspended_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def _resume(state: State, command: ResumeListedPerson, at: datetime) -> tuple[ListEvent, ...]:
    office = _of_either_party(state, command.actor, at)
    listing = listing_of(state)
    entry = _entry(listing, command.entry_id)
    if named_alike(office.person, entry.person):
        raise denied("OWN_ENTRY", "nobody resumes themselves", VALIDATION)
    if office.party not in listing.marks.get(command.entry_id, Mark()).suspensions:
        return ()
    event = ListedPersonResumed(
        entry_id=command.entry_id,
        party=office.party,
        resumed_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def _proposer(state: State, actor: Identity, at: datetime) -> None:
    """Raises Problem unless the actor is of the Préfecture: a validator, or a user whom the list in force names."""
    office = office_of(state, actor, at)
    if office is not None and office.role == ROLE_PREFECTURE_VALIDATOR:
        return
    listing = listing_of(state)
    for clearance in (state.clearances[one] for one in state.bound.get(actor, ())):
        if (
            clearance.role == ROLE_PREFECTURE_USER
            and clearance_standing(state, clearance, at) is Standing.ACTIVE
            and clearance.content.valid_from <= at
            and listing.standing_of(clearance) is ListStanding.LISTED
        ):
            require_reliable(listing, at)
            return
    raise denied("NOT_OF_PREFECTURE", "only the Préfecture proposes its list", LIST)


def _validator(state: State, actor: Identity, at: datetime) -> Office:
    office = office_of(state, actor, at)
    if office is None or office.role != ROLE_PREFECTURE_VALIDATOR or office.party != PARTY_PREFECTURE:
        raise denied("NOT_PREFECTURE_VALIDATOR", "only the Préfecture's validator may", VALIDATION)
    return office


def _of_either_party(state: State, actor: Identity, at: datetime) -> Office:
    office = office_of(state, actor, at)
    if office is None or office.role not in (*GRANTING, ROLE_PREFECTURE_VALIDATOR):
        raise denied("NOT_OF_EITHER_PARTY", "the granting authority or the Préfecture's validator may", VALIDATION)
    return granting_office(state, actor, at) if office.role in GRANTING else office


def _proposal(listing: Listing, proposal_id: str) -> Proposal:
    proposal = listing.proposals.get(proposal_id)
    if proposal is None:
        raise not_found("PROPOSAL_UNKNOWN", "no such proposal")
    return proposal


def _require_pending(listing: Listing, proposal: Proposal) -> None:
    if standing_of(listing, proposal) is ProposalStanding.OVERTAKEN:
        raise precondition("LIST_ROLLBACK", "another version came into force since this one was proposed", VALIDATION)
    if proposal.standing is not ProposalStanding.PENDING:
        raise precondition("PROPOSAL_CLOSED", "this proposal was decided already", VALIDATION)


def _entry(listing: Listing, entry_id: str) -> Entry:
    entry = listing.current.entries.get(entry_id) if listing.current else None
    if entry is None:
        raise not_found("ENTRY_UNKNOWN", "the list in force has no such entry")
    return entry


def _is_person(state: State, identity: Identity, person: Person, at: datetime) -> bool:
    """Whether an identity bears the name of a person, by its office or a clearance."""
    office = office_of(state, identity, at)
    named = [office.person] if office else []
    named += [state.clearances[one].person for one in state.bound.get(identity, ())]
    return any(named_alike(person, one) for one in named)
