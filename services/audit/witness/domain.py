"""What a witness cosigns: only a tree that it has seen grow, of a log that it knows. Pure."""

from dataclasses import dataclass

from services.audit.checkpoint import Checkpoint
from services.audit.hand_over import HandOver, Keys
from services.audit.merkle import EMPTY_ROOT, verify_consistency
from services.audit.note import NoteError
from services.audit.witness.protocol import AddCheckpoint

BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 400, 403, 404, 409, 422


@dataclass(frozen=True, slots=True)
class Head:
    """The newest head of one log that this witness cosigned; size 0 where it has cosigned none."""

    size: int
    root: bytes


NOTHING = Head(0, EMPTY_ROOT)


class Refusal(Exception):  # noqa: N818 -- an answer of the protocol
    """The status of tlog-witness with which a request is refused; `signed` where the log's own signature is on it."""

    def __init__(self, status: int, reason: str, *, signed: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.signed = signed


def decide(request: AddCheckpoint, keys: Keys | None, latest: Head) -> Checkpoint:
    """The checkpoint to cosign, `latest` being the log's newest that was (tlog-witness, "add-checkpoint").

    Raises:
        Refusal: as the protocol says.
    """
    if keys is None:
        raise Refusal(NOT_FOUND, "no such log here")
    try:
        checkpoint = keys.open(request.note)
    except NoteError as error:
        raise Refusal(FORBIDDEN, str(error)) from error
    if request.old > checkpoint.size:
        raise Refusal(BAD_REQUEST, "the old size is greater than the checkpoint's")
    if request.old != latest.size:
        raise Refusal(CONFLICT, "the old size is not that of the newest cosigned checkpoint")
    if not _follows(request, checkpoint, latest):
        raise Refusal(UNPROCESSABLE, "the checkpoint is not shown to extend the newest cosigned one", signed=True)
    return checkpoint


def _follows(request: AddCheckpoint, checkpoint: Checkpoint, latest: Head) -> bool:
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        return False
    if latest.size == 0:
        # Every tree extends the empty one: there is nothing to prove.
        return not request.proof
    return verify_consistency(latest.size, checkpoint.size, latest.root, checkpoint.root, request.proof)


def decide_hand_over(hand_over: HandOver, keys: Keys | None, latest: Head) -> None:
    """Whether the log's next key may be trusted: the present one names it, over no tree that was left behind.

    Raises:
        Refusal: an unknown log, a key that is not its present one, or a head that contradicts what was cosigned.
    """
    if keys is None:
        raise Refusal(NOT_FOUND, "no such log here")
    if hand_over.old != keys.verifiers[-1]:
        raise Refusal(FORBIDDEN, "not handed over by the log's present key")
    if hand_over.head.size < max(latest.size, *keys.bounds, 0):
        raise Refusal(CONFLICT, "a larger tree was cosigned already", signed=True)
    if hand_over.head.size == latest.size and hand_over.head.root != latest.root:
        raise Refusal(UNPROCESSABLE, "another tree of that size was cosigned", signed=True)
