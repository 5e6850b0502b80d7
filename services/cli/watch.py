"""`planier watch`: what changes in an area, as it is learnt."""

import json
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1.analytics_pb2 import (
    MAP_CHANGE_KIND_PRESENT,
    ChangeKind,
    MapChange,
    WatchMapRequest,
    WatchMapResponse,
)
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import FactStatus
from planier.common.v1.release_pb2 import StorePosition

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.map import AREA, box_of, whole
from services.cli.output import console, print_mark
from services.cli.profile import Profile
from services.cli.words import name_of
from services.kernel.errors import Problem

# A stream needs a deadline like any call; whoever watches longer opens it again after the last cursor.
MOST_SECONDS = 12 * 3600


@app.command()
def watch(
    area: Annotated[str, typer.Option(help=f"{AREA}; the territory by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
    after: Annotated[str, typer.Option(help="A cursor printed before; from now on by default.")] = "",
    most: Annotated[int, typer.Option(min=0, help="End after so many changes; 0: never.")] = 0,
    seconds: Annotated[float, typer.Option(help="End after so many seconds.")] = MOST_SECONDS,
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "veille",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Follow changes within an area, until the right to it ends. With --json, a line a message."""
    profile = Profile.load()
    request = WatchMapRequest(
        consultation=session.consultation(purpose, motive),
        box=box_of(area) if area else whole(profile),
        sources=source or (),
        kinds=kind or (),
    )
    if after:
        request.cursor.CopyFrom(cursor_of(after))
    perform(_watch(profile, request, person, most, seconds, as_json=as_json), as_json=as_json)


def cursor_of(text: str) -> StorePosition:
    """A cursor as `planier watch` prints it: store, position and digest."""
    try:
        store_id, position, digest = text.split(":")
        return StorePosition(store_id=store_id, position=int(position), digest=bytes.fromhex(digest))
    except ValueError:
        raise typer.BadParameter("must be a cursor as `planier watch` prints it", param_hint="--after") from None


def text_of(cursor: StorePosition) -> str:
    """The cursor for the command line."""
    return f"{cursor.store_id}:{cursor.position}:{cursor.digest.hex()}"


async def _watch(
    profile: Profile, request: WatchMapRequest, person: str, most: int, seconds: float, *, as_json: bool
) -> None:
    signed_in = await session.current(profile, person)
    seen, first = 0, True
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).WatchMap(request, timeout=seconds, metadata=signed_in.metadata)
        try:
            async for message in call:
                mark = Receipts(profile).keep(message) if first else None
                first = False
                _print(message, mark, profile.zone, as_json=as_json)
                seen += len(message.changes)
                if most and seen >= most:
                    call.cancel()
                    return
        except Problem as problem:
            # The time that was asked for is over.
            if problem.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise


def _print(message: WatchMapResponse, mark: dict[str, Any] | None, zone: ZoneInfo, *, as_json: bool) -> None:
    if as_json:
        content = {
            "changes": [MessageToDict(change, preserving_proto_field_name=True) for change in message.changes],
            "cursor": text_of(message.cursor),
            "facts_erased": message.facts_erased,
            **({"coverage": coverage_rows(message.coverage), "release": mark} if mark else {}),
        }
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    for change in message.changes:
        console.print(_line(change), highlight=False, markup=False)
    if message.facts_erased:
        console.print("des faits ont été effacés : redemander la carte (planier map)")
    print_unknown(message.coverage, None, zone)
    if mark:
        print_mark(mark)
    console.print(f"[dim]{text_of(message.cursor)}[/dim]", soft_wrap=True)


def _line(change: MapChange) -> str:
    if change.kind != MAP_CHANGE_KIND_PRESENT:
        return f"GONE {change.fact_id}"
    version = change.version
    said = f"{name_of(ChangeKind, version.change)} {change.fact_id} {version.fact.source} {version.fact.kind}"
    return f"{said} {name_of(FactStatus, version.fact.status)} {version.fact.title}".rstrip()
