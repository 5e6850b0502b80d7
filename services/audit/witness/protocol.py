"""The bytes of tlog-witness: the body of `add-checkpoint`, for the log that sends and the witness that reads."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.merkle import HASH_SIZE
from services.audit.note import NoteError, decode_base64, decode_count, split_note

ADD_CHECKPOINT = "add-checkpoint"
HAND_OVER = "hand-over"
SIZE_TYPE = "text/x.tlog.size"
MAX_HASHES = 63
# 63 hashes and a note of 32 signatures, some of them of another kind; far above what any log sends.
MAX_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size that the witness cosigned last, the proof from there, the checkpoint as the log signed it."""

    old: int
    proof: Sequence[bytes]
    note: str

    def body(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old}", *(b64encode(value).decode() for value in self.proof)]
        return ("\n".join(lines) + f"\n\n{self.note}").encode()

    def checkpoint(self) -> Checkpoint:
        """The head that is to be cosigned; no signature verified."""
        return parse_checkpoint(split_note(self.note)[0])


def parse_request(body: bytes) -> AddCheckpoint:
    """Reads a request and its checkpoint; nothing is verified. NoteError where it is not one."""
    head, separator, note = decode_text(body).partition("\n\n")
    first, *lines = head.split("\n")
    if not separator or not first.startswith("old ") or len(lines) > MAX_HASHES:
        raise NoteError("not a request to add a checkpoint")
    hashes = tuple(decode_base64(line, HASH_SIZE) for line in lines)
    request = AddCheckpoint(decode_count(first.removeprefix("old ")), hashes, note)
    request.checkpoint()
    return request


def decode_text(body: bytes) -> str:
    """A body as text; NoteError where it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise NoteError("not UTF-8") from error
