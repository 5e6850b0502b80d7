"""C2SP tlog-proof: one file that proves offline that an entry is in a witnessed log (c2sp.org/tlog-proof)."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.merkle import HASH_SIZE
from services.audit.note import NoteError, decode_base64, decode_count, split_note

HEADER = "c2sp.org/tlog-proof@v1"
# A proof in a tree of 2^63 leaves.
MAX_HASHES = 63


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry's index, its inclusion proof, and the checkpoint as signed and cosigned.

    `extra` is opaque and proves nothing by itself; ours is salt ‖ record, from which the entry is computed.
    """

    index: int
    hashes: Sequence[bytes]
    checkpoint: str
    extra: bytes = b""

    def text(self) -> str:
        """The file."""
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += (b64encode(value).decode() for value in self.hashes)
        return "\n".join(lines) + f"\n\n{self.checkpoint}"

    def head(self) -> Checkpoint:
        """The tree head that the proof leads to; no signature verified."""
        return parse_checkpoint(split_note(self.checkpoint)[0])


def parse_proof(text: str) -> Proof:
    """Reads a proof, its checkpoint too; nothing is verified. NoteError where it is not one."""
    head, separator, checkpoint = text.partition("\n\n")
    header, *lines = head.split("\n")
    if not separator or header != HEADER:
        raise NoteError("not a proof of a log")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise NoteError("a proof states an index")
    index = decode_count(lines.pop(0).removeprefix("index "))
    if len(lines) > MAX_HASHES:
        raise NoteError("a proof has at most 63 hashes")
    proof = Proof(index, tuple(decode_base64(line, HASH_SIZE) for line in lines), checkpoint, extra)
    proof.head()
    return proof
