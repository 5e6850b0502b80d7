"""The convention's state and who may change it: frozen state, pure decide and evolve over the events of access.

Every rule that guards a write is here too, not in the policy alone: whatever path a command takes, nobody grants or
confirms for themselves, and only the holder of an office uses it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from google.protobuf.message import Message
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_GRANTING_AUTHORITY,
    ROLE_PREFECTURE_USER,
    ROLE_PREFECTURE_VALIDATOR,
    BindingConfirmed,
    BindingProposed,
    ClearanceGranted,
    ClearanceRevoked,
    ConventionSigned,
    Deed,
    Party,
    PartySignature,
    RevocationReason,
    Role,
)
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, Purpose

from services.access import deed as deeds
from services.access import engagements, list_state, nominative_list
from services.access.convention import (
    Clearance,
    Convention,
    Declarant,
    Identity,
    Instrument,
    Office,
    Person,
    Standing,
    State,
    identity_message,
    identity_of,
    office_of,
    person_message,
    person_of,
    sees,
)
from services.access.engagements import EngagementCommand, EngagementEvent
from services.access.list_state import ListEvent
from services.access.names import fold as fold_name
from services.access.names import may_be_same_person, same_person
from services.access.nominative_list import ListCommand
from services.access.term import convention_term, years_after
from services.kernel.errors import Violation, conflict, denied, invalid, not_found, precondition

# House bound, stricter than the text: a clearance is looked at again each year.
YEARLY_REVIEW = "house.yearly_review"
_PARTIES_OF_ROLE = {
    ROLE_CITY_USER: (PARTY_CITY,),
    ROLE_COORDINATOR: (PARTY_CITY,),
    ROLE_PREFECTURE_USER: (PARTY_PREFECTURE,),
    ROLE_AUDITOR: (PARTY_CITY, PARTY_PREFECTURE),
}


@dataclass(frozen=True, slots=True)
class SignConvention:
    """The founding, once. `pinned`: the parties' keys as the deployment knows them; `annex_hash`: of its annex 1."""

    deed: bytes
    signatures: tuple[PartySignature, ...]
    pinned: Mapping[Party.ValueType, bytes]
    annex_hash: str
    record_id: str


@dataclass(frozen=True, slots=True)
class GrantClearance:
    """Grants; the same id and content again changes nothing."""

    actor: Identity
    clearance_id: str
    person: Person
    party: Party.ValueType
    role: Role.ValueType
    purposes: frozenset[Purpose.ValueType]
    sources: frozenset[str]
    valid_from: datetime
    valid_until: datetime
    record_id: str


@dataclass(frozen=True, slots=True)
class RevokeClearance:
    """Revokes at once and for good; again changes nothing."""

    actor: Identity
    clearance_id: str
    reason: RevocationReason.ValueType
    record_id: str


@dataclass(frozen=True, slots=True)
class ProposeBinding:
    """A login by someone whom the identity provider names; without effect where no single clearance is theirs."""

    identity: Identity
    given_name: str
    usual_name: str
    record_id: str


@dataclass(frozen=True, slots=True)
class ConfirmBinding:
    """Binds the identity that a proposal shows; again changes nothing."""

    actor: Identity
    clearance_id: str
    identity: Identity
    record_id: str


Command = (
    SignConvention
    | GrantClearance
    | RevokeClearance
    | ProposeBinding
    | ConfirmBinding
    | ListCommand
    | EngagementCommand
)
Event = (
    ConventionSigned
    | ClearanceGranted
    | ClearanceRevoked
    | BindingProposed
    | BindingConfirmed
    | ListEvent
    | EngagementEvent
)
_OWN: tuple[type[Message], ...] = (
    ConventionSigned,
    ClearanceGranted,
    ClearanceRevoked,
    BindingProposed,
    BindingConfirmed,
)
EVENTS: Mapping[str, type[Message]] = {
    **{kind.DESCRIPTOR.full_name: kind for kind in _OWN},
    **list_state.EVENTS,
    **engagements.EVENTS,
}


def stream_of(event: Event) -> str:
    """The stream that an event belongs to."""
    if isinstance(event, ListEvent):
        return list_state.STREAM
    if isinstance(event, EngagementEvent):
        return engagements.stream_of(event)
    return "convention" if isinstance(event, ConventionSigned) else f"clearance-{event.clearance_id}"


def decide(state: State, command: Command, at: datetime) -> tuple[Event, ...]:
    """The events that a command causes at an instant: none where nothing changes. Raises Problem where it may not."""
    if isinstance(command, ListCommand):
        return nominative_list.decide(state, command, at)
    if isinstance(command, EngagementCommand):
        return engagements.decide(state, command, at)
    return _decide(state, command, at)


