"""The deed: what both parties sign. Pure: bytes in, bytes or a verdict out.

A deed is signed, hashed and stored as bytes and never re-encoded; two encodings of one deed are two deeds.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PARTNER,
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_DATA_PROTECTION_OFFICER,
    ROLE_GRANTING_AUTHORITY,
    ROLE_PREFECTURE_VALIDATOR,
    Declarant,
    Deed,
    Instrument,
    Party,
    PartyKey,
    PartySignature,
)
from stdnum.fr import siret

from services.access import purposes
from services.kernel.errors import Violation, invalid
from services.kernel.instants import is_instant

CONTEXT = b"planier-deed/v1\n"
CONVENTION = "convention"
CITY_RULES = "city-rules"
PARTIES = (PARTY_CITY, PARTY_PREFECTURE)
PARTY_OF_INSTRUMENT = {CONVENTION: PARTY_PREFECTURE, CITY_RULES: PARTY_CITY}
OFFICES = (ROLE_GRANTING_AUTHORITY, ROLE_PREFECTURE_VALIDATOR, ROLE_AUDITOR, ROLE_DATA_PROTECTION_OFFICER)
_KEY_BYTES = 32
_HASH_HEX = 64
_INSTRUMENT_ID = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def build(
    description: Mapping[str, Any], *, annex_hash: str, keys: Mapping[Party.ValueType, Ed25519PublicKey]
) -> bytes:
    """The bytes of the deed that a description gives, with the annex's hash and the parties' keys filled in.

    The description is a Deed in the JSON mapping of protobuf, as parsed from YAML or JSON (snake_case names; dates may
    be YAML timestamps; enum values by their names, such as ROLE_AUDITOR). Raises Problem DEED_INVALID.
    """
    try:
        deed = ParseDict(plain(description), Deed())
    except ParseError:  # its text quotes values, and a deed holds names
        raise invalid("DEED_INVALID", "the description is not a Deed in the JSON mapping of protobuf") from None
    deed.annex_hash = annex_hash
    del deed.keys[:]
    deed.keys.extend(PartyKey(party=party, public_key=raw_public_key(keys[party])) for party in sorted(keys))
    check(deed)
    return deed.SerializeToString(deterministic=True)


def sign(deed: bytes, party: Party.ValueType, key: Ed25519PrivateKey) -> PartySignature:
    """One party's signature over the deed's bytes."""
    return PartySignature(party=party, signature=key.sign(CONTEXT + deed))


def verify(deed: bytes, signatures: Iterable[PartySignature], pinned: Mapping[Party.ValueType, bytes]) -> Deed:
    """The deed, once it is well formed, names the pinned keys and carries each party's good signature.

    `pinned` holds the 32 bytes of each party's key as the deployment knows it: keys inside a deed prove nothing alone.
    Raises Problem DEED_INVALID, DEED_KEY_UNKNOWN or DEED_SIGNATURE_INVALID.
    """
    parsed = parse(deed)
    check(parsed)
    named = {key.party: key.public_key for key in parsed.keys}
    given = list(signatures)
    if sorted(signature.party for signature in given) != sorted(PARTIES):
        raise invalid("DEED_SIGNATURE_INVALID", "one signature of each party is needed", clause="art2.documents")
    for signature in given:
        if named[signature.party] != pinned.get(signature.party):
            raise invalid("DEED_KEY_UNKNOWN", "a key in the deed is not the party's", clause="art2.documents")
        try:
            key = Ed25519PublicKey.from_public_bytes(named[signature.party])
            key.verify(signature.signature, CONTEXT + deed)
        except (InvalidSignature, ValueError):
            raise invalid("DEED_SIGNATURE_INVALID", "a signature is not good", clause="art2.documents") from None
    return parsed


def parse(deed: bytes) -> Deed:
    """The message in the bytes. Raises Problem DEED_INVALID."""
    try:
        return Deed.FromString(deed)
    except DecodeError:
        raise invalid("DEED_INVALID", "the deed's bytes are not a Deed") from None


def check(deed: Deed) -> None:
    """Raises Problem DEED_INVALID naming every field at fault, never its value."""
    violations = [
        *_texts(deed),
        *_keys(deed),
        *check_instruments(deed.instruments),
        *_offices(deed),
        *check_declarants(deed.declarants),
        *_organisations(deed),
    ]
    if violations:
        raise invalid("DEED_INVALID", "the deed is not well formed", *violations, clause="art2.documents")


def _fault(field: str, description: str) -> Violation:
    return Violation(field=field, rule="deed", description=description)


def _texts(deed: Deed) -> Iterable[Violation]:
    if not deed.convention_version:
        yield _fault("convention_version", "is missing")
    if len(deed.document_hash) != _KEY_BYTES:
        yield _fault("document_hash", "must be 32 bytes")
    if not is_hash(deed.annex_hash):
        yield _fault("annex_hash", "must be 64 lower-case hexadecimal digits")
    try:
        ZoneInfo(deed.time_zone)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a directory of the zone database
        yield _fault("time_zone", "must be an IANA time zone")


def _keys(deed: Deed) -> Iterable[Violation]:
    if sorted(key.party for key in deed.keys) != sorted(PARTIES):
        yield _fault("keys", "must be one of each party")
    if any(len(key.public_key) != _KEY_BYTES for key in deed.keys):
        yield _fault("keys.public_key", "must be 32 bytes")
    if len({key.public_key for key in deed.keys}) != len(deed.keys):
        yield _fault("keys.public_key", "must differ between the parties")


def is_hash(text: str) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal."""
    return len(text) == _HASH_HEX and not set(text) - set("0123456789abcdef")


