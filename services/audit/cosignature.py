"""A witness's word on a checkpoint: C2SP tlog-cosignature, Ed25519 (type 0x04).

It says that, as of its time, this is the largest consistent tree that the witness has seen of that log.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.audit.note import (
    NoteError,
    Signature,
    check_key_name,
    key_id_of,
    parse_verifier_key,
    split_note,
    verifier_key,
)

COSIGNATURE = b"\x04"
_TIME_SIZE = 8
_SIZE = _TIME_SIZE + 64


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness as those know it who verify its cosignatures."""

    name: str
    key: Ed25519PublicKey

    def __post_init__(self) -> None:
        """Refuses a name that the note format cannot hold."""
        check_key_name(self.name)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name, newline, 0x04, public key), first four bytes."""
        return key_id_of(self.name, COSIGNATURE, self.key)

    def text(self) -> str:
        """The verifier key: "name+hash+base64(0x04, key)"."""
        return verifier_key(self.name, COSIGNATURE, self.key)

    @staticmethod
    def parse(text: str) -> "Cosigner":
        """Reads a verifier key; NoteError where its parts disagree."""
        return Cosigner(*parse_verifier_key(text, COSIGNATURE))

    def open(self, note: str) -> tuple[Signature, int]:
        """This witness's first line on the note and its time in seconds since 1970, once every line of its holds."""
        text, signatures = split_note(note)
        own = [line for line in signatures if (line.name, line.key_id) == (self.name, self.key_id)]
        if not own:
            raise NoteError("no cosignature of this witness")
        times = [self._time(line.signature, text) for line in own]
        return own[0], times[0]

    def _time(self, signature: bytes, text: str) -> int:
        timestamp = int.from_bytes(signature[:_TIME_SIZE], "big")
        if len(signature) != _SIZE or not 0 < timestamp < 1 << 63:
            raise NoteError("malformed cosignature")
        try:
            self.key.verify(signature[_TIME_SIZE:], message(text, timestamp))
        except InvalidSignature as error:
            raise NoteError("the cosignature of this witness does not hold") from error
        return timestamp


def message(text: str, timestamp: int) -> bytes:
    """What a witness signs of a checkpoint's text (tlog-cosignature, "Ed25519 signed message")."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def cosign(text: str, name: str, key: Ed25519PrivateKey, timestamp: int) -> Signature:
    """A witness's line on a checkpoint's text, as of `timestamp`, seconds since 1970."""
    if not 0 < timestamp < 1 << 63:
        raise NoteError("a cosignature has a time")
    witness = Cosigner(name, key.public_key())
    signature = timestamp.to_bytes(_TIME_SIZE, "big") + key.sign(message(text, timestamp))
    return Signature(name, witness.key_id, signature)
