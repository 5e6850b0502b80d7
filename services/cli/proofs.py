"""`planier audit receipt` and its like: what leaves the log to be verified, or cosigned, by others."""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from planier.audit.v1.audit_pb2 import (
    AddCosignaturesRequest,
    GetCheckpointRequest,
    GetCheckpointResponse,
    GetConsistencyProofRequest,
    ProveAccessRequest,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub

from services.audit.checkpoint import parse_checkpoint
from services.audit.copy import CHECKPOINT, WITNESSED, Copied, CopyRefused, copy_log
from services.audit.note import NoteVerifier, split_note
from services.audit.witness.protocol import AddCheckpoint
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.audit import audit, readable
from services.cli.connection import DEADLINE, WORKSTATION, Receipts, channel
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.kernel.errors import Problem, not_found, precondition, unavailable
from services.kernel.keys import read_public_key

if TYPE_CHECKING:
    import httpx

OutOption = Annotated[Path | None, typer.Option("--out", help="Write to this file; standard output by default.")]


@audit.command()
def receipt(
    record: Annotated[str, typer.Argument(help="The id of the access, as its answer stated it.")],
    out: OutOption = None,
    motive: MotiveOption = "preuve d'un accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Prove one access: a file that anybody verifies offline with tools/verify_access_log.py and three public keys."""
    perform(_receipt(record, motive, person, out, as_json=as_json), as_json=as_json)


@audit.command()
def consistency(
    old: Annotated[Path, typer.Argument(help="A checkpoint that was kept.")],
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that the log only grew since a checkpoint; the file ends in the newest one."""
    try:
        size = parse_checkpoint(split_note(old.read_text())[0]).size
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="old") from None
    perform(_extension(size, out, as_json=as_json), as_json=as_json)


@audit.command("witness-request")
def witness_request(
    party: Annotated[str, typer.Argument(help="CITY or PREFECTURE.")],
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what the witness of a party without a server is asked to cosign (services.audit.witness.by_file)."""
    perform(_witness_request(party, out, as_json=as_json), as_json=as_json)


@audit.command()
def cosignature(
    file: Annotated[Path, typer.Argument(help="The checkpoint with the witness's cosignature.")],
    as_json: JsonOption = False,
) -> None:
    """Hand in a cosignature that came as a file."""
    try:
        note = file.read_text()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="file") from None
    perform(_cosignature(note, as_json=as_json), as_json=as_json)


@audit.command()
def tiles(
    folder: Annotated[Path, typer.Argument(help="Made, or brought up to date.")],
    newest: Annotated[bool, typer.Option("--newest", help="Also what is not cosigned yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the log's checkpoint, tiles and entries (hashes only), and check that they extend the copy before."""
    perform(_tiles(folder, CHECKPOINT if newest else WITNESSED, as_json=as_json), as_json=as_json)


@audit.command()
def fold(
    database: Annotated[str, typer.Argument(help="A copy of the log's database, as an SQLAlchemy URL.")],
    key: Annotated[Path | None, typer.Option(help="The log's public key, PEM.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a copy, record by record, to the root of its newest signed head: the quick check; verify names faults."""
    perform(_fold(database, key, as_json=as_json), as_json=as_json)


async def _receipt(record: str, motive: str, person: str, out: Path | None, *, as_json: bool) -> None:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    request = ProveAccessRequest(consultation=session.consultation("OVERSIGHT", motive), record_id=record)
    async with channel(profile, "audit") as opened:
        answer = await AuditServiceStub(opened).ProveAccess(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    known = {
        "index": answer.index,
        "not_cosigned_by": list(answer.not_cosigned_by),
        "erased": answer.erased,
        "masked": answer.masked,
    }
    _give(answer.proof, out, known, as_json=as_json)


async def _extension(size: int, out: Path | None, *, as_json: bool) -> None:
    async with channel(Profile.load(), "audit") as opened:
        stub = AuditServiceStub(opened)
        head = await stub.GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
        text, known = await _extending(stub, size, head.witnessed_checkpoint or head.checkpoint)
    _give(text, out, known, as_json=as_json)


async def _witness_request(party: str, out: Path | None, *, as_json: bool) -> None:
    async with channel(Profile.load(), "audit") as opened:
        stub = AuditServiceStub(opened)
        head: GetCheckpointResponse = await stub.GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
        standing = next((item for item in head.witnesses if item.party == party), None)
        if standing is None:
            raise not_found("WITNESS_NOT_FOUND", "the log has no witness of that party")
        note = head.offered_checkpoint or head.witnessed_checkpoint or head.checkpoint
        text, known = await _extending(stub, standing.cosigned_size, note)
    _give(text, out, known, as_json=as_json)


async def _extending(stub: Any, old: int, note: str) -> tuple[str, dict[str, Any]]:
    """A tlog-witness request: the proof from the tree of `old` to the checkpoint of the note."""
    size = parse_checkpoint(split_note(note)[0]).size
    if old > size:
        raise precondition("CHECKPOINT_BEHIND", "the log's checkpoint is older than that one")
    hashes: tuple[bytes, ...] = ()
    if 0 < old < size:
        request = GetConsistencyProofRequest(first_size=old, second_size=size)
        hashes = tuple((await stub.GetConsistencyProof(request, timeout=DEADLINE)).hashes)
    return AddCheckpoint(old, hashes, note).body().decode(), {"from": old, "to": size}


async def _cosignature(note: str, *, as_json: bool) -> None:
    async with channel(Profile.load(), "audit") as opened:
        request = AddCosignaturesRequest(checkpoint=note)
        answer = await AuditServiceStub(opened).AddCosignatures(request, timeout=DEADLINE)
    if as_json:
        print_json({"tree_size": answer.tree_size, "cosigned_by": list(answer.cosigned_by)})
        return
    console.print(f"{answer.tree_size} records cosigned by {', '.join(answer.cosigned_by)}", highlight=False)


async def _tiles(folder: Path, source: str, *, as_json: bool) -> None:
    copied = await copied_tiles(Profile.load(), folder, source)
    if as_json:
        print_json({"tree_size": copied.checkpoint.size, "fetched": copied.fetched})
        return
    console.print(f"{copied.checkpoint.size} entries, {copied.fetched} files fetched", highlight=False)


async def copied_tiles(profile: Profile, folder: Path, source: str) -> Copied:
    """The log's tiles, entries and checkpoint in a folder, verified. Raises Problem where they do not hold together."""
    import httpx

    from services.kernel.https import client_context

    async with channel(profile, "audit") as opened:
        head = await AuditServiceStub(opened).GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
    # Of what the service says of its key only the name is taken: the key is the one that this client was given.
    trusted = NoteVerifier(NoteVerifier.parse(head.verifier_key).name, read_public_key(profile.log_key))
    context = client_context(profile.tls(WORKSTATION))
    async with httpx.AsyncClient(verify=context, timeout=DEADLINE, trust_env=False) as client:

        async def fetch(path: str) -> bytes:
            answer = await client.get(f"{profile.tiles}/{path}")
            answer.raise_for_status()
            return answer.content

        try:
            return await copy_log(fetch, folder, trusted, source)
        except CopyRefused as refused:
            raise precondition("COPY_REFUSED", str(refused)) from refused
        except httpx.HTTPError as lost:
            raise _unserved(lost) from lost


async def _fold(database: str, key: Path | None, *, as_json: bool) -> None:
    from services.audit.folding import fold_database

    try:
        public_key = read_public_key(key or Profile.load().log_key)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--key") from None
    try:
        with readable("database"):
            found = await asyncio.to_thread(fold_database, database, public_key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="database") from None
    if as_json:
        print_json({"sound": found.sound, "tree_size": found.size, "root_hash": found.root.hex()})
    else:
        word = "[green]sound[/green]" if found.sound else "[red]NOT SOUND[/red]"
        console.print(f"{word}: {found.size} records, root {found.root.hex()}")
    if not found.sound:
        raise SystemExit(1)


def _unserved(lost: "httpx.HTTPError") -> Problem:
    answer = getattr(lost, "response", None)
    if answer is not None and answer.status_code == HTTPStatus.NOT_FOUND:
        return not_found("NOT_PUBLISHED", "the log has not published this; nothing may be witnessed yet (--newest)")
    return unavailable("TILES_UNAVAILABLE", "the log's tiles cannot be read")


def _give(text: str, out: Path | None, known: dict[str, Any], *, as_json: bool) -> None:
    if out is not None:
        out.write_text(text)
    if as_json:
        print_json({**known, "file": text if out is None else str(out)})
    elif out is None:
        console.print(text, highlight=False, markup=False, soft_wrap=True, end="")
    else:
        words = ", ".join(f"{name} {value}" for name, value in known.items() if value not in (False, []))
        console.print(f"{out}: {words}", highlight=False, markup=False)
