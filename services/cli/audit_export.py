"""`planier audit export`: a whole log for a third party: tiles, records, and the access events that decisions cite."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from planier.audit.v1.audit_pb2 import ReplayEntry, ReplayFilter
from planier.audit.v1.oversight_pb2 import ExportAccessEventsRequest
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.event_pb2 import EventRun

from services.audit.checkpoint import parse_checkpoint
from services.audit.copy import CHECKPOINT, WITNESSED
from services.audit.note import split_note
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.audit import audit
from services.cli.audit_calls import overseen, replayed
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.cli.proofs import copied_tiles
from services.kernel.errors import precondition

RECORDS, EVENTS, MANIFEST = "records.jsonl", "access-events.jsonl", "manifest.json"


@dataclass(slots=True)
class Exported:
    """What went into the folder."""

    tree_size: int = 0
    records: int = 0
    masked: int = 0
    erased: int = 0
    events: int = 0
    events_withheld: int = 0
    record_id: str = ""
    # Of access's store: its id and how far decisions reach into it.
    access_store: str = ""
    access_position: int = 0
    access_digest: str = ""
    cited: int = field(default=0, repr=False)


@audit.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Made, or brought up to date; laid out as C2SP tlog-tiles.")],
    newest: Annotated[bool, typer.Option("--newest", help="Also what is not cosigned yet.")] = False,
    motive: MotiveOption = "export du journal pour un tiers",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Export the log with its records, and the events of access that they cite; verified offline by anybody.

    Of the other party's people it holds pseudonyms, unless that party's officer decided otherwise; erased records stay
    erased. What is hidden still proves: every entry is in the tiles.
    """
    perform(_export(folder, CHECKPOINT if newest else WITNESSED, motive, person, as_json=as_json), as_json=as_json)


async def _export(folder: Path, source: str, motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    await copied_tiles(profile, folder, source)
    size = parse_checkpoint(split_note(_text(folder / CHECKPOINT))[0]).size
    exported = Exported(tree_size=size)
    with _written(folder / RECORDS) as file:
        if size:
            async for page in replayed(profile, ReplayFilter(), motive, person, limit=size):
                exported.record_id = page.release.receipt.record_id if page.release else exported.record_id
                for entry in page.entries:
                    file.write(json.dumps(_record_line(entry, exported)) + "\n")
    with _written(folder / EVENTS) as file:
        request = ExportAccessEventsRequest(consultation=session.consultation("OVERSIGHT", motive))
        async for answer in overseen(profile, "ExportAccessEvents", request, person):
            exported.events_withheld += answer.withheld
            for line in _event_lines(answer.run, exported):
                file.write(json.dumps(line) + "\n")
    if exported.cited > exported.access_position:
        raise precondition("EVENTS_MISSING", "the records cite a state of access that its events do not reach")
    manifest = _manifest(folder, exported)
    if as_json:
        print_json(manifest)
        return
    console.print(
        f"{exported.tree_size} records ({exported.masked} under pseudonym, {exported.erased} erased), "
        f"{exported.events} events of access ({exported.events_withheld} without names) in {folder}",
        highlight=False,
    )


def _record_line(entry: ReplayEntry, exported: Exported) -> dict[str, Any]:
    """A record as tools/verify_access_log.py reads it: `salt` and `record` only where its leaf can be computed."""
    exported.records += 1
    if not entry.HasField("record"):
        exported.erased += 1
        return {"index": entry.index, "erased": True}
    state = AccessRecord.FromString(entry.record).decision.access_state
    exported.cited = max(exported.cited, state.position)
    content = b64encode(entry.record).decode()
    if entry.masked:
        exported.masked += 1
        return {"index": entry.index, "masked": True, "shown": content}
    return {"index": entry.index, "salt": b64encode(entry.salt).decode(), "record": content}


def _event_lines(run: EventRun, exported: Exported) -> Iterator[dict[str, Any]]:
    """Access's events, each with what its place in the chain is computed from; the chain is verified on the way."""
    from services.kernel.store.base import GENESIS
    from services.kernel.store.chain import commitment, link

    broken = precondition("EVENTS_ALTERED", "the events of access do not follow each other")
    digest = bytes.fromhex(exported.access_digest) if exported.access_digest else GENESIS
    for event in run.events:
        withheld = not event.HasField("payload")
        if event.position != exported.access_position + 1:
            raise broken
        if not withheld and commitment(event.salt, event.payload) != event.commitment:
            raise broken
        header = (event.stream, event.stream_version, event.type, event.event_id, event.recorded_at_us, event.key_id)
        digest = link(digest, event.position, *header, event.commitment)
        yield {
            "position": event.position,
            "stream": event.stream,
            "stream_version": event.stream_version,
            "type": event.type,
            "event_id": event.event_id,
            "recorded_at_us": event.recorded_at_us,
            "key_id": event.key_id,
            "commitment": event.commitment.hex(),
            "digest": digest.hex(),
            "salt": None if withheld else b64encode(event.salt).decode(),
            "payload": None if withheld else b64encode(event.payload).decode(),
            "erased_by": event.erased_by,
        }
        exported.events += 1
        exported.access_position = event.position
    if run.events and digest != run.digest:
        raise broken
    exported.access_store, exported.access_digest = run.store_id or exported.access_store, digest.hex()


def _manifest(folder: Path, exported: Exported) -> dict[str, Any]:
    """What the folder holds, and the digest of each file beside the tiles, which the checkpoint proves."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (RECORDS, EVENTS)}
    manifest = {
        "tree_size": exported.tree_size,
        "records": exported.records,
        "masked": exported.masked,
        "erased": exported.erased,
        "access_events": exported.events,
        "access_events_withheld": exported.events_withheld,
        "access_store": exported.access_store,
        "access_position": exported.access_position,
        "access_digest": exported.access_digest,
        "exported_under": exported.record_id,
        "sha256": digests,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _written(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
