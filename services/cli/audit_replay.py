"""`planier audit replay`, `timeline` and `mine`: the access log in order, of one person, of one fact, of oneself."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from planier.audit.v1.audit_pb2 import FactSought, ReplayFilter
from planier.audit.v1.oversight_pb2 import OwnAccessesRequest
from planier.audit.v1.record_pb2 import Area
from planier.common.v1.guard_pb2 import Operation
from planier.common.v1.release_pb2 import Purpose
from rich.markup import escape

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.audit import audit
from services.cli.audit_calls import STREAM_DEADLINE, Replayed, names_of, overseen, replayed
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.cli.records import COLUMNS, CSV_COLUMNS, Names, cells, csv_line, csv_values, rows
from services.cli.words import instant, local, value_of
from services.ingest.domain import fact_id_of

MOTIVE = "contrôle du journal des accès"
# A replay in the log's own time may take as long as the log.
PACED_DEADLINE = 24 * 3600.0
AREA = "west,south,east,north in degrees"

AreaOption = Annotated[str, typer.Option(help=f"{AREA}.")]
FromOption = Annotated[str, typer.Option("--from", help="ISO 8601.")]
ToOption = Annotated[str, typer.Option("--to", help="ISO 8601.")]
NamesOption = Annotated[bool, typer.Option("--names", help="Ask access for the names that you may see.")]


class Form(StrEnum):
    """How a replay is written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


