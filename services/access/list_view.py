"""What the nominative list shows to those who may read it."""

from planier.access.v1 import list_pb2 as pb
from planier.access.v1.list_events_pb2 import ListedPerson

from services.access.list_state import Listing, Mark, Proposal, ProposalStanding, standing_of
from services.access.people import identity_message, person_message

_STATES = {
    ProposalStanding.PENDING: pb.PROPOSAL_STATE_PENDING,
    ProposalStanding.VALIDATED: pb.PROPOSAL_STATE_VALIDATED,
    ProposalStanding.REFUSED: pb.PROPOSAL_STATE_REFUSED,
    ProposalStanding.WITHDRAWN: pb.PROPOSAL_STATE_WITHDRAWN,
    ProposalStanding.OVERTAKEN: pb.PROPOSAL_STATE_OVERTAKEN,
}


def lowered(person: ListedPerson) -> ListedPerson:
    """The same person, its id in lower case as ids are kept."""
    return ListedPerson(entry_id=person.entry_id.lower(), person=person.person, directorate=person.directorate)


def list_of(listing: Listing) -> pb.GetListResponse:
    """The newest verified version, its persons by id, and the proposals in order of their ids."""
    response = pb.GetListResponse(
        proposals=[proposal_of(listing, listing.proposals[one]) for one in sorted(listing.proposals)],
        fault=listing.fault,
    )
    response.keys.ParseFromString(listing.keys.content)
    if listing.current is not None:
        response.version = listing.current.number
        response.expires_at.FromDatetime(listing.current.expires_at)
        response.list_hash = listing.current.hash
        response.persons.extend(status_of(listing, entry_id) for entry_id in listing.current.entries)
    return response


def status_of(listing: Listing, entry_id: str) -> pb.ListedPersonStatus:
    """One person of the version in force; an empty message where the version has none of that id."""
    entry = listing.current.entries.get(entry_id) if listing.current else None
    if entry is None:
        return pb.ListedPersonStatus()
    mark = listing.marks.get(entry_id, Mark())
    standing = pb.LIST_STANDING_LISTED
    if mark.refused:
        standing = pb.LIST_STANDING_REFUSED
    if mark.suspensions:
        standing = pb.LIST_STANDING_SUSPENDED
    reasons = [reason for reason in (mark.refused, *mark.suspensions.values()) if reason]
    listed = ListedPerson(entry_id=entry_id, person=person_message(entry.person), directorate=entry.directorate)
    return pb.ListedPersonStatus(
        person=listed, standing=standing, reasons=reasons, suspended_by=sorted(mark.suspensions)
    )


def proposal_of(listing: Listing, proposal: Proposal) -> pb.ListProposal:
    """A proposal and what became of it."""
    return pb.ListProposal(
        proposal_id=proposal.proposal_id,
        state=_STATES[standing_of(listing, proposal)],
        list=proposal.content,
        list_hash=proposal.hash,
        proposed_by=identity_message(proposal.proposed_by),
        reason=proposal.reason,
    )
