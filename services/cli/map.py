"""`planier map`: what a duty officer looks at."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1.analytics_pb2 import (
    BoundingBox,
    FactState,
    FeatureColumns,
    MapFilter,
    QueryMapRequest,
)
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import FactStatus

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.output import print_json, print_mark, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of, value_of
from services.kernel.territory import Territory

AREA = "west,south,east,north in degrees"


@app.command("map")
def map_view(
    area: Annotated[str, typer.Option(help=f"{AREA}; the territory by default.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601; now by default.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; a week after the start by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only these statuses, such as CONFIRMED.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="PLANNED, UNDER_WAY, PAST or CANCELLED.")] = None,
    state_at: Annotated[str, typer.Option(help="The moment that --state is relative to; now by default.")] = "",
    empty: Annotated[list[str] | None, typer.Option(help="A filter with nothing ticked, such as SOURCES.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    changed_since: Annotated[str, typer.Option(help="Only what we learnt since that instant.")] = "",
    limit: Annotated[int, typer.Option(min=0, max=20_000, help="Above this many, counts per H3 cell.")] = 0,
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "prise de service",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what happens in an area over a period; the look is recorded before the answer leaves."""
    profile = Profile.load()
    request = QueryMapRequest(
        consultation=session.consultation(purpose, motive),
        box=area_box(area, profile),
        sources=source or (),
        kinds=kind or (),
        statuses=[value_of(FactStatus, name, "--status") for name in status or ()],
        states=[value_of(FactState, name, "--state") for name in state or ()],
        empty_filters=[value_of(MapFilter, name, "--empty") for name in empty or ()],
        limit=limit,
    )
    zone = profile.zone
    if state_at:
        request.state_at.FromDatetime(instant(state_at, zone, "--state-at"))
    begin = instant(start, zone, "--from") if start else datetime.now(UTC)
    request.period.start.FromDatetime(begin)
    request.period.end.FromDatetime(instant(end, zone, "--to") if end else begin + timedelta(days=7))
    if as_of:
        request.as_of.FromDatetime(instant(as_of, zone, "--as-of"))
    if changed_since:
        request.changed_since.FromDatetime(instant(changed_since, zone, "--changed-since"))
    perform(_map(profile, request, person, as_json=as_json), as_json=as_json)


def area_box(area: str, profile: Profile) -> BoundingBox:
    """The area that a person typed, or the whole territory."""
    return box_of(area) if area else whole(profile)


def box_of(area: str) -> BoundingBox:
    """A box as a person types it; BadParameter where it is none."""
    try:
        west, south, east, north = (float(part) for part in area.split(","))
    except ValueError:
        raise typer.BadParameter(f"must be {AREA}", param_hint="--area") from None
    return BoundingBox(west=west, south=south, east=east, north=north)


def whole(profile: Profile) -> BoundingBox:
    """The territory's bounds."""
    bounds = Territory.load(profile.territory).bounds
    return BoundingBox(west=bounds.west, south=bounds.south, east=bounds.east, north=bounds.north)


async def _map(profile: Profile, request: QueryMapRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).QueryMap(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    rows = features(answer.features)
    if as_json:
        cells = MessageToDict(answer.cells, preserving_proto_field_name=True) if not rows else None
        withheld = MessageToDict(answer.withheld, preserving_proto_field_name=True)
        content = {"total": answer.total, "features": rows, "cells": cells, "withheld": withheld}
        print_json({**content, "coverage": coverage_rows(answer.coverage), "release": mark})
        return
    if rows or not answer.total:
        print_features(f"{answer.total} facts", rows, profile.zone)
    else:
        top = sorted(zip(answer.cells.counts, answer.cells.cells, strict=True), reverse=True)[:20]
        title = f"{answer.total} facts in {len(answer.cells.cells)} cells of resolution {answer.cells.resolution}"
        print_table(f"{title}; the fullest:", ("cell", "facts"), ((f"{cell:x}", count) for count, cell in top))
    print_unknown(answer.coverage, answer.withheld, profile.zone)
    print_mark(mark)


def features(columns: FeatureColumns) -> list[dict[str, Any]]:
    """The packed columns as one record a feature."""
    rows = []
    first = 0
    for index, fact_id in enumerate(columns.fact_ids):
        last = first + columns.period_counts[index]
        rows.append(
            {
                "fact": fact_id,
                "source": columns.sources[columns.source_index[index]],
                "kind": columns.kinds[columns.kind_index[index]],
                "status": name_of(FactStatus, columns.statuses[index]),
                "title": columns.titles[index],
                "revision": columns.revisions[index],
                "longitude": columns.longitude_e7[index] / 1e7,
                "latitude": columns.latitude_e7[index] / 1e7,
                "from": _utc(columns.starts[first]),
                "to": _utc(columns.ends[last - 1]),
                "periods": last - first,
            }
        )
        first = last
    return rows


def print_features(title: str, rows: list[dict[str, Any]], zone: ZoneInfo) -> None:
    """Features in a table, for a person."""
    print_table(title, ("when", "what", "fact"), (_cells(row, zone) for row in rows), whole=("when", "fact"))


def _cells(row: dict[str, Any], zone: ZoneInfo) -> tuple[str, ...]:
    """A feature in three cells, for a person; the first and the last day of one that comes back."""
    first, last = (local(datetime.fromisoformat(row[end]), zone) for end in ("from", "to"))
    often = f" ({row['periods']} times)" if row["periods"] > 1 else ""
    return f"{first}\n{last}", f"{row['title']}{often}\n{row['kind']}, {row['status']}", row["fact"]


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