def check_instruments(instruments: Collection[Instrument]) -> Iterable[Violation]:
    """What is wrong with the instruments of a deed or an amendment."""
    ids = [instrument.instrument_id for instrument in instruments]
    if CONVENTION not in ids or len(set(ids)) != len(ids):
        yield _fault("instruments.instrument_id", "must hold the convention, and each instrument once")
    sources = [source for instrument in instruments for source in instrument.sources]
    if len(set(sources)) != len(sources):
        yield _fault("instruments.sources", "a source has one governing instrument")
    for instrument in instruments:
        if not instrument.version or not instrument.sources:
            yield _fault("instruments", "version and sources are needed")
        if set(instrument.purposes) - _PURPOSES_THAT_MAY_STAND or not set(instrument.purposes) & purposes.ON_FACTS:
            yield _fault("instruments.purposes", "must hold purposes on facts and none that is refused by name")
        yield from _governing(instrument)


def _governing(instrument: Instrument) -> Iterable[Violation]:
    partner = instrument.instrument_id not in PARTY_OF_INSTRUMENT
    if not _INSTRUMENT_ID.match(instrument.instrument_id) or partner != (instrument.party == PARTY_PARTNER):
        yield _fault("instruments.party", "an instrument beside the convention and the City's rules is a partner's")
    if partner != instrument.HasField("expires_at") or not is_instant(instrument.expires_at):
        yield _fault("instruments.expires_at", "another partner's convention says when it ends, and no other does")
    # Signed for good: a founding whose term cannot be computed would be a store that nothing can read.
    if not is_instant(instrument.notified_at):
        yield _fault("instruments.notified_at", "must be an instant")


# A deed may repeat the purposes on the system, they add nothing on facts.
_PURPOSES_THAT_MAY_STAND = purposes.ON_FACTS | purposes.ON_SYSTEM


def _offices(deed: Deed) -> Iterable[Violation]:
    holders = deed.office_holders
    held = {(holder.role, holder.party) for holder in holders}
    for role, party in ((ROLE_GRANTING_AUTHORITY, PARTY_CITY), (ROLE_PREFECTURE_VALIDATOR, PARTY_PREFECTURE)):
        if (role, party) not in held or any(h.role == role and h.party != party for h in holders):
            yield _fault("office_holders", "the granting authority is the City's, the validator the Préfecture's")
    identities = [(holder.identity.issuer, holder.identity.subject) for holder in holders]
    if len(set(identities)) != len(identities):
        yield _fault("office_holders.identity", "one person holds one office")
    for holder in holders:
        if holder.role not in OFFICES or holder.party not in PARTIES:
            yield _fault("office_holders.role", "must be an office, of a party")
        if not (holder.identity.issuer and holder.identity.subject):
            yield _fault("office_holders.identity", "is missing")
        if not (holder.person.given_name and holder.person.usual_name and holder.act_reference):
            yield _fault("office_holders", "names and act of appointment are needed")
        if not holder.HasField("from") or not is_instant(getattr(holder, "from")):  # a keyword of Python
            yield _fault("office_holders.from", "is missing, or no instant")


def check_declarants(declarants: Collection[Declarant]) -> Iterable[Violation]:
    """What is wrong with the declaring systems of a deed or an amendment."""
    identities = [declarant.certificate_identity for declarant in declarants]
    if len(set(identities)) != len(identities) or not all(i.startswith("spiffe://") for i in identities):
        yield _fault("declarants.certificate_identity", "must be distinct spiffe URIs")
    if any(declarant.party not in (*PARTIES, PARTY_PARTNER) for declarant in declarants):
        yield _fault("declarants.party", "is missing")


def _organisations(deed: Deed) -> Iterable[Violation]:
    if any(item.party not in PARTIES or not siret.is_valid(item.siret) for item in deed.organisations):
        yield _fault("organisations", "must be valid SIRET numbers, of a party")


def plain(value: Any) -> Any:
    """YAML's values as JSON's: dates as RFC 3339 text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value
