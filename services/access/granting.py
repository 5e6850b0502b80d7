"""Who gives, reviews and takes back a clearance: the rules of art6.habilitation, whatever path a command takes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from planier.access.v1.access_pb2 import (
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DecisionKind,
)
from planier.access.v1.events_pb2 import (
    NOTICE_KIND_URGENT_CLEARANCE,
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_UNSPECIFIED,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_GRANTING_DELEGATE,
    ROLE_PREFECTURE_USER,
    ROLE_PROVIDER_RECIPIENT,
    ClearanceGranted,
    ClearanceRefused,
    ClearanceRenewed,
    ClearanceRequested,
    ClearanceReviewed,
    ClearanceRevoked,
    NoticeIssued,
    NumberedDecision,
    Party,
    RevocationReason,
)
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, Purpose

from services.access.clearances import STANDING_TITLES, Clearance, Content, Standing, area_message, decision_message
from services.access.convention import Convention, State, in_force, office_of, sees, standing_of
from services.access.instruments import DELEGATE, URGENT_CLEARANCE, Terms
from services.access.names import fold as fold_name
from services.access.notices import issued_to_both
from services.access.offices import GRANTING, Office
from services.access.people import Identity, identity_message, named_alike, person_message
from services.access.purposes import faults
from services.access.term import local_day
from services.access.undertaking import HASH as UNDERTAKING_HASH
from services.kernel.errors import Problem, Violation, conflict, denied, invalid, not_found, precondition

URGENT_AT_MOST = timedelta(hours=12)
_PARTIES_OF_ROLE: Mapping[int, tuple[Party.ValueType, ...]] = {
    ROLE_CITY_USER: (PARTY_CITY,),
    ROLE_COORDINATOR: (PARTY_CITY,),
    ROLE_PREFECTURE_USER: (PARTY_PREFECTURE,),
    ROLE_AUDITOR: (PARTY_CITY, PARTY_PREFECTURE),
    ROLE_PROVIDER_RECIPIENT: (PARTY_CITY,),  # an intellectual service on the City's behalf (art8.provider)
}
_URGENT_ROLES = (ROLE_CITY_USER, ROLE_COORDINATOR, ROLE_PREFECTURE_USER)

DecisionEvent = (
    ClearanceGranted | ClearanceRefused | ClearanceRenewed | ClearanceReviewed | ClearanceRevoked | NoticeIssued
)
_Number = tuple[int, int]


@dataclass(frozen=True, slots=True)
class GrantClearance:
    """Grants; the same id and content again changes nothing."""

    actor: Identity
    clearance_id: str
    content: Content
    record_id: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class RequestClearance:
    """Asks the granting authority; the same id and content again changes nothing."""

    actor: Identity
    clearance_id: str
    content: Content
    record_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One of a list under review."""

    clearance_id: str
    kind: DecisionKind.ValueType
    reason: str = ""
    valid_until: datetime | None = None
    revocation: RevocationReason.ValueType = REVOCATION_REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class DecideClearances:
    """Decides a list, all or nothing; where `service` is stated, of that service's people only."""

    actor: Identity
    decisions: tuple[Decision, ...]
    service: str
    record_id: str


@dataclass(frozen=True, slots=True)
class RevokeClearance:
    """Revokes at once and for good; again changes nothing."""

    actor: Identity
    clearance_id: str
    reason: RevocationReason.ValueType
    record_id: str


def granting_office(state: State, actor: Identity, at: datetime) -> Office:
    """The granting authority's or its delegate's. Raises Problem NOT_GRANTING_AUTHORITY, HOUSE_RULE_MISSING."""
    office = office_of(state, actor, at)
    if office is None or office.role not in GRANTING:
        raise denied("NOT_GRANTING_AUTHORITY", "only the granting authority may", "art6.habilitation")
    if office.role == ROLE_GRANTING_DELEGATE and in_force(state).house_since(DELEGATE, at) is None:
        raise denied("HOUSE_RULE_MISSING", "no amendment in force creates a delegate", DELEGATE)
    return office