def _decide(
    state: State,
    command: SignConvention | GrantClearance | RevokeClearance | ProposeBinding | ConfirmBinding,
    at: datetime,
) -> tuple[Event, ...]:
    match command:
        case SignConvention():
            return _sign(state, command)
        case GrantClearance():
            return _grant(state, command, at)
        case RevokeClearance():
            return _revoke(state, command, at)
        case ProposeBinding():
            return _propose(state, command, at)
        case ConfirmBinding():
            return _confirm(state, command, at)


def _sign(state: State, command: SignConvention) -> tuple[Event, ...]:
    deed = deeds.verify(command.deed, command.signatures, command.pinned)
    if state.convention is not None:
        if state.convention.deed == command.deed:
            return ()
        raise precondition("CONVENTION_ALREADY_SIGNED", "only an amendment changes it", "art10.avenant")
    if deed.annex_hash != command.annex_hash:
        raise precondition("ANNEX_MISMATCH", "the deed names another annex 1 than this deployment's", "art2.documents")
    return (ConventionSigned(deed=command.deed, signatures=command.signatures, record_id=command.record_id),)


def _in_force(state: State) -> Convention:
    if state.convention is None:
        raise precondition("CONVENTION_NOT_SIGNED", "no convention is in force", "art2.documents")
    return state.convention


def _granting_authority(state: State, actor: Identity, at: datetime) -> Office:
    office = office_of(state, actor, at)
    if office is None or office.role != ROLE_GRANTING_AUTHORITY:
        raise denied("NOT_GRANTING_AUTHORITY", "only the granting authority may", "art6.habilitation")
    return office


