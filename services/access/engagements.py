"""Providers' engagements: what is handed to whom and until when, and what is owed at the end (art8). Pure.

An engagement ends on its last day, before it by an event, or with the convention; then every copy is to be destroyed,
and only the provider's signed certificate closes it. Whoever owes one that is late gets nothing more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError, Message
from planier.access.v1.engagement_events_pb2 import (
    DestructionCertificate,
    DestructionCertified,
    EngagedPerson,
    EngagementEnd,
    EngagementEnded,
    EngagementOpened,
    HandOverAuthorised,
)
from planier.access.v1.engagement_events_pb2 import Provider as ProviderMessage
from planier.common.v1.release_pb2 import Purpose
from stdnum.fr import siret as sirets

from services.access.convention import Convention, State, in_force
from services.access.deed import CONVENTION
from services.access.granting import granting_office
from services.access.instruments import Terms as AgreedTerms
from services.access.names import fold
from services.access.people import Identity, Person, identity_message, person_message, person_of
from services.access.purposes import faults
from services.access.term import midnight
from services.kernel.errors import Problem, Violation, conflict, invalid, not_found, precondition
from services.kernel.instants import is_instant

CONTEXT = b"planier-destruction/v1\n"
PROVIDER = "art8.provider"
DESTRUCTION = "art8.destruction"
_HASH_BYTES = 32


class EngagementStanding(Enum):
    """Where an engagement is in its life."""

    PLANNED = 1
    UNDER_WAY = 2
    DESTRUCTION_DUE = 3
    OVERDUE = 4
    CLOSED = 5


@dataclass(frozen=True, slots=True)
class Provider:
    """An organisation: the provider, or a subcontractor of it."""

    siret: str
    name: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who may receive hand-overs, and whom they work for."""

    person_id: str
    person: Person
    siret: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What an engagement bounds."""

    provider: Provider
    service: str
    purposes: frozenset[Purpose.ValueType]
    sources: frozenset[str]
    persons: tuple[Recipient, ...]
    subcontractors: tuple[Provider, ...]
    valid_from: datetime
    valid_until: datetime
    destruction_days: int
    certificate_key: bytes

    @property
    def sirets(self) -> frozenset[str]:
        """Everybody who may hold copies."""
        return frozenset({self.provider.siret, *(one.siret for one in self.subcontractors)})


@dataclass(frozen=True, slots=True)
class HandOver:
    """A package that may be made for one person."""

    hand_over_id: str
    person_id: str
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Engagement:
    """An engagement and what became of it."""

    engagement_id: str
    terms: Terms
    hand_overs: Mapping[str, HandOver] = field(default_factory=dict)
    # Before its last day.
    cut_at: datetime | None = None
    cause: EngagementEnd.ValueType = EngagementEnd.ENGAGEMENT_END_UNSPECIFIED
    document_hash: bytes = b""
    certified_at: datetime | None = None

    def ends(self, convention: Convention) -> datetime:
        """Its end, whatever the cause: its last day, an event, or the end of the convention whose data it covers."""
        found = [self.terms.valid_until]
        if self.cut_at is not None:
            found.append(self.cut_at)
        if convention.ends_at is not None and self.terms.sources & _sources_of(convention):
            found.append(convention.ends_at)
        return min(found)

    def certificate_due(self, convention: Convention) -> datetime:
        """The first instant at which the certificate is overdue: the local days run from the day after the end."""
        last = self.ends(convention).astimezone(convention.zone).date() + timedelta(days=self.terms.destruction_days)
        return midnight(last + timedelta(days=1), convention.zone)

    def standing(self, convention: Convention, at: datetime) -> EngagementStanding:
        """Its standing at an instant."""
        if self.certified_at is not None:
            return EngagementStanding.CLOSED
        if at >= self.certificate_due(convention):
            return EngagementStanding.OVERDUE
        if at >= self.ends(convention):
            return EngagementStanding.DESTRUCTION_DUE
        return EngagementStanding.UNDER_WAY if at >= self.terms.valid_from else EngagementStanding.PLANNED


@dataclass(frozen=True, slots=True)
class OpenEngagement:
    """Opens; the same id and terms again change nothing."""

    actor: Identity
    engagement_id: str
    terms: Terms
    record_id: str


@dataclass(frozen=True, slots=True)
class EndEngagement:
    """Ends at once; again changes nothing."""

    actor: Identity
    engagement_id: str
    cause: EngagementEnd.ValueType
    record_id: str


@dataclass(frozen=True, slots=True)
class AuthoriseHandOver:
    """Precedes each package; the same id and content again change nothing."""

    actor: Identity
    engagement_id: str
    hand_over: HandOver
    record_id: str


@dataclass(frozen=True, slots=True)
class CertifyDestruction:
    """Records the provider's certificate, bytes and signature; again changes nothing."""

    actor: Identity
    engagement_id: str
    certificate: bytes
    signature: bytes
    record_id: str


