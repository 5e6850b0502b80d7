"""Who is who: a login proposes the person that a clearance names, the party confirms, the holder undertakes."""

from dataclasses import dataclass
from datetime import datetime

from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    ROLE_PREFECTURE_VALIDATOR,
    BindingConfirmed,
    BindingProposed,
    UndertakingSigned,
)

from services.access.clearances import Clearance, Standing
from services.access.convention import State, office_of, standing_of
from services.access.granting import find, granting_office
from services.access.names import same_person
from services.access.offices import GRANTING
from services.access.people import (
    NO_AFFILIATION,
    Affiliation,
    Identity,
    affiliation_message,
    identity_message,
    named_alike,
)
from services.access.undertaking import HASH
from services.kernel.errors import denied, invalid, precondition


@dataclass(frozen=True, slots=True)
class ProposeBinding:
    """A login by someone whom the identity provider names; without effect where no single clearance is theirs."""

    identity: Identity
    given_name: str
    usual_name: str
    record_id: str
    affiliation: Affiliation = NO_AFFILIATION


@dataclass(frozen=True, slots=True)
class ConfirmBinding:
    """Binds the identity that a proposal shows; again changes nothing."""

    actor: Identity
    clearance_id: str
    identity: Identity
    record_id: str


@dataclass(frozen=True, slots=True)
class SignUndertaking:
    """The holder's confidentiality undertaking, for each of their clearances that waits for it."""

    actor: Identity
    text_hash: bytes
    record_id: str


def propose(state: State, command: ProposeBinding, at: datetime) -> tuple[BindingProposed, ...]:
    """The event of a login by a person whom one clearance names, and no other."""
    matching = [
        clearance
        for clearance in state.clearances.values()
        if standing_of(state, clearance, at) in (Standing.GRANTED, Standing.BINDING_PROPOSED)
        and same_person(
            clearance.person.given_name, clearance.person.usual_name, command.given_name, command.usual_name
        )
        and _of_its_organisation(state, clearance, command.affiliation)
    ]
    # Two clearances of one name, or one proposed to somebody else already: a person must sort it out, not a login.
    if len(matching) != 1 or matching[0].proposed is not None or matching[0].granted_by == command.identity:
        return ()
    return (
        BindingProposed(
            clearance_id=matching[0].clearance_id,
            identity=identity_message(command.identity),
            record_id=command.record_id,
            affiliation=affiliation_message(command.affiliation),
        ),
    )


def _of_its_organisation(state: State, clearance: Clearance, affiliation: Affiliation) -> bool:
    """Whether the login is of an organisation that the party lists; one that lists none takes any."""
    organisations = state.convention.organisations if state.convention else frozenset()
    listed = {siret for party, siret in organisations if party == clearance.party}
    return not listed or affiliation.siret in listed


def confirm(state: State, command: ConfirmBinding, at: datetime) -> tuple[BindingConfirmed, ...]:
    """The event of a confirmation: each party's office confirms its own people."""
    office = office_of(state, command.actor, at)
    clearance = find(state, command.clearance_id, visible_to=office)
    confirmers = GRANTING if clearance.party == PARTY_CITY else (ROLE_PREFECTURE_VALIDATOR,)
    if office is None or office.role not in confirmers:
        raise denied("NOT_CONFIRMER", "each party's office confirms its own people", "art7.validation")
    if clearance.party == PARTY_CITY:
        granting_office(state, command.actor, at)
    own = command.actor in (command.identity, clearance.proposed)
    if own or named_alike(office.person, clearance.person) or clearance.granted_by == command.identity:
        raise denied("OWN_BINDING", "nobody grants or validates for themselves", "art7.validation")
    if clearance.identity is not None and clearance.identity == command.identity and not clearance.revoked:
        return ()
    if standing_of(state, clearance, at) is not Standing.BINDING_PROPOSED:
        raise precondition("BINDING_NOT_PROPOSED", "no binding of this clearance awaits confirmation")
    if clearance.proposed != command.identity:
        raise precondition("BINDING_CHANGED", "the proposal shows another identity", "art7.validation")
    return (
        BindingConfirmed(
            clearance_id=command.clearance_id,
            identity=identity_message(command.identity),
            confirmed_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def sign_undertaking(state: State, command: SignUndertaking, at: datetime) -> tuple[UndertakingSigned, ...]:
    """One event for each clearance of the holder that waits for the undertaking."""
    own = [state.clearances[clearance_id] for clearance_id in state.bound.get(command.actor, ())]
    if not own:
        raise denied("NO_CLEARANCE", "the holder of a clearance signs", "art6.habilitation")
    if command.text_hash != HASH:
        raise invalid("UNDERTAKING_OTHER_TEXT", "this is not the text that is to be signed", clause="art6.habilitation")
    return tuple(
        UndertakingSigned(
            clearance_id=clearance.clearance_id,
            text_hash=command.text_hash,
            signed_by=identity_message(command.actor),
            record_id=command.record_id,
        )
        for clearance in own
        if standing_of(state, clearance, at) is Standing.UNDERTAKING_AWAITED
    )
