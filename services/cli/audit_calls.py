"""What auditors' commands share: streams of the log, checkpoints that verify, names that may be seen."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from planier.access.v1.access_pb2 import GetConventionRequest, ListClearancesRequest
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.audit.v1.audit_pb2 import (
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    ReplayEntry,
    ReplayFilter,
    ReplayRequest,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.oversight_pb2_grpc import OversightServiceStub
from planier.common.v1.release_pb2 import ReleaseMark

from services.audit import merkle
from services.audit.checkpoint import Checkpoint
from services.audit.hand_over import Keys
from services.audit.note import NoteError, NoteVerifier
from services.cli import session
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.profile import Profile
from services.kernel.errors import Problem, precondition
from services.kernel.keys import read_public_key

STREAM_DEADLINE = 3600.0
PAGE = 500
_REMEMBERED = "checkpoint.txt"
# Leave to list clearances is another office's; the log is read without names then.
_NO_NAMES = frozenset({"ACCESS_DENIED"})


class Replayed(NamedTuple):
    """One message of a replay: the pinned size, entries (the first message has none), and the first one's mark."""

    tree_size: int
    entries: list[ReplayEntry]
    release: ReleaseMark | None


async def replayed(
    profile: Profile,
    wanted: ReplayFilter,
    motive: str,
    person: str,
    *,
    limit: int = 0,
    deadline: float = STREAM_DEADLINE,
) -> AsyncIterator[Replayed]:
    """The messages of one replay, which is an access itself, recorded before the first of them."""
    signed_in = await session.current(profile, person)
    request = ReplayRequest(consultation=session.consultation("OVERSIGHT", motive), filter=wanted, limit=limit)
    async with channel(profile, "audit") as opened:
        call = AuditServiceStub(opened).Replay(request, timeout=deadline, metadata=signed_in.metadata)
        async for answer in call:
            marked = answer.HasField("release")
            if marked:
                Receipts(profile).keep(answer)
            yield Replayed(answer.tree_size, list(answer.entries), answer.release if marked else None)


async def oversee(profile: Profile, method: str, request: Any, person: str) -> Any:
    """One call of the oversight service under a person's session, its receipt kept."""
    signed_in = await session.current(profile, person)
    async with channel(profile, "audit") as opened:
        stub = OversightServiceStub(opened)
        answer = await getattr(stub, method)(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    return answer


async def overseen(profile: Profile, method: str, request: Any, person: str) -> AsyncIterator[Any]:
    """The messages of one stream of the oversight service, the first one's receipt kept."""
    signed_in = await session.current(profile, person)
    async with channel(profile, "audit") as opened:
        stub = OversightServiceStub(opened)
        call = getattr(stub, method)(request, timeout=STREAM_DEADLINE, metadata=signed_in.metadata)
        async for answer in call:
            if answer.HasField("release"):
                Receipts(profile).keep(answer)
            yield answer


class Head(NamedTuple):
    """The newest signed head, its note as signed, and the log's keys so far."""

    checkpoint: Checkpoint
    note: str
    keys: Keys


def opened_note(note: str, keys: Keys) -> Checkpoint:
    """The checkpoint in a note that a key of the log could sign, and did.

    Raises:
        Problem: CHECKPOINT_INVALID: it is not the log's word.
    """
    try:
        return keys.open(note)
    except NoteError as error:
        raise precondition("CHECKPOINT_INVALID", str(error)) from error


async def newest_head(profile: Profile) -> Head:
    """The newest signed head, which must extend the one that this client remembers; then it is the remembered one.

    Raises:
        Problem: CHECKPOINT_INVALID, or LOG_REWRITTEN: the log that was seen before is not in this one.
    """
    async with channel(profile, "audit") as opened:
        answer = await AuditServiceStub(opened).GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
    try:
        # Of what the service says of its key only the name is taken: the key is the one that this client was given.
        trusted = NoteVerifier(NoteVerifier.parse(answer.verifier_key).name, read_public_key(profile.log_key))
        keys = Keys.across(trusted, answer.hand_overs)
    except NoteError as error:
        raise precondition("CHECKPOINT_INVALID", str(error)) from error
    head = Head(opened_note(answer.checkpoint, keys), answer.checkpoint, keys)
    path = profile.client_folder / _REMEMBERED
    if path.is_file():
        await require_extension(profile, opened_note(path.read_text(), keys), head.checkpoint)
    path.write_text(answer.checkpoint)
    return head


async def require_extension(profile: Profile, first: Checkpoint, second: Checkpoint) -> None:
    """Proof that a later head extends an earlier one, verified here. Raises Problem LOG_REWRITTEN."""
    rewritten = precondition("LOG_REWRITTEN", "the log does not extend the one that this checkpoint was signed for")
    if first.origin != second.origin or first.size > second.size:
        raise rewritten
    if first.size in (0, second.size):
        if first.size and first.root != second.root:
            raise rewritten
        return
    request = GetConsistencyProofRequest(first_size=first.size, second_size=second.size)
    async with channel(profile, "audit") as opened:
        proof = (await AuditServiceStub(opened).GetConsistencyProof(request, timeout=DEADLINE)).hashes
    if not merkle.verify_consistency(first.size, second.size, first.root, second.root, proof):
        raise rewritten


async def names_of(profile: Profile, motive: str, person: str) -> dict[tuple[str, str], str]:
    """Names by (issuer, subject), of office holders and cleared persons, as far as access shows them to this person.

    They come from access, never from the log; who stands behind a pseudonym has no entry here.
    """
    signed_in = await session.current(profile, person)
    found: dict[tuple[str, str], str] = {}
    async with channel(profile, "access") as opened:
        stub = AccessServiceStub(opened)
        request = GetConventionRequest(consultation=session.consultation("OVERSIGHT", motive))
        convention = await stub.GetConvention(request, timeout=DEADLINE, metadata=signed_in.metadata)
        Receipts(profile).keep(convention)
        acts = [appointment.holder for appointment in convention.offices]
        for holder in (*convention.deed.office_holders, *acts):
            found[holder.identity.issuer, holder.identity.subject] = _name(holder.person)
        try:
            for clearance in await clearances_of(profile, motive, person):
                if clearance.identity.issuer:  # a pseudonym has none
                    found[clearance.identity.issuer, clearance.identity.subject] = _name(clearance.person)
        except Problem as problem:
            if problem.reason not in _NO_NAMES:
                raise
    return found


async def clearances_of(profile: Profile, motive: str, person: str) -> list[Any]:
    """Every clearance that access shows to an auditor, page after page."""
    signed_in = await session.current(profile, person)
    found: list[Any] = []
    token = ""
    async with channel(profile, "access") as opened:
        stub = AccessServiceStub(opened)
        while True:
            consultation = session.consultation("OVERSIGHT", motive)
            request = ListClearancesRequest(consultation=consultation, page_size=PAGE, page_token=token)
            answer = await stub.ListClearances(request, timeout=DEADLINE, metadata=signed_in.metadata)
            Receipts(profile).keep(answer)
            found.extend(answer.clearances)
            token = answer.next_page_token
            if not token:
                return found


def _name(person: Any) -> str:
    return f"{person.given_name} {person.usual_name}".strip()
