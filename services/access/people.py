"""People as access knows them: who they are at the identity provider, and what the law calls them."""

from dataclasses import dataclass

from planier.access.v1.events_pb2 import Affiliation as AffiliationMessage
from planier.access.v1.events_pb2 import Identity as IdentityMessage
from planier.access.v1.events_pb2 import Person as PersonMessage

from services.access.names import may_be_same_person


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at the identity provider; never an e-mail."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the law names one."""

    given_name: str
    usual_name: str
    service: str = ""
    professional_address: str = ""


@dataclass(frozen=True, slots=True)
class Affiliation:
    """Where the identity provider says a person works; a claim, for whoever confirms a binding to judge."""

    siret: str = ""
    uid: str = ""
    organisational_unit: str = ""


NO_AFFILIATION = Affiliation()


def named_alike(one: Person, other: Person) -> bool:
    """Whether two persons might be one: where nobody may act for themselves."""
    return may_be_same_person(one.given_name, one.usual_name, other.given_name, other.usual_name)


def person_of(message: PersonMessage) -> Person:
    """A message's person."""
    return Person(message.given_name, message.usual_name, message.service, message.professional_address)


def person_message(person: Person) -> PersonMessage:
    """A person as a message."""
    return PersonMessage(
        given_name=person.given_name,
        usual_name=person.usual_name,
        service=person.service,
        professional_address=person.professional_address,
    )


def identity_of(message: IdentityMessage) -> Identity:
    """A message's identity."""
    return Identity(message.issuer, message.subject)


def identity_message(identity: Identity) -> IdentityMessage:
    """An identity as a message."""
    return IdentityMessage(issuer=identity.issuer, subject=identity.subject)


def affiliation_of(message: AffiliationMessage) -> Affiliation:
    """A message's affiliation."""
    return Affiliation(message.siret, message.uid, message.organisational_unit)


def affiliation_message(affiliation: Affiliation) -> AffiliationMessage:
    """An affiliation as a message."""
    return AffiliationMessage(
        siret=affiliation.siret, uid=affiliation.uid, organisational_unit=affiliation.organisational_unit
    )
