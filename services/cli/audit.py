"""`planier audit`: replaying the access log and checking it."""

from collections.abc import Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from planier.audit.v1.audit_pb2 import (
    GetCheckpointRequest,
    ReplayEntry,
    ReplayFilter,
    ReplayRequest,
    VerifyLogRequest,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.release_pb2 import Purpose
from rich.markup import escape

from services.audit.entry import columns_of
from services.audit.verify import verify_database
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of
from services.kernel.keys import read_public_key

audit = typer.Typer(no_args_is_help=True, help="The access log, for auditors.")
app.add_typer(audit, name="audit")

REPLAY_DEADLINE = 3600.0


@audit.command()
def replay(
    start: Annotated[str, typer.Option("--from", help="ISO 8601.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601.")] = "",
    subject: Annotated[str, typer.Option(help="Only this person.")] = "",
    party: Annotated[str, typer.Option(help="CITY or PREFECTURE.")] = "",
    rpc: Annotated[str, typer.Option(help="Only this method.")] = "",
    clause: Annotated[str, typer.Option(help="Only decisions that this clause made.")] = "",
    source: Annotated[str, typer.Option(help="Only accesses that asked for this source.")] = "",
    record: Annotated[str, typer.Option(help="Only this record.")] = "",
    refused: Annotated[bool | None, typer.Option("--refused/--permitted", help="Only these decisions.")] = None,
    limit: Annotated[int, typer.Option(help="0 is all.")] = 0,
    motive: MotiveOption = "contrôle du journal des accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Replay the access log, in order; the replay itself is an access, recorded first."""
    wanted = ReplayFilter(
        subject=subject,
        party=party,
        rpc=rpc,
        clause=clause,
        source=source,
        record_id=record,
        permitted=None if refused is None else not refused,
    )
    if start:
        wanted.occurred_from.FromDatetime(instant(start, Profile.load().zone, "--from"))
    if end:
        wanted.occurred_until.FromDatetime(instant(end, Profile.load().zone, "--to"))
    request = ReplayRequest(consultation=session.consultation("OVERSIGHT", motive), filter=wanted, limit=limit)
    perform(_replay(request, person, as_json=as_json), as_json=as_json)


@audit.command()
def verify(
    database: Annotated[str, typer.Option(help="Check a copy offline: the log's database, as an SQLAlchemy URL.")] = "",
    key: Annotated[Path | None, typer.Option(help="The log's public key, PEM, for an offline check.")] = None,
    motive: MotiveOption = "vérification du journal des accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Recompute the whole log from its stored bytes; exits with 1 where anything does not hold."""
    work = _verify_offline(database, key) if database else _verify(motive, person)
    perform(_report(work, as_json=as_json), as_json=as_json)


@audit.command()
def checkpoint(as_json: JsonOption = False) -> None:
    """Print the newest signed tree head."""
    perform(_checkpoint(as_json=as_json), as_json=as_json)


async def _replay(request: ReplayRequest, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    rows: list[dict[str, Any]] = []
    size = 0
    async with channel(profile, "audit") as opened:
        call = AuditServiceStub(opened).Replay(request, timeout=REPLAY_DEADLINE, metadata=signed_in.metadata)
        async for answer in call:
            if answer.HasField("release"):
                Receipts(profile).keep(answer)
                size = answer.tree_size
            rows.extend(_rows(answer.entries))
    if as_json:
        print_json({"tree_size": size, "records": rows})
        return
    columns = ("index", "when", "who", "what", "facts", "decision")
    print_table(f"{len(rows)} records of {size}", columns, (_cells(row, profile.zone) for row in rows), whole=("when",))


def _cells(row: dict[str, Any], zone: ZoneInfo) -> tuple[object, ...]:
    """A record in six cells, for a person; the record itself is in --json."""
    if "erased" in row:
        return row["index"], "", "", "erased", "", ""
    when = local(datetime.fromisoformat(row["when"]), zone)
    # A login or a founding signature is decided by its handler, once the attempt is recorded: no decision to show.
    decided = row["record"].get("decision", {}).get("permit", False)
    verdict = "refused" if not row["permitted"] else "permitted" if decided else ""
    purpose = "" if row["purpose"] == "UNSPECIFIED" else row["purpose"]
    what = "\n".join(part for part in (row["kind"], row["method"], purpose) if part)
    decision = "\n".join(part for part in (verdict, row["clauses"]) if part)
    return row["index"], when, row["who"], what, row["count"], decision


def _rows(entries: Any) -> Iterator[dict[str, Any]]:
    entry: ReplayEntry
    for entry in entries:
        if not entry.HasField("record"):
            yield {"index": entry.index, "erased": True}
            continue
        record = AccessRecord.FromString(entry.record)
        columns = columns_of(record)
        yield {
            "index": entry.index,
            "when": record.occurred_at.ToJsonString(),
            "kind": name_of(RecordKind, record.kind),
            "who": columns.subject or record.peer,
            "method": record.rpc.rpartition("/")[2],
            "purpose": name_of(Purpose, record.purpose),
            "permitted": columns.permitted,
            "clauses": ", ".join(record.decision.clauses),
            "count": record.data.count,
            "record": MessageToDict(record, preserving_proto_field_name=True),
        }


async def _verify(motive: str, person: str) -> dict[str, Any]:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    request = VerifyLogRequest(consultation=session.consultation("OVERSIGHT", motive))
    async with channel(profile, "audit") as opened:
        call = AuditServiceStub(opened).VerifyLog(request, timeout=REPLAY_DEADLINE, metadata=signed_in.metadata)
        answer = await call
    Receipts(profile).keep(answer)
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
