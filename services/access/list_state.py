"""The nominative list as its events left it. Verified here at each load, whoever wrote the events. Pure.

A version that does not follow from the one before it, or is not signed as it must be, leaves none to rely on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256

from google.protobuf.message import Message
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, Party
from planier.access.v1.list_events_pb2 import (
    ListChangeProposed,
    ListedPersonRefused,
    ListedPersonResumed,
    ListedPersonSuspended,
    ListKeysAdopted,
    ListRefused,
    ListSubmitted,
    ListValidated,
    ListWithdrawn,
    NominativeList,
)

from services.access import deed as deeds
from services.access import list_version
from services.access.clearances import Clearance, Content
from services.access.convention import State, in_force
from services.access.list_version import VALIDATION, Entry, Keys, Version, key_of
from services.access.people import Identity, Person, identity_of
from services.kernel.errors import Problem, precondition

STREAM = "nominative-list"
ListEvent = (
    ListKeysAdopted
    | ListSubmitted
    | ListChangeProposed
    | ListValidated
    | ListRefused
    | ListWithdrawn
    | ListedPersonRefused
    | ListedPersonSuspended
    | ListedPersonResumed
)
EVENTS: Mapping[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        ListKeysAdopted,
        ListSubmitted,
        ListChangeProposed,
        ListValidated,
        ListRefused,
        ListWithdrawn,
        ListedPersonRefused,
        ListedPersonSuspended,
        ListedPersonResumed,
    )
}


class ProposalStanding(Enum):
    """Where a proposal is in its life."""

    PENDING = 1
    VALIDATED = 2
    REFUSED = 3
    WITHDRAWN = 4
    OVERTAKEN = 5


class ListStanding(Enum):
    """What the list says of a clearance's person; the names are the policy's words."""

    LISTED = 1
    SUSPENDED = 2
    REFUSED = 3
    # Left the list since the clearance was granted: coming back needs a clearance anew.
    LEFT = 4
    UNLISTED = 5


@dataclass(frozen=True, slots=True)
class Proposal:
    """A list proposed, and what became of it."""

    proposal_id: str
    content: bytes = field(repr=False)
    number: int
    proposed_by: Identity
    standing: ProposalStanding = ProposalStanding.PENDING
    reason: str = ""

    @property
    def hash(self) -> bytes:
        """SHA-256 of the bytes, which a validator states to have read."""
        return sha256(self.content).digest()


@dataclass(frozen=True, slots=True)
class Mark:
    """What the parties said of a listed person: French reasons of a refusal and of each party's suspension."""

    refused: str = ""
    suspensions: Mapping[Party.ValueType, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """The verified state of the list. `current` is relied on only while its number is `highest`."""

    current: Version | None = None
    # The highest number that a version event ever bore, verified or not.
    highest: int = 0
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    # Clearances whose person left the list after their grant.
    left: frozenset[str] = frozenset()
    # Why the newest version is not relied on.
    fault: str = ""

    @property
    def head_hash(self) -> bytes:
        """What the next version must name as the previous one."""
        return self.current.hash if self.current else b""

    def standing_of(self, clearance: Clearance) -> ListStanding:
        """What the list says of a clearance's person; whether the list itself holds is another question."""
        if clearance.clearance_id in self.left:
            return ListStanding.LEFT
        entry = self.entry_of(clearance.person)
        if entry is None:
            return ListStanding.UNLISTED
        mark = self.marks.get(entry.entry_id, Mark())
        if mark.suspensions:
            return ListStanding.SUSPENDED
        return ListStanding.REFUSED if mark.refused else ListStanding.LISTED

    def version_naming(self, content: Content) -> int:
        """The version in force where it names the Préfecture's person of a clearance; 0 where none does."""
        named = content.party == PARTY_PREFECTURE and self.entry_of(content.person) is not None
        return self.current.number if self.current is not None and named else 0

    def entry_of(self, person: Person) -> Entry | None:
        """The entry of the newest verified version that names a person."""
        return self.current.by_key.get(key_of(person)) if self.current else None


def listing_of(state: State) -> Listing:
    """The list's state; empty before its first event."""
    return state.listing or Listing()


def standing_of(listing: Listing, proposal: Proposal) -> ProposalStanding:
    """What became of a proposal."""
    pending = proposal.standing is ProposalStanding.PENDING
    return ProposalStanding.OVERTAKEN if pending and proposal.number <= listing.highest else proposal.standing


def evolve(state: State, event: ListEvent) -> Listing:
    """The list's state after an event; a version is verified again, whoever wrote the event."""
    listing = listing_of(state)
    match event:
        case ListValidated():
            return _loaded(state, listing, event)
        case ListKeysAdopted():
            return _keys_loaded(state, listing, event)
        case ListedPersonRefused() | ListedPersonSuspended() | ListedPersonResumed():
            return replace(listing, marks={**listing.marks, event.entry_id: _marked(listing, event)})
    return replace(listing, proposals={**listing.proposals, event.proposal_id: _proposal_after(listing, event)})


def _proposal_after(
    listing: Listing, event: ListSubmitted | ListChangeProposed | ListRefused | ListWithdrawn
) -> Proposal:
    if isinstance(event, ListSubmitted | ListChangeProposed):
        number = NominativeList.FromString(event.list).version
        return Proposal(event.proposal_id, event.list, number, identity_of(event.proposed_by))
    known = listing.proposals[event.proposal_id]
    if isinstance(event, ListRefused):
        return replace(known, standing=ProposalStanding.REFUSED, reason=event.reason)
    return replace(known, standing=ProposalStanding.WITHDRAWN)


def _marked(listing: Listing, event: ListedPersonRefused | ListedPersonSuspended | ListedPersonResumed) -> Mark:
    known = listing.marks.get(event.entry_id, Mark())
    if isinstance(event, ListedPersonRefused):
        return replace(known, refused=event.reason)
    suspensions = {party: reason for party, reason in known.suspensions.items() if party != event.party}
    if isinstance(event, ListedPersonSuspended):
        suspensions[event.party] = event.reason
    return replace(known, suspensions=suspensions)


def _keys_loaded(state: State, listing: Listing, event: ListKeysAdopted) -> Listing:
    try:
        return replace(listing, keys=adopted_keys(state, listing, event.keys, event.signature))
    except Problem as problem:
        return replace(listing, highest=listing.highest + 1, fault=problem.reason)


def adopted_keys(state: State, listing: Listing, keys: bytes, signature: bytes) -> Keys:
    """The next set of keys, signed by the Préfecture's key of the deed. Raises Problem."""
    named = {key.party: key.public_key for key in deeds.parse(in_force(state).deed).keys}
    adopted = list_version.verify_keys(keys, signature, named[PARTY_PREFECTURE])
    if adopted.version != listing.keys.version + 1:
        raise precondition("LIST_KEYS_ROLLBACK", "the next set of keys follows the one in force", VALIDATION)
    return adopted


def _loaded(state: State, listing: Listing, event: ListValidated) -> Listing:
    """The state after a version event: the version where it verifies, else none to rely on."""
    try:
        version = _verified(listing, event)
    except Problem as problem:
        return replace(listing, highest=listing.highest + 1, fault=problem.reason)
    proposal = replace(listing.proposals[event.proposal_id], standing=ProposalStanding.VALIDATED)
    gone = {
        clearance.clearance_id
        for clearance in state.clearances.values()
        if clearance.party == PARTY_PREFECTURE and key_of(clearance.person) not in version.by_key
    }
    return Listing(
        current=version,
        highest=version.number,
        proposals={**listing.proposals, event.proposal_id: proposal},
        keys=listing.keys,
        marks=_kept_marks(listing, version),
        left=listing.left | gone,
    )


def _verified(listing: Listing, event: ListValidated) -> Version:
    version = list_version.parse(event.list)
    proposal = listing.proposals.get(event.proposal_id)
    if proposal is None or proposal.content != event.list:
        raise precondition("LIST_NOT_PROPOSED", "nobody proposed this version", VALIDATION)
    if identity_of(event.validated_by) == proposal.proposed_by:
        raise precondition("OWN_PROPOSAL", "a validator other than the proposer signs", VALIDATION)
    if version.number != listing.highest + 1 or version.previous_hash != listing.head_hash:
        raise precondition("LIST_ROLLBACK", "this version does not follow the newest one", VALIDATION)
    list_version.require_signed(event.list, event.letter_hash, event.signatures, listing.keys)
    return version


def _kept_marks(listing: Listing, version: Version) -> Mapping[str, Mark]:
    """Marks of those who stay; a refusal ends with the entry that it was of, since a changed one is another demand."""
    known = listing.current.entries if listing.current else {}
    kept = {}
    for entry_id, mark in listing.marks.items():
        if entry_id in version.entries:
            changed = known.get(entry_id) != version.entries[entry_id]
            kept[entry_id] = replace(mark, refused="") if changed else mark
    return kept
