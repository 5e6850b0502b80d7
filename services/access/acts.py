"""Acts: what a party or both sign after the deed. Pure: bytes in, a verified act out.

Like the deed, an act is signed, hashed and stored as bytes and never re-encoded.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1.events_pb2 import (
    APPOINTMENT_KIND_DELEGATION,
    APPOINTMENT_KIND_HOLDER,
    APPOINTMENT_KIND_UNSPECIFIED,
    PARTY_CITY,
    ROLE_GRANTING_DELEGATE,
    TERMINATION_REASON_BREACH,
    TERMINATION_REASON_MUTUAL,
    Act,
    Amendment,
    Appointment,
    Denunciation,
    Destruction,
    Discharge,
    Notification,
    Party,
    PartySignature,
    Termination,
)

from services.access import deed as deeds
from services.access.instruments import HOUSE_RULES
from services.access.offices import PARTIES_OF_OFFICE
from services.kernel.errors import Violation, invalid
from services.kernel.instants import is_instant

CONTEXT = b"planier-act/v1\n"
_HASH_BYTES = 32
_BOTH = frozenset(deeds.PARTIES)


def build(description: Mapping[str, Any], deed_hash: bytes) -> bytes:
    """The bytes of the act that a description gives (protobuf's JSON mapping, as YAML), upon the deed of that hash.

    Raises Problem ACT_INVALID.
    """
    try:
        act = ParseDict(deeds.plain(description), Act())
    except ParseError:  # its text quotes values, and an act may hold names
        raise invalid("ACT_INVALID", "the description is not an Act in the JSON mapping of protobuf") from None
    act.deed_hash = deed_hash
    check(act)
    return act.SerializeToString(deterministic=True)


def sign(act: bytes, party: Party.ValueType, key: Ed25519PrivateKey) -> PartySignature:
    """One party's signature over the act's bytes."""
    return PartySignature(party=party, signature=key.sign(CONTEXT + act))


def verify(act: bytes, signatures: Iterable[PartySignature], pinned: Mapping[Party.ValueType, bytes]) -> Act:
    """The act, once it is well formed and every signature good, of the parties that its kind needs.

    `pinned` holds the 32 bytes of each party's key as the deployment knows it.
    Raises Problem ACT_INVALID or ACT_SIGNATURE_INVALID.
    """
    parsed = parse(act)
    check(parsed)
    given = list(signatures)
    signers = [signature.party for signature in given]
    if len(set(signers)) != len(signers) or not needed(parsed) <= set(signers):
        raise invalid(
            "ACT_SIGNATURE_INVALID", "the signatures that this act needs are missing", clause="art2.documents"
        )
    for signature in given:
        try:
            key = Ed25519PublicKey.from_public_bytes(pinned.get(signature.party, b""))
            key.verify(signature.signature, CONTEXT + act)
        except (InvalidSignature, ValueError):
            raise invalid("ACT_SIGNATURE_INVALID", "a signature is not good", clause="art2.documents") from None
    return parsed


def parse(act: bytes) -> Act:
    """The message in the bytes. Raises Problem ACT_INVALID."""
    try:
        return Act.FromString(act)
    except DecodeError:
        raise invalid("ACT_INVALID", "the act's bytes are not an Act") from None


def digest(content: bytes) -> bytes:
    """SHA-256, as acts name a deed and a state remembers an act."""
    return hashlib.sha256(content).digest()


def needed(act: Act) -> frozenset[Party.ValueType]:
    """The parties that must sign it: both where the terms or the term change, else the one whose act it is."""
    match content_of(act):
        case Denunciation(party=party) | Discharge(party=party):
            return frozenset({party})
        case Termination(party=party, reason=reason):
            return _BOTH if reason == TERMINATION_REASON_MUTUAL else frozenset({party})
        case Appointment(holder=holder):
            return frozenset({holder.party})
        case Destruction():
            return frozenset({PARTY_CITY})
    return _BOTH


def content_of(act: Act) -> Message | None:
    """What the act says, or None where it says nothing."""
    kind = act.WhichOneof("content")
    return getattr(act, kind) if kind else None


def check(act: Act) -> None:
    """Raises Problem ACT_INVALID naming every field at fault, never its value."""
    violations = [*_identity(act), *_content(act)]
    if violations:
        raise invalid("ACT_INVALID", "the act is not well formed", *violations, clause="art2.documents")


def _fault(field: str, description: str) -> Violation:
    return Violation(field=field, rule="act", description=description)


def _identity(act: Act) -> Iterable[Violation]:
    try:
        known = str(UUID(act.act_id)) == act.act_id
    except ValueError:
        known = False
    if not known:
        yield _fault("act_id", "must be a UUID in lower case")
    if len(act.deed_hash) != _HASH_BYTES:
        yield _fault("deed_hash", "must be 32 bytes")


def _content(act: Act) -> Iterable[Violation]:
    match content_of(act):
        case Notification() as notification:
            yield from _moment("notification.notified_at", notification.notified_at)
            yield from _reference("notification.act_reference", notification.act_reference)
        case Amendment() as amendment:
            yield from _amendment(amendment)
        case Denunciation() as denunciation:
            yield from _party("denunciation.party", denunciation.party)
            yield from _moment("denunciation.received_at", denunciation.received_at)
            yield from _reference("denunciation.letter_reference", denunciation.letter_reference)
        case Termination() as termination:
            yield from _party("termination.party", termination.party)
            yield from _reference("termination.act_reference", termination.act_reference)
            if termination.reason not in (TERMINATION_REASON_MUTUAL, TERMINATION_REASON_BREACH):
                yield _fault("termination.reason", "is missing")
        case Destruction() as destruction:
            yield from _moment("destruction.destroyed_at", destruction.destroyed_at)
            if len(destruction.certificate_hash) != _HASH_BYTES:
                yield _fault("destruction.certificate_hash", "must be 32 bytes")
        case Appointment() as appointment:
            yield from _appointment(appointment)
        case Discharge() as discharge:
            yield from _office("discharge", discharge)
            yield from _reference("discharge.act_reference", discharge.act_reference)
        case _:
            yield _fault("content", "is missing")


def _amendment(amendment: Amendment) -> Iterable[Violation]:
    if not amendment.version or not amendment.previous_version:
        yield _fault("amendment.version", "both versions are needed")
    if len(amendment.document_hash) != _HASH_BYTES:
        yield _fault("amendment.document_hash", "must be 32 bytes")
    if not deeds.is_hash(amendment.annex_hash):
        yield _fault("amendment.annex_hash", "must be 64 lower-case hexadecimal digits")
    if amendment.policy_hash and not deeds.is_hash(amendment.policy_hash):
        yield _fault("amendment.policy_hash", "must be 64 lower-case hexadecimal digits")
    rules = [rule.rule_id for rule in amendment.house_rules]
    if len(set(rules)) != len(rules) or set(rules) - HOUSE_RULES:
        yield _fault("amendment.house_rules", "must be house rules that this version executes, once each")
    if not is_instant(amendment.effective_at):
        yield _fault("amendment.effective_at", "must be an instant")
    yield from deeds.check_instruments(amendment.instruments)
    yield from deeds.check_declarants(amendment.declarants)


def _appointment(appointment: Appointment) -> Iterable[Violation]:
    holder = appointment.holder
    yield from _office("appointment.holder", holder)
    yield from _reference("appointment.holder.act_reference", holder.act_reference)
    yield from _moment("appointment.holder.from", getattr(holder, "from"))  # a keyword of Python
    if not (holder.person.given_name and holder.person.usual_name):
        yield _fault("appointment.holder.person", "names are needed")
    if appointment.kind == APPOINTMENT_KIND_UNSPECIFIED:
        yield _fault("appointment.kind", "is missing")
    if (appointment.kind == APPOINTMENT_KIND_DELEGATION) != (holder.role == ROLE_GRANTING_DELEGATE):
        yield _fault("appointment.kind", "a delegation of signature makes a delegate, and nothing else does")
    if appointment.kind != APPOINTMENT_KIND_HOLDER and not appointment.HasField("until"):
        yield _fault("appointment.until", "an interim and a delegation end")
    if appointment.HasField("until"):
        yield from _moment("appointment.until", appointment.until)


def _office(field: str, holder: Any) -> Iterable[Violation]:
    if holder.party not in PARTIES_OF_OFFICE.get(holder.role, ()):
        yield _fault(f"{field}.role", "must be an office, of a party that fills it")
    if not (holder.identity.issuer and holder.identity.subject):
        yield _fault(f"{field}.identity", "is missing")


def _party(field: str, party: Party.ValueType) -> Iterable[Violation]:
    if party not in deeds.PARTIES:
        yield _fault(field, "must be a party to the convention")


def _moment(field: str, moment: Timestamp) -> Iterable[Violation]:
    if not moment.seconds or not is_instant(moment):
        yield _fault(field, "is missing, or no instant")


def _reference(field: str, reference: str) -> Iterable[Violation]:
    if not reference:
        yield _fault(field, "the act is to be cited")


def is_after(moment: Timestamp, at: datetime) -> bool:
    """Whether an instant that an act states lies in the future of its recording."""
    return moment.ToDatetime(at.tzinfo) > at