def find(state: State, clearance_id: str, visible_to: Office | None = None) -> Clearance:
    """The clearance, where an office may see it. Raises Problem CLEARANCE_UNKNOWN."""
    clearance = state.clearances.get(clearance_id)
    hidden = visible_to is not None and not sees(visible_to, clearance)
    if clearance is None or hidden:
        raise not_found("CLEARANCE_UNKNOWN", "no such clearance")
    return clearance


def grant(state: State, command: GrantClearance, at: datetime) -> tuple[ClearanceGranted | NoticeIssued, ...]:
    """The event of a grant, and the officers' notices where it is urgent."""
    convention = in_force(state)
    office = granting_office(state, command.actor, at)
    existing = state.clearances.get(command.clearance_id)
    if existing is not None:
        same = (existing.content, existing.granted_by, existing.urgent)
        if same == (command.content, command.actor, command.urgent):
            return ()
        raise conflict("CLEARANCE_EXISTS", "this id names a clearance with other content")
    _for_another(office, command.actor, command.content)
    _require_sound(convention, command.content, at)
    if command.urgent:
        _require_urgent(state, convention, command.content, at)
    event = _granted(command.clearance_id, command.content, command.actor, next_number(state, at), command.record_id)
    if not command.urgent:
        return (event,)
    event.urgent = True
    return (event, *issued_to_both(NOTICE_KIND_URGENT_CLEARANCE, command.clearance_id, command.record_id))


def request(state: State, command: RequestClearance, at: datetime) -> tuple[ClearanceRequested, ...]:
    """The event of a request: a City coordinator's, for the City's people."""
    convention = in_force(state)
    own = (state.clearances[clearance_id] for clearance_id in state.bound.get(command.actor, ()))
    coordinates = any(
        clearance.role == ROLE_COORDINATOR
        and standing_of(state, clearance, at) is Standing.ACTIVE
        and clearance.content.valid_from <= at
        for clearance in own
    )
    if not coordinates or command.content.party != PARTY_CITY:
        raise denied("NOT_COORDINATOR", "a City coordinator requests, for the City's people", "art6.habilitation")
    existing = state.clearances.get(command.clearance_id)
    if existing is not None:
        if (existing.content, existing.requested_by) == (command.content, command.actor):
            return ()
        raise conflict("CLEARANCE_EXISTS", "this id names a clearance with other content")
    _require_sound(convention, command.content, at)
    event = ClearanceRequested(requested_by=identity_message(command.actor), record_id=command.record_id)
    _fill(event, command.clearance_id, command.content)
    return (event,)


def decide_list(state: State, command: DecideClearances, at: datetime) -> tuple[DecisionEvent, ...]:
    """One numbered event for each decision that changes something; the first that may not refuses all."""
    office = granting_office(state, command.actor, at)
    ids = [decision.clearance_id for decision in command.decisions]
    if len(set(ids)) != len(ids):
        raise invalid("DECISION_INVALID", "a clearance is decided once in a list", clause="art6.habilitation")
    events: list[DecisionEvent] = []
    number = next_number(state, at)
    for decision in command.decisions:
        clearance = find(state, decision.clearance_id)
        if command.service and clearance.person.service != command.service:
            raise invalid("DECISION_INVALID", "the list holds a person of another service", clause="art6.habilitation")
        event = _decided(state, office, clearance, decision, at)
        if event is not None:
            event.decision.CopyFrom(NumberedDecision(year=number[0], number=number[1]))
            event.record_id = command.record_id
            events.append(event)
            number = (number[0], number[1] + 1)
    return tuple(events)


def revoke(state: State, command: RevokeClearance, at: datetime) -> tuple[ClearanceRevoked, ...]:
    """The event of a revocation."""
    granting_office(state, command.actor, at)
    clearance = find(state, command.clearance_id)
    if clearance.revoked:
        return ()
    return (_revoked(clearance, command.actor, command.reason, next_number(state, at), command.record_id),)


