"""`planier audit`: replaying the access log and checking it."""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from planier.audit.v1.audit_pb2 import GetCheckpointRequest, VerifyLogRequest
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from rich.markup import escape

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.audit_calls import newest_head, opened_note, require_extension
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.kernel.keys import read_public_key

audit = typer.Typer(no_args_is_help=True, help="The access log, for auditors.")
app.add_typer(audit, name="audit")

REPLAY_DEADLINE = 3600.0


@audit.command()
def verify(
    database: Annotated[str, typer.Option(help="Check a copy offline: the log's database, as an SQLAlchemy URL.")] = "",
    key: Annotated[Path | None, typer.Option(help="The log's public key, PEM, for an offline check.")] = None,
    since: Annotated[
        Path | None, typer.Option(help="Only prove that the log extends this checkpoint, kept from before.")
    ] = None,
    motive: MotiveOption = "vérification du journal des accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Recompute the whole log from its stored bytes; exits with 1 where anything does not hold.

    The log must also extend the newest checkpoint that this client saw before.
    """
    if since is not None:
        try:
            note = since.read_text()
        except OSError as error:
            raise typer.BadParameter(str(error.strerror), param_hint="--since") from None
        perform(_since(note, as_json=as_json), as_json=as_json)
        return
    work = _verify_offline(database, key) if database else _verify(motive, person)
    perform(_report(work, as_json=as_json), as_json=as_json)


@audit.command()
def checkpoint(as_json: JsonOption = False) -> None:
    """Print the newest signed tree head."""
    perform(_checkpoint(as_json=as_json), as_json=as_json)


async def _verify(motive: str, person: str) -> dict[str, Any]:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    request = VerifyLogRequest(consultation=session.consultation("OVERSIGHT", motive))
    async with channel(profile, "audit") as opened:
        call = AuditServiceStub(opened).VerifyLog(request, timeout=REPLAY_DEADLINE, metadata=signed_in.metadata)
        answer = await call
    Receipts(profile).keep(answer)
    await newest_head(profile)
    return {
        "sound": answer.sound,
        "tree_size": answer.tree_size,
        "root_hash": answer.root_hash.hex(),
        "erased": answer.erased,
        "faults": [{"index": fault.index, "fault": fault.fault} for fault in answer.faults],
        "holes": {hole.instance: hole.missing for hole in answer.holes},
    }


async def _verify_offline(database: str, key: Path | None) -> dict[str, Any]:
    try:
        public_key = read_public_key(key or Profile.load().log_key)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--key") from None
    from services.audit.verify import verify_database

    with readable("--database"):
        found = verify_database(database, public_key)
    return {
        "sound": found.sound,
        "tree_size": found.tree_size,
        "root_hash": found.root.hex(),
        "erased": found.erased,
        "unsigned": found.unsigned,
        "faults": [{"index": fault.index, "fault": fault.fault} for fault in found.faults],
        "holes": dict(found.holes),
    }


@contextmanager
def readable(option: str) -> Iterator[None]:
    """A block that reads a copy of a log's database; BadParameter where it is not there, or holds no log."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError, ImportError) as error:
        why = "no such database" if isinstance(error, FileNotFoundError) else "no database that holds a log"
        message = f"{why}; as an SQLAlchemy URL, such as sqlite:///copy.db"
        raise typer.BadParameter(message, param_hint=option) from None


async def _report(work: Coroutine[Any, Any, dict[str, Any]], *, as_json: bool) -> None:
    found = await work
    if as_json:
        print_json(found)
    else:
        word = "[green]sound[/green]" if found["sound"] else "[red]NOT SOUND[/red]"
        console.print(f"{word}: {found['tree_size']} records, root {found['root_hash']}, {found['erased']} erased")
        if found.get("unsigned"):
            console.print(f"  [yellow]{found['unsigned']} of the newest under no signed checkpoint[/yellow]")
        for fault in found["faults"]:
            console.print(f"  index {fault['index']}: [red]{escape(fault['fault'])}[/red]")
        for instance, missing in found["holes"].items():
            console.print(
                f"  {instance}: {missing} numbers unused (calls that ended before they were recorded; no fault)"
            )
    if not found["sound"]:
        raise SystemExit(1)


async def _checkpoint(*, as_json: bool) -> None:
    async with channel(Profile.load(), "audit") as opened:
        answer = await AuditServiceStub(opened).GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(answer.checkpoint, highlight=False, markup=False)


async def _since(note: str, *, as_json: bool) -> None:
    profile = Profile.load()
    head, _, keys = await newest_head(profile)
    remembered = opened_note(note, keys)
    await require_extension(profile, remembered, head)
    if as_json:
        print_json({"sound": True, "from_size": remembered.size, "tree_size": head.size, "root_hash": head.root.hex()})
        return
    console.print(f"[green]sound[/green]: the {head.size} records extend the {remembered.size} of that checkpoint")