EngagementCommand = OpenEngagement | EndEngagement | AuthoriseHandOver | CertifyDestruction
EngagementEvent = EngagementOpened | EngagementEnded | HandOverAuthorised | DestructionCertified
EVENTS: Mapping[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (EngagementOpened, EngagementEnded, HandOverAuthorised, DestructionCertified)
}


def stream_of(event: EngagementEvent) -> str:
    """The stream that an event belongs to."""
    return f"engagement-{event.engagement_id}"


def overdue(state: State, at: datetime) -> tuple[Engagement, ...]:
    """The engagements whose certificate is late at an instant."""
    convention = state.convention
    if convention is None:
        return ()
    late = (one for one in state.engagements.values() if one.standing(convention, at) is EngagementStanding.OVERDUE)
    return tuple(late)


def require_recipient(state: State, engagement_id: str, person: Person, at: datetime) -> Engagement:
    """The engagement, under way, that names this person. Raises Problem where a hand-over may not go to them."""
    convention = in_force(state)
    engagement = _engagement(state, engagement_id)
    if engagement.standing(convention, at) is not EngagementStanding.UNDER_WAY:
        raise precondition("ENGAGEMENT_NOT_UNDER_WAY", "nothing is handed over outside its dates", PROVIDER)
    if not any(_same(one.person, person) for one in engagement.terms.persons):
        raise precondition("NOT_A_RECIPIENT", "the engagement does not name this person", PROVIDER)
    _require_nothing_owed(state, engagement.terms.sirets, at)
    return engagement


def decide(state: State, command: EngagementCommand, at: datetime) -> tuple[EngagementEvent, ...]:
    """The events that a command causes at an instant: none where nothing changes. Raises Problem where it may not."""
    convention = in_force(state)
    granting_office(state, command.actor, at)
    match command:
        case OpenEngagement():
            return _open(state, convention, command, at)
        case EndEngagement():
            return _end(state, convention, command, at)
        case AuthoriseHandOver():
            return _authorise(state, command, at)
    return _certify(state, convention, command, at)


def _open(state: State, convention: Convention, command: OpenEngagement, at: datetime) -> tuple[EngagementEvent, ...]:
    known = state.engagements.get(command.engagement_id)
    if known is not None:
        if known.terms == command.terms:
            return ()
        raise conflict("ENGAGEMENT_EXISTS", "this id names an engagement with other terms")
    violations = tuple(_violations(convention.terms(at), command.terms, at))
    if violations:
        raise invalid("ENGAGEMENT_INVALID", "the engagement is not well formed", *violations, clause=PROVIDER)
    _require_nothing_owed(state, command.terms.sirets, at)
    return (_opened(command),)


def _violations(agreed: AgreedTerms, terms: Terms, at: datetime) -> Iterable[Violation]:
    if not all(sirets.is_valid(siret) for siret in terms.sirets):
        yield Violation("provider.siret", "siret", "must be SIRET numbers")
    if len(terms.sirets) != 1 + len(terms.subcontractors):
        yield Violation("subcontractors", "unique", "each organisation is named once")
    for fault in faults(terms.purposes, agreed.purposes_of(terms.sources)):  # a package is derived from all its sources
        yield Violation("purposes", "art6.purpose", fault)
    if not terms.sources or terms.sources - agreed.sources:
        yield Violation("sources", "annex", "must be sources that the instruments in force list")
    if not terms.valid_from < terms.valid_until or terms.valid_until <= at:
        yield Violation("valid_until", "period", "must be after valid_from, and not over")
    if terms.destruction_days < 1:
        yield Violation("destruction_days", DESTRUCTION, "must be a number of days")
    if len(terms.certificate_key) != _HASH_BYTES:
        yield Violation("certificate_key", DESTRUCTION, "must be an Ed25519 key of 32 bytes")
    yield from _person_violations(terms)