def _decided(
    state: State, office: Office, clearance: Clearance, decision: Decision, at: datetime
) -> ClearanceGranted | ClearanceRefused | ClearanceRenewed | ClearanceReviewed | ClearanceRevoked | None:
    actor = office.identity
    if decision.kind == DECISION_KIND_GRANT:
        return _grant_request(state, office, clearance, at)
    if decision.kind == DECISION_KIND_REFUSE:
        return _refuse(state, actor, clearance, decision.reason, at)
    if decision.kind == DECISION_KIND_RENEW:
        return _renew(state, office, clearance, decision.valid_until, at)
    if decision.kind == DECISION_KIND_REVIEW:
        _standing_andrefuse_own(state, office, clearance, at)
        return ClearanceReviewed(clearance_id=clearance.clearance_id, reviewed_by=identity_message(actor))
    if decision.revocation == REVOCATION_REASON_UNSPECIFIED:
        raise invalid("DECISION_INVALID", "a revocation has a reason", clause="art6.habilitation")
    return None if clearance.revoked else _revoked(clearance, actor, decision.revocation, (0, 0), "")


def _grant_request(state: State, office: Office, clearance: Clearance, at: datetime) -> ClearanceGranted | None:
    if clearance.granted_by == office.identity and clearance.requested_by is not None:
        return None
    _require_requested(state, clearance, at)
    if clearance.requested_by == office.identity:
        raise _own()
    _for_another(office, office.identity, clearance.content)
    _require_sound(in_force(state), clearance.content, at)
    return _granted(clearance.clearance_id, clearance.content, office.identity, (0, 0), "")


def _refuse(state: State, actor: Identity, clearance: Clearance, reason: str, at: datetime) -> ClearanceRefused | None:
    if not reason.strip():
        raise invalid("DECISION_INVALID", "a refusal is reasoned", clause="art6.habilitation")
    if clearance.refusal == reason:
        return None
    _require_requested(state, clearance, at)
    return ClearanceRefused(clearance_id=clearance.clearance_id, reason=reason, refused_by=identity_message(actor))


def _renew(
    state: State, office: Office, clearance: Clearance, valid_until: datetime | None, at: datetime
) -> ClearanceRenewed | None:
    _standing_andrefuse_own(state, office, clearance, at)
    if clearance.urgent:
        raise precondition("URGENT_ENDS", "an urgent clearance ends; grant an ordinary one", URGENT_CLEARANCE)
    if valid_until is None or valid_until <= at:
        found = Violation("valid_until", "period", "must be later than now")
        raise invalid("DECISION_INVALID", "a renewal says until when", found, clause="art6.habilitation")
    if valid_until == clearance.content.valid_until:
        return None
    event = ClearanceRenewed(clearance_id=clearance.clearance_id, renewed_by=identity_message(office.identity))
    event.valid_until.FromDatetime(valid_until)
    return event


def _require_requested(state: State, clearance: Clearance, at: datetime) -> None:
    if standing_of(state, clearance, at) is not Standing.REQUESTED:
        raise precondition("CLEARANCE_NOT_REQUESTED", "no request of it awaits a decision", "art6.habilitation")


def _standing_andrefuse_own(state: State, office: Office, clearance: Clearance, at: datetime) -> None:
    refuse_own(office, office.identity, clearance)
    if standing_of(state, clearance, at) not in STANDING_TITLES:
        raise precondition("CLEARANCE_NOT_STANDING", "it is over or was never granted", "art6.habilitation")


def refuse_own(office: Office, actor: Identity, clearance: Clearance) -> None:
    """Raises Problem OWN_CLEARANCE where an office acts on its holder's own clearance."""
    if actor in (clearance.identity, clearance.proposed) or named_alike(office.person, clearance.person):
        raise _own()


def _for_another(office: Office, actor: Identity, content: Content) -> None:
    if actor == office.identity and named_alike(office.person, content.person):
        raise _own()


def _own() -> Problem:
    return denied("OWN_CLEARANCE", "nobody grants for themselves", "art6.habilitation")


def _require_sound(convention: Convention, content: Content, at: datetime) -> None:
    terms = convention.terms(at)
    violations = [*_violations(terms, content), *_place_violations(content), *_period_violations(content, at)]
    if violations:
        raise invalid("CLEARANCE_INVALID", "the clearance is not well formed", *violations, clause="art6.habilitation")


