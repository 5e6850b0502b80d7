"""What may happen to one fact: pure decisions over the revisions that its stream holds.

A stream numbers its events as revisions: the declaration is revision 1, each amendment and the cancellation one more.
Idempotent for ever on (source, source_id, revision); an erasure ends the stream and none of it can come back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final, NamedTuple

from planier.ingest.v1.ingest_pb2 import (
    DECLARATION_STATE_AMENDED,
    DECLARATION_STATE_CANCELLED,
    DECLARATION_STATE_DECLARED,
    DECLARATION_STATE_ERASED,
    REFUSAL_REASON_CANCELLED,
    REFUSAL_REASON_ERASED,
    REFUSAL_REASON_REVISION_CONFLICT,
    REFUSAL_REASON_REVISION_GAP,
    REFUSAL_REASON_UNKNOWN_FACT,
    DeclarationState,
    RefusalReason,
)

SALT_SIZE: Final = 16


class Action(Enum):
    """What a declarer asks."""

    DECLARE = "declare"
    AMEND = "amend"
    CANCEL = "cancel"
    ERASE = "erase"


STATES: Final[Mapping[Action, "DeclarationState.ValueType"]] = {
    Action.DECLARE: DECLARATION_STATE_DECLARED,
    Action.AMEND: DECLARATION_STATE_AMENDED,
    Action.CANCEL: DECLARATION_STATE_CANCELLED,
    Action.ERASE: DECLARATION_STATE_ERASED,
}


class Command(NamedTuple):
    """One change asked for; `body` is its canonical bytes, compared under a salt, `salt` a fresh one.

    An erasure has no revision (0) and no body. A tuple, as whatever is made once a fact: half the cost of a dataclass.
    """

    action: Action
    fact_id: str
    revision: int
    party: str
    body: bytes = b""
    salt: bytes = b""


class Revision(NamedTuple):
    """One accepted revision; salt and digest are empty once erased."""

    number: int
    state: "DeclarationState.ValueType"
    salt: bytes
    digest: bytes
    position: int
    recorded_at_us: int
    party: str


class FactState(NamedTuple):
    """The revisions of one fact by number, and the newest."""

    revisions: Mapping[int, Revision]
    newest: Revision


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is to be appended, at this version of the stream."""

    version: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same thing was accepted before: the same answer."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: the reason, the clause that demands it, and what is wrong as (field, rule, description), no values."""

    reason: "RefusalReason.ValueType"
    violations: tuple[tuple[str, str, str], ...] = ()
    clause: str = ""


_FIRST = Accepted(1)
_GAP = Refusal(REFUSAL_REASON_REVISION_GAP, (("revision", "revision.next", "is not the next revision of this fact"),))
_NOT_FIRST = Refusal(
    REFUSAL_REASON_REVISION_GAP,
    (("revision", "revision.first", "a declaration is revision 1, later ones are amendments"),),
)
_CONFLICT = Refusal(
    REFUSAL_REASON_REVISION_CONFLICT,
    (("revision", "revision.body", "this revision was declared with another body"),),
)
_ERASED = Refusal(REFUSAL_REASON_ERASED)
_CANCELLED = Refusal(REFUSAL_REASON_CANCELLED)
_UNKNOWN = Refusal(REFUSAL_REASON_UNKNOWN_FACT)


def fact_id_of(source: str, source_id: str) -> str:
    """The fact's id: the first 16 bytes of SHA-256("planier-fact/v1" NUL source NUL source_id), hex."""
    return sha256(f"planier-fact/v1\0{source}\0{source_id}".encode()).hexdigest()[:32]


def stream_of(fact_id: str) -> str:
    """The stream of a fact."""
    return f"fact-{fact_id}"


def fact_of(stream: str) -> str:
    """The fact of a stream."""
    return stream.removeprefix("fact-")


def digest_of(salt: bytes, body: bytes) -> bytes:
    """What is kept to tell a retry from another body."""
    return sha256(salt + body).digest()


def decide(state: FactState | None, command: Command) -> Accepted | Duplicate | Refusal:
    """What becomes of a command on a fact in a state (None: never declared)."""
    if state is None:
        if command.action is not Action.DECLARE:
            return _UNKNOWN
        return _FIRST if command.revision == 1 else _NOT_FIRST
    newest = state.newest
    if newest.state == DECLARATION_STATE_ERASED:
        return Duplicate(newest) if command.action is Action.ERASE else _ERASED
    if command.action is Action.ERASE:
        return Accepted(newest.number + 1)
    known = state.revisions.get(command.revision)
    if known is not None:
        return Duplicate(known) if digest_of(known.salt, command.body) == known.digest else _CONFLICT
    return _decide_next(newest, command)


def _decide_next(newest: Revision, command: Command) -> Accepted | Refusal:
    if command.action is Action.DECLARE:
        return _NOT_FIRST
    if newest.state == DECLARATION_STATE_CANCELLED:
        return _CANCELLED
    return Accepted(newest.number + 1) if command.revision == newest.number + 1 else _GAP


def evolve(state: FactState | None, revision: Revision) -> FactState:
    """The state after one more accepted revision; an erasure forgets what the others said, and that there were any."""
    if revision.state == DECLARATION_STATE_ERASED or state is None:
        return FactState({revision.number: revision}, revision)
    return FactState({**state.revisions, revision.number: revision}, revision)
