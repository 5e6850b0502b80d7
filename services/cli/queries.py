"""`planier map` and `planier fact`: what a duty officer looks at."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1.analytics_pb2 import BoundingBox, GetFactRequest, QueryMapRequest, QueryMapResponse
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import FactStatus

from services.cli import session
from services.cli.app import JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.kernel.territory import Territory

AsOption = Annotated[str, typer.Option("--as", help="A local person who has signed in; the last one by default.")]
AREA = "west,south,east,north in degrees"


@app.command("map")
def map_view(
    area: Annotated[str, typer.Option(help=f"{AREA}; the territory by default.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601; now by default.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; a week after the start by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only these statuses, such as CONFIRMED.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    changed_since: Annotated[str, typer.Option(help="Only what we learnt since that instant.")] = "",
    limit: Annotated[int, typer.Option(help="Above this many, counts per H3 cell.")] = 0,
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "prise de service",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what happens in an area over a period; the look is recorded before the answer leaves."""
    profile = Profile.load()
    territory = Territory.load(profile.territory)
    bounds = territory.bounds
    box = [float(part) for part in area.split(",")] if area else [bounds.west, bounds.south, bounds.east, bounds.north]
    if len(box) != 4:  # noqa: PLR2004 -- the four sides
        raise typer.BadParameter(AREA, param_hint="--area")
    request = QueryMapRequest(
        consultation=session.consultation(purpose, motive),
        box=BoundingBox(west=box[0], south=box[1], east=box[2], north=box[3]),
        sources=source or (),
        kinds=kind or (),
        statuses=[FactStatus.Value(f"FACT_STATUS_{name.upper()}") for name in status or ()],
        limit=limit,
    )
    begin = instant(start) if start else datetime.now(UTC)
    request.period.start.FromDatetime(begin)
    request.period.end.FromDatetime(instant(end) if end else begin + timedelta(days=7))
    if as_of:
        request.as_of.FromDatetime(instant(as_of))
    if changed_since:
        request.changed_since.FromDatetime(instant(changed_since))
    perform(_map(profile, request, person, as_json=as_json), as_json=as_json)


@app.command()
def fact(
    fact_id: str,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "suivi d'un événement",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one fact with its history."""
    request = GetFactRequest(consultation=session.consultation(purpose, motive), fact_id=fact_id)
    if as_of:
        request.as_of.FromDatetime(instant(as_of))
    perform(_fact(Profile.load(), request, person, as_json=as_json), as_json=as_json)


def instant(text: str) -> datetime:
    """An aware instant from ISO 8601; without an offset it is the machine's local time."""
    return datetime.fromisoformat(text).astimezone(UTC)


async def _map(profile: Profile, request: QueryMapRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).QueryMap(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    rows = features(answer) if answer.WhichOneof("content") == "features" else []
    if as_json:
        cells = MessageToDict(answer.cells, preserving_proto_field_name=True) if not rows else None
        print_json({"total": answer.total, "features": rows, "cells": cells, "release": mark})
        return
    if rows or not answer.total:
        columns = ("from", "to", "source", "kind", "status", "title", "fact")
        print_table(f"{answer.total} facts", columns, ([row[column] for column in columns] for row in rows))
    else:
        top = sorted(zip(answer.cells.counts, answer.cells.cells, strict=True), reverse=True)[:20]
        title = f"{answer.total} facts in {len(answer.cells.cells)} cells of resolution {answer.cells.resolution}"
        print_table(f"{title}; the fullest:", ("cell", "facts"), ((f"{cell:x}", count) for count, cell in top))
    _show_mark(mark)


async def _fact(profile: Profile, request: GetFactRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).GetFact(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    print_json(MessageToDict(answer, preserving_proto_field_name=True))
    if not as_json:
        _show_mark(mark)


def features(answer: QueryMapResponse) -> list[dict[str, Any]]:
    """The packed columns as one record a feature."""
    columns = answer.features
    rows = []
    first = 0
    for index, fact_id in enumerate(columns.fact_ids):
        last = first + columns.period_counts[index]
        rows.append(
            {
                "fact": fact_id,
                "source": columns.sources[columns.source_index[index]],
                "kind": columns.kinds[columns.kind_index[index]],
                "status": FactStatus.Name(columns.statuses[index]).removeprefix("FACT_STATUS_"),
                "title": columns.titles[index],
                "revision": columns.revisions[index],
                "longitude": columns.longitude_e7[index] / 1e7,
                "latitude": columns.latitude_e7[index] / 1e7,
                "from": _local(columns.starts[first]),
                "to": _local(columns.ends[last - 1]),
                "periods": last - first,
            }
        )
        first = last
    return rows


def _local(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _show_mark(mark: dict[str, Any]) -> None:
    for part in mark.get("withheld", []):
        console.print(f"[yellow]withheld[/yellow] {part['instrument_id']}: {part.get('reason_user', '')}")
    console.print(f"[dim]recorded as {mark['receipt']['record_id']}, log index {mark['receipt'].get('index', 0)}[/dim]")
