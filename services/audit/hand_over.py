"""Change of the log's key with continuity: the old key names the new one, the new one names the old.

A hand-over is a signed note of both keys over the tree's head at that moment. Who trusts any key of a log can follow
hand-overs to all the others; of each key it knows for which sizes it could sign, so that a retired key signs nothing
new.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.merkle import HASH_SIZE
from services.audit.note import NoteError, NoteVerifier, decode_base64, decode_count, sign_note, split_note

# The second line of a checkpoint is a number, of a hand-over the origin: neither can be taken for the other.
HEADER = "planier-key-hand-over/v1"
_LINES = 7


@dataclass(frozen=True, slots=True)
class HandOver:
    """From `size` on the log signs with `new`; up to it, with `old`."""

    head: Checkpoint
    old: NoteVerifier
    new: NoteVerifier

    def text(self) -> str:
        """The note's text."""
        root = b64encode(self.head.root).decode()
        lines = [HEADER, self.head.origin, str(self.head.size), root, self.old.text(), self.new.text()]
        return "\n".join(lines) + "\n"


def sign_hand_over(head: Checkpoint, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> str:
    """The note by which `old` names `new` as the log's key after `head`, signed by both."""
    hand_over = HandOver(head, NoteVerifier(head.origin, old.public_key()), NoteVerifier(head.origin, new.public_key()))
    if hand_over.old == hand_over.new:
        raise NoteError("a hand-over is to another key")
    text = hand_over.text()
    return sign_note(text, head.origin, old) + "".join(
        line.line() for line in split_note(sign_note(text, head.origin, new))[1]
    )


def open_hand_over(note: str) -> HandOver:
    """A hand-over that both of its keys signed; whether either is trusted is another question."""
    text, _ = split_note(note)
    lines = text.split("\n")
    if len(lines) != _LINES or lines[0] != HEADER or lines[-1]:
        raise NoteError("not a hand-over of a log's key")
    _, origin, size, root, old, new, _ = lines
    head = Checkpoint(origin, decode_count(size), decode_base64(root, HASH_SIZE))
    hand_over = HandOver(head, NoteVerifier.parse(old), NoteVerifier.parse(new))
    if {hand_over.old.name, hand_over.new.name} != {origin} or hand_over.old.key_id == hand_over.new.key_id:
        raise NoteError("a hand-over names two keys of one log")
    for verifier in (hand_over.old, hand_over.new):
        verifier.open(note)
    return hand_over


@dataclass(frozen=True, slots=True)
class Keys:
    """A log's keys in order, each with the sizes that it may sign: from its hand-over until the next, both included."""

    verifiers: tuple[NoteVerifier, ...]
    # Of each hand-over, the size; one less than there are keys.
    bounds: tuple[int, ...] = ()

    @staticmethod
    def across(trusted: NoteVerifier, hand_overs: Sequence[str]) -> "Keys":
        """The log's keys by hand-overs in order, of which one names the trusted key.

        Raises:
            NoteError: a hand-over does not hold or does not follow, or none leads to the trusted key.
        """
        opened = [open_hand_over(note) for note in hand_overs]
        verifiers = [opened[0].old if opened else trusted]
        bounds = list[int]()
        for hand_over in opened:
            if hand_over.old != verifiers[-1] or hand_over.head.size < max(bounds, default=0):
                raise NoteError("a hand-over does not follow the one before it")
            verifiers.append(hand_over.new)
            bounds.append(hand_over.head.size)
        if trusted not in verifiers:
            raise NoteError("no hand-over leads to the trusted key")
        return Keys(tuple(verifiers), tuple(bounds))

    @property
    def origin(self) -> str:
        """The log's origin, which is the name of its keys."""
        return self.verifiers[0].name

    def of_size(self, size: int) -> list[NoteVerifier]:
        """The keys that may sign the head of this size: one, at a hand-over two."""
        lows, highs = (0, *self.bounds), (*self.bounds, size)
        spans = zip(self.verifiers, lows, highs, strict=True)
        return [verifier for verifier, low, high in spans if low <= size <= high]

    def open(self, note: str) -> Checkpoint:
        """The checkpoint once a key that may sign its size has, and no such key's signature fails; else NoteError."""
        text, signatures = split_note(note)
        checkpoint = parse_checkpoint(text)
        if checkpoint.origin != self.origin:
            raise NoteError("a checkpoint of another log")
        present = {(line.name, line.key_id) for line in signatures}
        signed = [v for v in self.of_size(checkpoint.size) if (v.name, v.key_id) in present]
        if not signed:
            raise NoteError("no signature of a key that may sign this size")
        for verifier in signed:
            verifier.open(note)
        return checkpoint
