"""Tree heads: C2SP tlog-checkpoint, the text of a signed note (c2sp.org/tlog-checkpoint)."""

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256

from services.audit.note import NoteError, decode_base64, decode_count


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, the number of leaves, the tree hash."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text (tlog-checkpoint, no extension lines)."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Reads a checkpoint's text; NoteError where it is not one. Extension lines are allowed and ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):  # noqa: PLR2004 -- origin, size, root, end
        raise NoteError("a checkpoint has an origin, a size and a root")
    origin, size, root = lines[:3]
    return Checkpoint(origin, decode_count(size), decode_base64(root, sha256().digest_size))