def _violations(terms: Terms, content: Content) -> Iterable[Violation]:
    if not (fold_name(content.person.given_name) and fold_name(content.person.usual_name)):
        yield Violation("person", "nominative", "given name and usual name are needed")
    if not content.person.service:
        yield Violation("person.service", "nominative", "the service or directorate is needed (art7.services)")
    if content.party not in _PARTIES_OF_ROLE.get(content.role, ()):
        yield Violation("party", "role", "this role is not one that a clearance gives to this party")
    if bool(content.engagement_id) != (content.role == ROLE_PROVIDER_RECIPIENT):
        yield Violation("engagement_id", "role", "a provider recipient's, and nobody else's (art8.provider)")
    permitted = _permitted(terms, content)
    for fault in faults(content.purposes, permitted):
        yield Violation("purposes", "art6.purpose", fault)
    if content.sources - terms.sources:
        yield Violation("sources", "annex", "must be sources that the instruments in force list")


def _permitted(terms: Terms, content: Content) -> frozenset[Purpose.ValueType]:
    return frozenset({PURPOSE_OVERSIGHT}) if content.role == ROLE_AUDITOR else terms.purposes


def _place_violations(content: Content) -> Iterable[Violation]:
    if not all(area.is_box() for area in content.areas):
        yield Violation("areas", "box", "must be boxes of degrees, west to east and south to north")


def _period_violations(content: Content, at: datetime) -> Iterable[Violation]:
    if not content.valid_from < content.valid_until:
        yield Violation("valid_until", "period", "must be after valid_from")
    elif content.valid_until <= at:
        yield Violation("valid_until", "period", "is over already")


def _require_urgent(state: State, convention: Convention, content: Content, at: datetime) -> None:
    if convention.house_since(URGENT_CLEARANCE, at) is None:
        raise denied("HOUSE_RULE_MISSING", "no amendment in force creates urgent clearances", URGENT_CLEARANCE)
    if content.valid_until > max(content.valid_from, at) + URGENT_AT_MOST or content.valid_from > at:
        found = Violation("valid_until", URGENT_CLEARANCE, "begins now and lasts twelve hours at most")
        raise invalid("CLEARANCE_INVALID", "an urgent clearance is short", found, clause=URGENT_CLEARANCE)
    known = content.party == PARTY_CITY or _is_known(state, content, at)
    if content.role not in _URGENT_ROLES or not known:
        raise denied("NOT_ELIGIBLE", "City staff, or persons whom the Préfecture listed", URGENT_CLEARANCE)


def _is_known(state: State, content: Content, at: datetime) -> bool:
    """Whether the Préfecture's person was cleared, and stands so: nothing bypasses art7.list."""
    return any(
        clearance.party == content.party
        and replace(clearance.person, professional_address="") == replace(content.person, professional_address="")
        and standing_of(state, clearance, at) in STANDING_TITLES
        and not clearance.suspended_by
        for clearance in state.clearances.values()
    )


def next_number(state: State, at: datetime) -> _Number:
    """The next decision's number, within the local year."""
    year = local_day(at, in_force(state).zone).year
    last_year, last = state.decided
    return (year, last + 1) if year == last_year else (year, 1)


def _granted(clearance_id: str, content: Content, actor: Identity, number: _Number, record_id: str) -> ClearanceGranted:
    event = ClearanceGranted(
        granted_by=identity_message(actor),
        record_id=record_id,
        decision=decision_message(number),
        undertaking_hash=UNDERTAKING_HASH,
    )
    _fill(event, clearance_id, content)
    return event


def _fill(event: ClearanceGranted | ClearanceRequested, clearance_id: str, content: Content) -> None:
    event.clearance_id = clearance_id
    event.person.CopyFrom(person_message(content.person))
    event.party = content.party
    event.role = content.role
    event.purposes.extend(sorted(content.purposes))
    event.sources.extend(sorted(content.sources))
    event.valid_from.FromDatetime(content.valid_from)
    event.valid_until.FromDatetime(content.valid_until)
    event.areas.extend(area_message(area) for area in content.areas)
    event.engagement_id = content.engagement_id


def _revoked(
    clearance: Clearance, actor: Identity, reason: RevocationReason.ValueType, number: _Number, record_id: str
) -> ClearanceRevoked:
    return ClearanceRevoked(
        clearance_id=clearance.clearance_id,
        reason=reason,
        revoked_by=identity_message(actor),
        decision=decision_message(number),
        record_id=record_id,
    )
