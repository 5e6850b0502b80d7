"""Signed tree heads: C2SP tlog-checkpoint in a C2SP signed-note, Ed25519 (signature type 0x01).

The bytes are those of c2sp.org/signed-note and c2sp.org/tlog-checkpoint, so that any witness or monitor reads them.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
KEY_ID_SIZE = 4
# The specification asks for at least 16.
MAX_SIGNATURES = 32


class NoteError(ValueError):
    """Not a signed note, or not one that the given key signed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, the number of leaves, the tree hash."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text (tlog-checkpoint, no extension lines)."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: key name, 4-byte key id, the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A key that notes are verified with."""

    name: str
    key: Ed25519PublicKey

    def __post_init__(self) -> None:
        """Refuses a name that the note format cannot hold."""
        if not _is_key_name(self.name):
            raise NoteError("a key name is not empty and holds no space and no plus")

    @property
    def key_id(self) -> bytes:
        """SHA-256(name, newline, 0x01, public key), first four bytes."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.key.public_bytes_raw()).digest()[:KEY_ID_SIZE]

    def text(self) -> str:
        """The verifier key as people exchange it: "name+hash+base64(0x01, key)"."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(ED25519 + self.key.public_bytes_raw()).decode()}"

    @staticmethod
    def parse(text: str) -> "NoteVerifier":
        """Reads a verifier key; NoteError where its parts disagree."""
        try:
            name, key_id, encoded = text.split("+", 2)
            key = b64decode(encoded, validate=True)
            if key[:1] != ED25519:
                raise NoteError("not an Ed25519 verifier key")
            verifier = NoteVerifier(name, Ed25519PublicKey.from_public_bytes(key[1:]))
        except (ValueError, Base64Error) as error:
            raise NoteError("malformed verifier key") from error
        if verifier.key_id.hex() != key_id:
            raise NoteError("the verifier key's hash is not that of its name and key")
        return verifier

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


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """The text with this key's signature line; `text` ends in a newline."""
    verifier = NoteVerifier(name, key.public_key())
    if not text.endswith("\n") or _has_control(text):
        raise NoteError("a note's text ends in a newline and holds no other control character")
    signature = b64encode(verifier.key_id + key.sign(text.encode())).decode()
    return f"{text}\n— {name} {signature}\n"


def split_note(note: str) -> tuple[str, tuple[Signature, ...]]:
    """The text and the signature lines, none verified; NoteError where it is not a signed note."""
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n") or _has_control(note):
        raise NoteError("not a signed note")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("too many signatures")
    return head + "\n", tuple(_signature(line) for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Reads a checkpoint's text; NoteError where it is not one. Extension lines are allowed and ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):  # noqa: PLR2004 -- origin, size, root, end
        raise NoteError("a checkpoint has an origin, a size and a root")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdigit()) or (size != "0" and size.startswith("0")):
        raise NoteError("the size is a decimal without leading zeroes")
    return Checkpoint(origin, int(size), _base64(root, sha256().digest_size))


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—" or not _is_key_name(name):
        raise NoteError("malformed signature line")
    content = _base64(encoded)
    if len(content) <= KEY_ID_SIZE:
        raise NoteError("malformed signature line")
    return Signature(name, content[:KEY_ID_SIZE], content[KEY_ID_SIZE:])


def _base64(text: str, size: int | None = None) -> bytes:
    try:
        content = b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError("not base64") from error
    # A second spelling of the same bytes would be a second note.
    if b64encode(content).decode() != text or (size is not None and len(content) != size):
        raise NoteError("not canonical base64 of the right size")
    return content


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _has_control(text: str) -> bool:
    return any(character < " " and character != "\n" for character in text)
