"""Each party's auditor and officer see its own people in the lists of access, the other's as they see them in the log.

The granting authority knows whom it clears, and the Préfecture's validator is shown nobody else's people (`sees`).
"""

from planier.access.v1 import access_pb2 as pb
from planier.access.v1 import list_pb2
from planier.access.v1.events_pb2 import (
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_DATA_PROTECTION_OFFICER,
    Identity,
    Party,
    Person,
)

from services.access.offices import Office
from services.kernel.pseudonyms import Pseudonyms

_OVERSEERS = (ROLE_AUDITOR, ROLE_DATA_PROTECTION_OFFICER)


def hides(office: Office, party: Party.ValueType) -> bool:
    """Whether an office sees a party's people under pseudonyms."""
    return office.role in _OVERSEERS and office.party != party


def mask_clearance(shown: pb.Clearance, pseudonyms: Pseudonyms) -> None:
    """Puts pseudonyms in place of the person and of whatever leads to the person; the service stays.

    Person and clearance bear those of the log: whoever looked is found in the list of who may.
    """
    title = pseudonyms.of_thing("clearance", shown.clearance_id)
    known = shown.HasField("identity")
    name = _pseudonym(shown.party, shown.identity, pseudonyms) if known else title
    shown.clearance_id = title
    shown.person.CopyFrom(Person(usual_name=name, service=shown.person.service))
    if known:
        shown.identity.CopyFrom(Identity(subject=name))
    shown.ClearField("affiliation")
    # A number leads to the decision that names the person.
    shown.ClearField("decisions")


def mask_list(shown: list_pb2.GetListResponse, pseudonyms: Pseudonyms) -> None:
    """Puts pseudonyms in place of the Préfecture's people; service, directorate, standing and hashes stay."""
    for status in shown.persons:
        listed = status.person
        name = pseudonyms.of_thing("listed", listed.entry_id)
        listed.entry_id = name
        listed.person.CopyFrom(Person(usual_name=name, service=listed.person.service))
    for proposal in shown.proposals:
        proposal.ClearField("list")
        subject = _pseudonym(PARTY_PREFECTURE, proposal.proposed_by, pseudonyms)
        proposal.proposed_by.CopyFrom(Identity(subject=subject))


def _pseudonym(party: Party.ValueType, identity: Identity, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.of(Party.Name(party).removeprefix("PARTY_"), identity.issuer, identity.subject)