def _person_violations(terms: Terms) -> Iterable[Violation]:
    ids = [one.person_id for one in terms.persons]
    if not ids or len(set(ids)) != len(ids):
        yield Violation("persons", "nominative", "at least one person, each once")
    if not all(fold(one.person.given_name) and fold(one.person.usual_name) for one in terms.persons):
        yield Violation("persons.person", "nominative", "given name and usual name are needed")
    if not {one.siret for one in terms.persons} <= terms.sirets:
        yield Violation("persons.siret", "nominative", "must be the provider's or a subcontractor's")


def _opened(command: OpenEngagement) -> EngagementOpened:
    terms = command.terms
    event = EngagementOpened(
        engagement_id=command.engagement_id,
        provider=_provider_message(terms.provider),
        service=terms.service,
        purposes=sorted(terms.purposes),
        sources=sorted(terms.sources),
        persons=[
            EngagedPerson(person_id=one.person_id, person=person_message(one.person), siret=one.siret)
            for one in terms.persons
        ],
        subcontractors=[_provider_message(one) for one in terms.subcontractors],
        destruction_days=terms.destruction_days,
        certificate_key=terms.certificate_key,
        opened_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    event.valid_from.FromDatetime(terms.valid_from)
    event.valid_until.FromDatetime(terms.valid_until)
    return event


def _end(state: State, convention: Convention, command: EndEngagement, at: datetime) -> tuple[EngagementEvent, ...]:
    engagement = _engagement(state, command.engagement_id)
    if at >= engagement.ends(convention):
        return ()
    event = EngagementEnded(
        engagement_id=command.engagement_id,
        cause=command.cause,
        ended_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def _authorise(state: State, command: AuthoriseHandOver, at: datetime) -> tuple[EngagementEvent, ...]:
    engagement = _engagement(state, command.engagement_id)
    hand_over = command.hand_over
    known = engagement.hand_overs.get(hand_over.hand_over_id)
    if known is not None and known != hand_over:
        raise conflict("HAND_OVER_EXISTS", "this id names a hand-over with other content")
    person = next((one.person for one in engagement.terms.persons if one.person_id == hand_over.person_id), None)
    if person is None:
        raise precondition("NOT_A_RECIPIENT", "the engagement does not name this person", PROVIDER)
    require_recipient(state, command.engagement_id, person, at)
    if not hand_over.sources or hand_over.sources - engagement.terms.sources:
        raise precondition("BEYOND_THE_ENGAGEMENT", "the engagement does not cover these sources", PROVIDER)
    if known is not None:
        return ()
    event = HandOverAuthorised(
        engagement_id=command.engagement_id,
        hand_over_id=hand_over.hand_over_id,
        person_id=hand_over.person_id,
        sources=sorted(hand_over.sources),
        authorised_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def _certify(
    state: State, convention: Convention, command: CertifyDestruction, at: datetime
) -> tuple[EngagementEvent, ...]:
    engagement = _engagement(state, command.engagement_id)
    certificate = verify(command.certificate, command.signature, engagement)
    if engagement.certified_at is not None:
        return ()
    ended = engagement.ends(convention)
    destroyed = certificate.destroyed_at.ToDatetime(UTC)
    if at < ended:
        raise precondition("ENGAGEMENT_UNDER_WAY", "end the engagement first", DESTRUCTION)
    if not ended <= destroyed <= at:
        raise precondition("CERTIFICATE_DATE", "destruction follows the end and precedes its certificate", DESTRUCTION)
    event = DestructionCertified(
        engagement_id=command.engagement_id,
        certificate=command.certificate,
        signature=command.signature,
        recorded_by=identity_message(command.actor),
        record_id=command.record_id,
    )
    return (event,)


def certificate_content(
    engagement_id: str, document_hash: bytes, destroyed_at: datetime, destroyed_by: Iterable[str]
) -> bytes:
    """The bytes of a certificate, which the provider signs; `destroyed_by`: SIRETs, subcontractors' included."""
    message = DestructionCertificate(
        engagement_id=engagement_id, document_hash=document_hash, sirets=sorted(destroyed_by)
    )
    message.destroyed_at.FromDatetime(destroyed_at)
    return message.SerializeToString(deterministic=True)


def sign(certificate: bytes, key: Ed25519PrivateKey) -> bytes:
    """The provider's signature over a certificate's bytes."""
    return key.sign(CONTEXT + certificate)


def verify(content: bytes, signature: bytes, engagement: Engagement) -> DestructionCertificate:
    """The certificate in the bytes, signed and covering everybody. Raises Problem CERTIFICATE_INVALID."""
    try:
        message = DestructionCertificate.FromString(content)
        Ed25519PublicKey.from_public_bytes(engagement.terms.certificate_key).verify(signature, CONTEXT + content)
    except (DecodeError, InvalidSignature, ValueError):
        raise _bad_certificate("the certificate is not the provider's") from None
    if message.engagement_id != engagement.engagement_id:
        raise _bad_certificate("the certificate is of another engagement")
    if len(message.document_hash) != _HASH_BYTES or not is_instant(message.destroyed_at):
        raise _bad_certificate("the certificate names no document, or no instant")
    if not engagement.terms.sirets <= set(message.sirets):
        raise _bad_certificate("the certificate leaves a subcontractor out")
    return message


def evolve(state: State, event: EngagementEvent, recorded_at: datetime) -> Mapping[str, Engagement]:
    """The engagements after an event."""
    if isinstance(event, EngagementOpened):
        return {**state.engagements, event.engagement_id: Engagement(event.engagement_id, _terms(event))}
    known = state.engagements[event.engagement_id]
    return {**state.engagements, event.engagement_id: _changed(known, event, recorded_at)}


def _changed(
    known: Engagement, event: EngagementEnded | HandOverAuthorised | DestructionCertified, recorded_at: datetime
) -> Engagement:
    match event:
        case EngagementEnded():
            return replace(known, cut_at=recorded_at, cause=event.cause)
        case HandOverAuthorised():
            made = HandOver(event.hand_over_id, event.person_id, frozenset(event.sources))
            return replace(known, hand_overs={**known.hand_overs, event.hand_over_id: made})
    document_hash = DestructionCertificate.FromString(event.certificate).document_hash
    return replace(known, document_hash=document_hash, certified_at=recorded_at)


def _terms(event: EngagementOpened) -> Terms:
    return Terms(
        provider=provider_of(event.provider),
        service=event.service,
        purposes=frozenset(event.purposes),
        sources=frozenset(event.sources),
        persons=tuple(recipient_of(one) for one in event.persons),
        subcontractors=tuple(provider_of(one) for one in event.subcontractors),
        valid_from=event.valid_from.ToDatetime(UTC),
        valid_until=event.valid_until.ToDatetime(UTC),
        destruction_days=event.destruction_days,
        certificate_key=event.certificate_key,
    )


def provider_of(message: ProviderMessage) -> Provider:
    """A message's organisation."""
    return Provider(message.siret, message.name)


def recipient_of(message: EngagedPerson) -> Recipient:
    """A message's recipient."""
    return Recipient(message.person_id, person_of(message.person), message.siret)


def _provider_message(provider: Provider) -> ProviderMessage:
    return ProviderMessage(siret=provider.siret, name=provider.name)


def _sources_of(convention: Convention) -> frozenset[str]:
    """The sources that the convention itself governs or governed."""
    every = (instrument for terms in convention.versions for instrument in terms.instruments)
    own = (instrument.sources for instrument in every if instrument.instrument_id == CONVENTION)
    return frozenset[str]().union(*own)


def _require_nothing_owed(state: State, involved: frozenset[str], at: datetime) -> None:
    if any(one.terms.sirets & involved for one in overdue(state, at)):
        raise precondition("DESTRUCTION_OVERDUE", "a certificate of destruction is overdue", DESTRUCTION)


def _engagement(state: State, engagement_id: str) -> Engagement:
    engagement = state.engagements.get(engagement_id)
    if engagement is None:
        raise not_found("ENGAGEMENT_UNKNOWN", "no such engagement")
    return engagement


def _same(one: Person, other: Person) -> bool:
    names = (fold(one.given_name), fold(one.usual_name))
    return all(names) and names == (fold(other.given_name), fold(other.usual_name))


def _bad_certificate(message: str) -> Problem:
    return invalid("CERTIFICATE_INVALID", message, clause=DESTRUCTION)