def _grant(state: State, command: GrantClearance, at: datetime) -> tuple[Event, ...]:
    convention = _in_force(state)
    office = _granting_authority(state, command.actor, at)
    existing = state.clearances.get(command.clearance_id)
    if existing is not None:
        if replace(existing, proposed=None, identity=None, revoked=False) == _as_clearance(command):
            return ()
        raise conflict("CLEARANCE_EXISTS", "this id names a clearance with other content")
    if _named(office.person, command.person):
        raise denied("OWN_CLEARANCE", "nobody grants for themselves", "art6.habilitation")
    violations = [*_grant_violations(convention, command), *_period_violations(convention, command, at)]
    if violations:
        raise invalid("CLEARANCE_INVALID", "the clearance is not well formed", *violations, clause="art6.habilitation")
    if command.party == PARTY_PREFECTURE:
        nominative_list.require_listed(state, command.person, at)
    event = ClearanceGranted(
        clearance_id=command.clearance_id,
        person=person_message(command.person),
        party=command.party,
        role=command.role,
        purposes=sorted(command.purposes),
        sources=sorted(command.sources),
        granted_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    event.valid_from.FromDatetime(command.valid_from)
    event.valid_until.FromDatetime(command.valid_until)
    return (event,)


def _grant_violations(convention: Convention, command: GrantClearance) -> Iterable[Violation]:
    if not (fold_name(command.person.given_name) and fold_name(command.person.usual_name)):
        yield Violation("person", "nominative", "given name and usual name are needed")
    if not command.person.service:
        yield Violation("person.service", "nominative", "the service or directorate is needed (art7.services)")
    if command.party not in _PARTIES_OF_ROLE.get(command.role, ()):
        yield Violation("party", "role", "this role is not one that a clearance gives to this party")
    permitted = frozenset({PURPOSE_OVERSIGHT}) if command.role == ROLE_AUDITOR else convention.purposes
    if not command.purposes or command.purposes - permitted:
        yield Violation("purposes", "art6.purpose", "must be among those that this role may have")
    if command.sources - convention.sources:
        yield Violation("sources", "annex", "must be sources that the instruments in force list")


def _period_violations(convention: Convention, command: GrantClearance, at: datetime) -> Iterable[Violation]:
    if not command.valid_from < command.valid_until:
        yield Violation("valid_until", "period", "must be after valid_from")
        return
    if command.valid_until <= at:
        yield Violation("valid_until", "period", "is over already")
    local = command.valid_from.astimezone(convention.zone)
    if command.valid_until.astimezone(convention.zone) > local.replace(
        year=local.year + 1, day=years_after(local.date(), 1).day
    ):
        yield Violation("valid_until", YEARLY_REVIEW, "must be within one year of valid_from")


def _revoke(state: State, command: RevokeClearance, at: datetime) -> tuple[Event, ...]:
    _granting_authority(state, command.actor, at)
    if _clearance(state, command.clearance_id).revoked:
        return ()
    return (
        ClearanceRevoked(
            clearance_id=command.clearance_id,
            reason=command.reason,
            revoked_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def _propose(state: State, command: ProposeBinding, at: datetime) -> tuple[Event, ...]:
    matching = [
        clearance
        for clearance in state.clearances.values()
        if clearance.standing(at) in (Standing.GRANTED, Standing.BINDING_PROPOSED)
        and same_person(
            clearance.person.given_name, clearance.person.usual_name, command.given_name, command.usual_name
        )
    ]
    # Two clearances of one name, or one proposed to somebody else already: a person must sort it out, not a login.
    if len(matching) != 1 or matching[0].proposed is not None or matching[0].granted_by == command.identity:
        return ()
    return (
        BindingProposed(
            clearance_id=matching[0].clearance_id,
            identity=identity_message(command.identity),
            record_id=command.record_id,
        ),
    )


def _confirm(state: State, command: ConfirmBinding, at: datetime) -> tuple[Event, ...]:
    office = office_of(state, command.actor, at)
    clearance = _clearance(state, command.clearance_id, visible_to=office)
    confirmer = ROLE_GRANTING_AUTHORITY if clearance.party == PARTY_CITY else ROLE_PREFECTURE_VALIDATOR
    if office is None or office.role != confirmer:
        raise denied("NOT_CONFIRMER", "each party's office confirms its own people", "art7.validation")
    own = command.actor in (command.identity, clearance.proposed)
    if own or _named(office.person, clearance.person) or clearance.granted_by == command.identity:
        raise denied("OWN_BINDING", "nobody grants or validates for themselves", "art7.validation")
    if clearance.identity is not None and clearance.identity == command.identity and not clearance.revoked:
        return ()
    if clearance.standing(at) is not Standing.BINDING_PROPOSED:
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


def _clearance(state: State, clearance_id: str, visible_to: Office | None = None) -> Clearance:
    clearance = state.clearances.get(clearance_id)
    hidden = visible_to is not None and not sees(visible_to, clearance)
    if clearance is None or hidden:
        raise not_found("CLEARANCE_UNKNOWN", "no such clearance")
    return clearance


def evolve(state: State, event: Event, recorded_at: datetime) -> State:
    """The state after an event. Every event that `decide` gives can be evolved; only the list is judged again."""
    if isinstance(event, ListEvent):
        return replace(state, listing=list_state.evolve(state, event))
    if isinstance(event, EngagementEvent):
        return replace(state, engagements=engagements.evolve(state, event, recorded_at))
    if isinstance(event, ConventionSigned):
        return replace(state, convention=_founded(event, recorded_at))
    clearances = dict(state.clearances)
    if isinstance(event, ClearanceGranted):
        clearances[event.clearance_id] = _granted(event)
        return replace(state, clearances=clearances)
    known = clearances[event.clearance_id]
    match event:
        case ClearanceRevoked():
            changed = replace(known, revoked=True)
        case BindingProposed():
            changed = replace(known, proposed=identity_of(event.identity))
        case BindingConfirmed():
            changed = replace(known, identity=identity_of(event.identity))
    clearances[event.clearance_id] = changed
    return replace(state, clearances=clearances)


def _founded(event: ConventionSigned, recorded_at: datetime) -> Convention:
    deed = deeds.parse(event.deed)
    zone = ZoneInfo(deed.time_zone)
    notified = next(i.notified_at for i in deed.instruments if i.instrument_id == deeds.CONVENTION)
    return Convention(
        version=deed.convention_version,
        annex_hash=deed.annex_hash,
        instruments=tuple(
            Instrument(i.instrument_id, i.version, frozenset(i.sources), frozenset(i.purposes))
            for i in deed.instruments
        ),
        offices=_offices(deed),
        declarants=tuple(Declarant(d.certificate_identity, d.party, d.name) for d in deed.declarants),
        zone=zone,
        term=convention_term(notified.ToDatetime(UTC), zone),
        deed=event.deed,
        signed_at=recorded_at,
    )


def _offices(deed: Deed) -> tuple[Office, ...]:
    return tuple(
        Office(
            holder.role,
            holder.party,
            person_of(holder.person),
            identity_of(holder.identity),
            getattr(holder, "from").ToDatetime(UTC),  # a keyword of Python
        )
        for holder in deed.office_holders
    )


def _granted(event: ClearanceGranted) -> Clearance:
    return Clearance(
        clearance_id=event.clearance_id,
        person=person_of(event.person),
        party=event.party,
        role=event.role,
        purposes=frozenset(event.purposes),
        sources=frozenset(event.sources),
        valid_from=event.valid_from.ToDatetime(UTC),
        valid_until=event.valid_until.ToDatetime(UTC),
        granted_by=identity_of(event.granted_by),
    )


def _as_clearance(command: GrantClearance) -> Clearance:
    return Clearance(
        clearance_id=command.clearance_id,
        person=command.person,
        party=command.party,
        role=command.role,
        purposes=command.purposes,
        sources=command.sources,
        valid_from=command.valid_from,
        valid_until=command.valid_until,
        granted_by=command.actor,
    )


def _named(one: Person, other: Person) -> bool:
    return may_be_same_person(one.given_name, one.usual_name, other.given_name, other.usual_name)