@audit.command()
def replay(
    start: FromOption = "",
    end: ToOption = "",
    subject: Annotated[str, typer.Option(help="Only this person, or this pseudonym.")] = "",
    party: Annotated[str, typer.Option(help="CITY or PREFECTURE.")] = "",
    organisation: Annotated[str, typer.Option(help="Only people of this organisation.")] = "",
    purpose: Annotated[str, typer.Option(help="Only accesses under this purpose, such as SITUATION.")] = "",
    operation: Annotated[str, typer.Option(help="Only this operation, such as CONSULT or DISCLOSE.")] = "",
    rpc: Annotated[str, typer.Option(help="Only this method.")] = "",
    clause: Annotated[str, typer.Option(help="Only decisions that this clause made.")] = "",
    source: Annotated[str, typer.Option(help="Only accesses that asked for this source.")] = "",
    area: AreaOption = "",
    record: Annotated[str, typer.Option(help="Only this record.")] = "",
    refused: Annotated[bool | None, typer.Option("--refused/--permitted", help="Only these decisions.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="0 is all.")] = 0,
    form: Annotated[Form, typer.Option("--format", help="How to write it.")] = Form.TABLE,
    speed: Annotated[float, typer.Option(min=0, help="1 is the log's own time, 60 a minute a second; 0: at once.")] = 0,
    longest_pause: Annotated[float, typer.Option(min=0, help="Seconds between two records, at most.")] = 10,
    names: NamesOption = False,
    motive: MotiveOption = MOTIVE,
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Replay the access log, in order; the replay itself is an access, recorded first."""
    wanted = ReplayFilter(
        subject=subject,
        party=party,
        organisation=organisation,
        rpc=rpc,
        clause=clause,
        source=source,
        area=_area(area) if area else None,
        record_id=record,
        permitted=None if refused is None else not refused,
    )
    if purpose:
        wanted.purpose = value_of(Purpose, purpose, "--purpose")
    if operation:
        wanted.operation = value_of(Operation, operation, "--operation")
    _period(wanted, start, end)
    pace = Pace(speed, longest_pause)
    perform(_replay(wanted, limit, motive, person, form=form, pace=pace, named=names, as_json=as_json), as_json=as_json)


@audit.command()
def timeline(
    subject: Annotated[str, typer.Option("--person", help="One person, or a pseudonym.")] = "",
    fact: Annotated[str, typer.Option(help="One fact, by its id.")] = "",
    source: Annotated[str, typer.Option(help="One fact, by its source and number.")] = "",
    source_id: Annotated[str, typer.Option(help="One fact, by its source and number.")] = "",
    kind: Annotated[str, typer.Option(help="The fact's kind.")] = "",
    area: Annotated[str, typer.Option(help=f"Where the fact is: {AREA}; looks that met it are shown too.")] = "",
    start: Annotated[str, typer.Option("--from", help="When the fact begins; of a person, from when on.")] = "",
    end: Annotated[str, typer.Option("--to", help="When the fact ends; of a person, until when.")] = "",
    names: NamesOption = False,
    motive: MotiveOption = MOTIVE,
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what one person did, look by look, or who saw one fact, when and why."""
    if bool(subject) == bool(fact or source_id):
        raise typer.BadParameter("one person or one fact", param_hint="--person / --fact")
    wanted = ReplayFilter(subject=subject)
    if subject:
        _period(wanted, start, end)
    else:
        wanted.fact.CopyFrom(_fact(fact, source, source_id, kind, area, start, end))
    perform(_timeline(wanted, motive, person, named=names, as_json=as_json), as_json=as_json)


@audit.command()
def mine(
    start: FromOption = "",
    end: ToOption = "",
    motive: MotiveOption = "consultation de mes propres accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what the log holds about yourself."""
    request = OwnAccessesRequest(consultation=session.consultation("OVERSIGHT", motive))
    zone = Profile.load().zone
    if start:
        request.occurred_from.FromDatetime(instant(start, zone, "--from"))
    if end:
        request.occurred_until.FromDatetime(instant(end, zone, "--to"))
    perform(_mine(request, person, as_json=as_json), as_json=as_json)


class Pace:
    """Waits between two records as long as passed between them, divided by `speed`; 0 never waits."""

    def __init__(self, speed: float, longest: float) -> None:
        self._speed = speed
        self._longest = longest
        self._last: datetime | None = None

    @property
    def deadline(self) -> float:
        """How long a replay at this pace may take, in seconds."""
        return PACED_DEADLINE if self._speed else STREAM_DEADLINE

    @property
    def is_live(self) -> bool:
        """Whether records are shown one by one."""
        return self._speed > 0

    def pause(self, when: str) -> float:
        """Seconds to wait before the record of that instant."""
        moment = datetime.fromisoformat(when)
        last, self._last = self._last, moment
        if not self._speed or last is None:
            return 0
        return min(max(0.0, (moment - last).total_seconds()) / self._speed, self._longest)


async def _replay(
    wanted: ReplayFilter, limit: int, motive: str, person: str, *, form: Form, pace: Pace, named: bool, as_json: bool
) -> None:
    profile = Profile.load()
    names = await names_of(profile, motive, person) if named else {}
    size, collected = 0, list[dict[str, Any]]()
    write = _writer(Form.JSONL if as_json else form, profile.zone)
    pages = replayed(profile, wanted, motive, person, limit=limit, deadline=pace.deadline)
    whole = as_json or (form is Form.TABLE and not pace.is_live)
    if form is Form.CSV and not as_json:
        sys.stdout.write(csv_line(CSV_COLUMNS))
    async for tree_size, entries, _ in pages:
        size = tree_size
        for row in rows(entries, names):
            if whole:
                collected.append(row)
                continue
            if "when" in row:
                await asyncio.sleep(pace.pause(row["when"]))
            write(row)
    if as_json:
        print_json({"tree_size": size, "records": collected})
    elif whole:
        _show(f"{len(collected)} records of {size}", collected, profile.zone)


def _writer(form: Form, zone: ZoneInfo) -> Callable[[dict[str, Any]], None]:
    """Writes one row at once, for whoever reads along."""

    def write(row: dict[str, Any]) -> None:
        if form is Form.CSV:
            sys.stdout.write(csv_line(csv_values(row)))
        elif form is Form.JSONL:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            console.print(escape("  ".join(str(cell).replace("\n", " ") for cell in cells(row, zone))))
        sys.stdout.flush()

    return write


def _show(title: str, found: list[dict[str, Any]], zone: ZoneInfo) -> None:
    print_table(title, COLUMNS, (cells(row, zone) for row in found), whole=("when",))


async def _timeline(wanted: ReplayFilter, motive: str, person: str, *, named: bool, as_json: bool) -> None:
    profile = Profile.load()
    names: Names = await names_of(profile, motive, person) if named else {}
    found = await _collected(replayed(profile, wanted, motive, person), names)
    if as_json:
        print_json({"accesses": found})
        return
    if wanted.HasField("fact"):
        shown = sum(row.get("relation") == "MAY_HAVE_SHOWN" for row in found)
        title = f"{len(found)} accesses, of which {shown} may have shown it (an upper bound)"
        columns = ("when", "who", "organisation", "why", "how")
        print_table(title, columns, (_fact_cells(row, profile.zone) for row in found), whole=("when",))
        return
    looks = [list(group) for _, group in groupby(found, key=_look)]
    headings = ("from", "to", "what", "purpose and motive", "records", "facts", "refused")
    title = f"{len(found)} records in {len(looks)} looks"
    print_table(title, headings, (_look_cells(group, profile.zone) for group in looks), whole=("from", "to"))


async def _mine(request: OwnAccessesRequest, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    found: list[dict[str, Any]] = []
    async for answer in overseen(profile, "OwnAccesses", request, person):
        found.extend(rows(answer.entries))
    if as_json:
        print_json({"records": found})
        return
    _show(f"{len(found)} records about you", found, profile.zone)


async def _collected(pages: AsyncIterator[Replayed], names: Names) -> list[dict[str, Any]]:
    return [row async for page in pages for row in rows(page.entries, names)]


def _look(row: dict[str, Any]) -> str:
    """What belongs together: the refinements of one consultation; anything else stands alone."""
    return str(row.get("record", {}).get("consultation_id") or row["index"])


def _look_cells(group: list[dict[str, Any]], zone: ZoneInfo) -> tuple[object, ...]:
    first, last = (local(datetime.fromisoformat(row["when"]), zone) for row in (group[0], group[-1]))
    record = group[0]["record"]
    methods = ", ".join(dict.fromkeys(row["method"] for row in group))
    why = f"{group[0]['purpose']}\n{record.get('motive', '')}"
    refused = sum(not row["permitted"] for row in group)
    return first, last, methods, why, len(group), sum(int(row["count"]) for row in group), refused or ""


def _fact_cells(row: dict[str, Any], zone: ZoneInfo) -> tuple[object, ...]:
    record = row["record"]
    why = f"{row['purpose']}\n{record.get('motive', '')}"
    how = f"{row.get('relation', '')}\n{row['method']}" + ("" if row["permitted"] else "\nrefused")
    organisation = record.get("actor", {}).get("organisation", "")
    return local(datetime.fromisoformat(row["when"]), zone), row["who"], organisation, why, how


def _fact(fact: str, source: str, source_id: str, kind: str, area: str, start: str, end: str) -> FactSought:
    sought = FactSought(fact_id=fact, source=source, source_id=source_id, kind=kind)
    if source and source_id and not fact:
        sought.fact_id = fact_id_of(source, source_id)
    if area:
        sought.area.CopyFrom(_area(area))
    zone = Profile.load().zone
    if start:
        sought.period_start.FromDatetime(instant(start, zone, "--from"))
    if end:
        sought.period_end.FromDatetime(instant(end, zone, "--to"))
    return sought


def _area(text: str) -> Area:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"must be {AREA}", param_hint="--area") from None
    return Area(west=west, south=south, east=east, north=north)


def _period(wanted: ReplayFilter, start: str, end: str) -> None:
    if start:
        wanted.occurred_from.FromDatetime(instant(start, Profile.load().zone, "--from"))
    if end:
        wanted.occurred_until.FromDatetime(instant(end, Profile.load().zone, "--to"))
