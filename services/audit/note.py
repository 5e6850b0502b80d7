"""C2SP signed-note: text that one or more keys signed, and the keys that verify it (c2sp.org/signed-note).

Two kinds of Ed25519 key are known here, told apart by the algorithm byte of their key id: 0x01 signs the text as it
is, 0x04 signs a checkpoint as of a time (c2sp.org/tlog-cosignature, cosignature.py).
"""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
KEY_ID_SIZE = 4
# Half of a surrogate pair is no character, and has no bytes to sign.
_NO_TEXT = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
# The specification asks for at least 16.
MAX_SIGNATURES = 32


class NoteError(ValueError):
    """Not a signed note, or not one that the given key signed."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: key name, 4-byte key id, the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line as it stands in a note, its newline included."""
        return f"— {self.name} {b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A key that notes are verified with."""

    name: str
    key: Ed25519PublicKey

    def __post_init__(self) -> None:
        """Refuses a name that the note format cannot hold."""
        check_key_name(self.name)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name, newline, 0x01, public key), first four bytes."""
        return key_id_of(self.name, ED25519, self.key)

    def text(self) -> str:
        """The verifier key as people exchange it: "name+hash+base64(0x01, key)"."""
        return verifier_key(self.name, ED25519, self.key)

    @staticmethod
    def parse(text: str) -> "NoteVerifier":
        """Reads a verifier key; NoteError where its parts disagree."""
        return NoteVerifier(*parse_verifier_key(text, ED25519))

    def open(self, note: str) -> str:
        """The note's text once this key's signature on it holds.

        Signatures of other keys are ignored; one of this key that fails refuses the note (signed-note).
        """
        text, signatures = split_note(note)
        own = [line.signature for line in signatures if (line.name, line.key_id) == (self.name, self.key_id)]
        if not own:
            raise NoteError("no signature of this key")
        for signature in own:
            try:
                self.key.verify(signature, text.encode())
            except InvalidSignature as error:
                raise NoteError("the signature of this key does not hold") from error
        return text


class NoteSigner:
    """A private key that signs notes under its name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.verifier = NoteVerifier(name, key.public_key())
        self._key_id = self.verifier.key_id
        self._key = key

    def sign(self, text: str) -> str:
        """The text with this key's signature line; `text` ends in a newline."""
        if not text.endswith("\n") or not is_text(text):
            raise NoteError("a note's text ends in a newline and holds no other control character")
        return f"{text}\n{Signature(self.verifier.name, self._key_id, self._key.sign(text.encode())).line()}"


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """The text with this key's signature line; `text` ends in a newline."""
    return NoteSigner(name, key).sign(text)


def split_note(note: str) -> tuple[str, tuple[Signature, ...]]:
    """The text and the signature lines, none verified; NoteError where it is not a signed note."""
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not is_text(note):
        raise NoteError("not a signed note")
    return head + "\n", parse_signatures(tail)


def parse_signatures(text: str) -> tuple[Signature, ...]:
    """Signature lines without the text that they are on; NoteError where they are none."""
    if not text.endswith("\n") or not is_text(text):
        raise NoteError("not signature lines")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("too many signatures")
    return tuple(_signature(line) for line in lines)


def key_id_of(name: str, algorithm: bytes, key: Ed25519PublicKey) -> bytes:
    """SHA-256(name, newline, algorithm, public key), first four bytes."""
    return sha256(name.encode() + b"\n" + algorithm + key.public_bytes_raw()).digest()[:KEY_ID_SIZE]


def verifier_key(name: str, algorithm: bytes, key: Ed25519PublicKey) -> str:
    """The text of a verifier key (signed-note, "Verifier keys")."""
    encoded = b64encode(algorithm + key.public_bytes_raw()).decode()
    return f"{name}+{key_id_of(name, algorithm, key).hex()}+{encoded}"


def parse_verifier_key(text: str, algorithm: bytes) -> tuple[str, Ed25519PublicKey]:
    """The name and key of a verifier key of this algorithm; NoteError where its parts disagree."""
    parts = text.split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004 -- name, id, key
        raise NoteError("malformed verifier key")
    name, key_id, encoded = parts
    content = decode_base64(encoded)
    if content[:1] != algorithm:
        raise NoteError("a verifier key of another kind")
    try:
        key = Ed25519PublicKey.from_public_bytes(content[1:])
    except ValueError as error:
        raise NoteError("malformed verifier key") from error
    check_key_name(name)
    if key_id_of(name, algorithm, key).hex() != key_id:
        raise NoteError("the verifier key's hash is not that of its name and key")
    return name, key


def decode_base64(text: str, size: int | None = None) -> bytes:
    """The bytes of canonical base64, of `size` where given; NoteError otherwise."""
    try:
        content = b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError("not base64") from error
    # A second spelling of the same bytes would be a second note.
    if b64encode(content).decode() != text or (size is not None and len(content) != size):
        raise NoteError("not canonical base64 of the right size")
    return content


def decode_count(text: str) -> int:
    """A tree size or index: ASCII decimal without leading zeroes, below 2^63; NoteError otherwise."""
    # 19 digits first: int() of a very long text is slow, and refused by Python with another error.
    if not (text.isascii() and text.isdigit()) or (text != "0" and text.startswith("0")) or len(text) > 19:  # noqa: PLR2004
        raise NoteError("not a decimal without leading zeroes")
    value = int(text)
    if value >= 1 << 63:
        raise NoteError("a number beyond 2^63")
    return value


def check_key_name(name: str) -> None:
    """NoteError where the note format cannot hold this key name."""
    if not name or "+" in name or any(character.isspace() for character in name) or not is_text(name):
        raise NoteError("a key name is not empty and holds no space and no plus")


def is_text(text: str) -> bool:
    """Whether a note can hold this: UTF-8 without ASCII control characters other than newline."""
    return _NO_TEXT.search(text) is None


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise NoteError("malformed signature line")
    check_key_name(name)
    content = decode_base64(encoded)
    if len(content) <= KEY_ID_SIZE:
        raise NoteError("malformed signature line")
    return Signature(name, content[:KEY_ID_SIZE], content[KEY_ID_SIZE:])
