"""A version of the nominative list as bytes: built once, signed, verified and never re-encoded. Pure.

Canonical: the deterministic serialisation of a NominativeList whose persons stand in order of entry_id.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError
from planier.access.v1.list_events_pb2 import ListedPerson, ListKeys, ListSignature, NominativeList

from services.access.deed import raw_public_key
from services.access.names import fold
from services.access.people import Person, person_of
from services.kernel.errors import Problem, Violation, invalid
from services.kernel.instants import is_instant

# Who somebody is, as a registry clerk would compare: folded given name, usual name and service.
Key = tuple[str, str, str]

LIST_CONTEXT = b"planier-list/v1\n"
KEYS_CONTEXT = b"planier-list-keys/v1\n"
VALIDATION = "art7.validation"
HASH_BYTES = 32
_KEY_BYTES = 32
_MOST_KEYS = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One person of a version."""

    entry_id: str
    person: Person
    directorate: str


@dataclass(frozen=True, slots=True)
class Version:
    """A parsed version and the bytes that it was parsed from."""

    content: bytes = field(repr=False)
    number: int
    previous_hash: bytes
    convention_version: str
    expires_at: datetime
    entries: Mapping[str, Entry]
    # A version names no two persons of one key.
    by_key: Mapping[Key, Entry]

    @property
    def hash(self) -> bytes:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.content).digest()


@dataclass(frozen=True, slots=True)
class Keys:
    """The Préfecture's keys for its lists: how many of which must sign."""

    version: int = 0
    threshold: int = 0
    public_keys: frozenset[bytes] = frozenset()
    # The bytes that were signed.
    content: bytes = field(default=b"", repr=False)


def key_of(person: Person) -> Key:
    """What a clearance's person and a list's are compared by."""
    return fold(person.given_name), fold(person.usual_name), fold(person.service)


def build(
    number: int, previous_hash: bytes, convention_version: str, expires_at: datetime, persons: Iterable[ListedPerson]
) -> bytes:
    """The canonical bytes of a version. Raises Problem LIST_INVALID naming the fields, never a value."""
    ordered = sorted(persons, key=lambda person: person.entry_id)
    violations = tuple(_violations(ordered))
    if violations:
        raise invalid("LIST_INVALID", "the list is not well formed", *violations, clause="art7.services")
    message = NominativeList(
        convention_version=convention_version, version=number, previous_hash=previous_hash, persons=ordered
    )
    message.expires_at.FromDatetime(expires_at)
    return message.SerializeToString(deterministic=True)


def _violations(persons: Sequence[ListedPerson]) -> Iterable[Violation]:
    ids = [person.entry_id for person in persons]
    if len(set(ids)) != len(ids):
        yield Violation("persons.entry_id", "unique", "must be distinct")
    keys = [key_of(person_of(person.person)) for person in persons]
    for person, key in zip(persons, keys, strict=True):
        if not (key[0] and key[1]):
            yield Violation("persons.person", "nominative", "given name and usual name are needed (art7.list)")
        if not (key[2] and fold(person.directorate)):
            yield Violation("persons.directorate", "art7.services", "service and directorate are needed")
    if len(set(keys)) != len(keys):
        yield Violation("persons", "unique", "two persons of one service bear the same names; tell them apart")


def parse(content: bytes) -> Version:
    """The version in the bytes. Raises Problem LIST_INVALID where they are not the canonical bytes of one."""
    try:
        message = NominativeList.FromString(content)
    except DecodeError:
        raise invalid("LIST_INVALID", "the bytes are not a list", clause=VALIDATION) from None
    if not is_instant(message.expires_at):
        raise invalid("LIST_INVALID", "the list has no expiry", clause=VALIDATION)
    expires_at = message.expires_at.ToDatetime(UTC)
    rebuilt = build(message.version, message.previous_hash, message.convention_version, expires_at, message.persons)
    if rebuilt != content:
        raise invalid("LIST_INVALID", "the bytes are not canonical", clause=VALIDATION)
    entries = {one.entry_id: Entry(one.entry_id, person_of(one.person), one.directorate) for one in message.persons}
    return Version(
        content=content,
        number=message.version,
        previous_hash=message.previous_hash,
        convention_version=message.convention_version,
        expires_at=expires_at,
        entries=entries,
        by_key={key_of(entry.person): entry for entry in entries.values()},
    )


def sign(content: bytes, key: Ed25519PrivateKey) -> ListSignature:
    """One key's signature over a version's bytes."""
    return ListSignature(public_key=raw_public_key(key.public_key()), signature=key.sign(LIST_CONTEXT + content))


def require_signed(content: bytes, letter_hash: bytes, signatures: Iterable[ListSignature], keys: Keys) -> None:
    """Raises Problem unless the version is signed as it must be.

    With the Préfecture's own keys: by `threshold` of them, each counted once. Without: the letter's SHA-256 stands
    beside the validator's name.
    """
    if not keys.threshold:
        if len(letter_hash) != HASH_BYTES:
            raise invalid("LIST_LETTER_MISSING", "the hash of the signed letter is needed", clause=VALIDATION)
        return
    good = {one.public_key for one in signatures if one.public_key in keys.public_keys and _is_good(one, content)}
    if len(good) < keys.threshold:
        raise invalid("LIST_SIGNATURES_MISSING", "not enough good signatures of the Préfecture", clause=VALIDATION)


def _is_good(signature: ListSignature, content: bytes) -> bool:
    return _verifies(signature.public_key, signature.signature, LIST_CONTEXT + content)


def keys_content(version: int, threshold: int, public_keys: Iterable[bytes]) -> bytes:
    """The bytes of a set of keys, which the Préfecture's key of the deed signs."""
    message = ListKeys(version=version, threshold=threshold, public_keys=sorted(public_keys))
    return message.SerializeToString(deterministic=True)


def sign_keys(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature of the Préfecture's key of the deed over a set of keys."""
    return key.sign(KEYS_CONTEXT + content)


def verify_keys(content: bytes, signature: bytes, party_key: bytes) -> Keys:
    """The set of keys in the bytes, signed by the Préfecture's key of the deed. Raises Problem LIST_KEYS_INVALID."""
    try:
        message = ListKeys.FromString(content)
    except DecodeError:
        raise _bad_keys("the bytes are not a set of keys") from None
    public = frozenset(message.public_keys)
    distinct = len(public) == len(message.public_keys) <= _MOST_KEYS
    if not distinct or any(len(key) != _KEY_BYTES for key in public):
        raise _bad_keys("the keys must be distinct, of 32 bytes each")
    if not (1 <= message.threshold <= len(public) or (message.threshold == 0 and not public)):
        raise _bad_keys("the threshold must be between 1 and the number of keys")
    if not _verifies(party_key, signature, KEYS_CONTEXT + content):
        raise _bad_keys("the signature is not the Préfecture's")
    return Keys(message.version, message.threshold, public, content)


def _bad_keys(message: str) -> Problem:
    return invalid("LIST_KEYS_INVALID", message, clause=VALIDATION)


def _verifies(public_key: bytes, signature: bytes, content: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
