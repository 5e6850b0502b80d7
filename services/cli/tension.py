"""`planier tension`: where facts gather beyond chance, how sure that is, and why."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1.analytics_pb2 import QueryTensionRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.analytics.v1.tension_pb2 import (
    TENSION_SIDE_HOT,
    QueryTensionResponse,
    TensionStep,
    TensionUnit,
    TensionZone,
)
from planier.common.v1 import fact_pb2

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.map import AREA, area_box
from services.cli.output import console, print_json, print_mark, print_record
from services.cli.profile import Profile
from services.cli.words import instant, value_of

YEAR = timedelta(days=360)
LAYER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


@app.command("tension")
def tension(
    area: Annotated[str, typer.Option(help=f"{AREA}; the territory by default.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601; 360 days before the end by default.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; now by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
    step: Annotated[str, typer.Option(help="DAY, WEEK or MONTH.")] = "MONTH",
    resolution: Annotated[int, typer.Option(min=6, max=10, help="Of the H3 cells, 6 to 10.")] = 9,
    layer: Annotated[
        str, typer.Option(help="A reference layer, such as quartiers, or a GeoJSON file of polygons (with its suffix).")
    ] = "",
    name: Annotated[str, typer.Option(help="The property that names a file's polygons.")] = "nom",
    by_layer: Annotated[bool, typer.Option("--by-layer", help="The layer's polygons are the units.")] = False,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    permutations: Annotated[int, typer.Option(min=0, max=99_999, help="Conditional permutations.")] = 999,
    method: Annotated[bool, typer.Option("--method", help="Adds local Moran and the space-time scan.")] = False,
    motive: MotiveOption = "analyse des zones de tension",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show zones where facts are recorded more, or less, than chance would; under the purpose TENSION."""
    profile = Profile.load()
    layer_name, units = layer_of(layer, name)
    request = QueryTensionRequest(
        consultation=session.consultation("TENSION", motive),
        box=area_box(area, profile),
        sources=source or (),
        kinds=kind or (),
        step=value_of(TensionStep, step, "--step"),
        resolution=resolution,
        layer=units,
        layer_name=layer_name,
        by_layer=by_layer,
        permutations=permutations,
        method=method,
    )
    finish = instant(end, profile.zone, "--to") if end else datetime.now(UTC)
    request.period.start.FromDatetime(instant(start, profile.zone, "--from") if start else finish - YEAR)
    request.period.end.FromDatetime(finish)
    if as_of:
        request.as_of.FromDatetime(instant(as_of, profile.zone, "--as-of"))
    perform(_tension(profile, request, person, as_json=as_json), as_json=as_json)


def layer_of(text: str, name: str) -> tuple[str, list[TensionUnit]]:
    """The name of a reference layer, or the polygons of a file; a file has a suffix or a folder, a name has neither."""
    if not text or LAYER_NAME.fullmatch(text):
        return text, []
    return "", read_layer(Path(text), name)


def read_layer(path: Path, name: str) -> list[TensionUnit]:
    """The polygons of a GeoJSON file (RFC 7946), each under the text of that property; BadParameter where not."""
    try:
        features = json.loads(path.read_bytes())["features"]
        return [_unit(feature, name) for feature in features]
    except FileNotFoundError:
        raise typer.BadParameter("no such file, and no name of a layer", param_hint="--layer") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        message = f"must be a GeoJSON collection of polygons that all have the property {name}"
        raise typer.BadParameter(message, param_hint="--layer") from None


def _unit(feature: dict[str, Any], name: str) -> TensionUnit:
    geometry = feature["geometry"]
    parts: dict[str, list[Any]] = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}
    unit = TensionUnit(name=str(feature["properties"][name]))
    for rings in parts[geometry["type"]]:
        polygon = unit.polygons.add()
        for ring in rings:
            points = [fact_pb2.LngLat(longitude=point[0], latitude=point[1]) for point in ring]
            polygon.rings.add(points=points)
    return unit


async def _tension(profile: Profile, request: QueryTensionRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).QueryTension(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        content = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        print_json({**content, "coverage": coverage_rows(answer.coverage), "release": mark})
        return
    _show(answer)
    print_unknown(answer.coverage, None, profile.zone)
    print_mark(mark)


def _show(answer: QueryTensionResponse) -> None:
    console.print(answer.summary, highlight=False)
    for number, zone in enumerate(answer.zones, 1):
        print_record(f"{number}. {_title(zone)}", _parts(zone))
    method = answer.method
    console.print(
        f"[dim]{method.statistic}, {method.support}, {method.family} tests, {method.permutations} permutations, "
        f"{method.steps} pas de {method.step_days} j, {method.code_version}[/dim]",
        highlight=False,
    )
    for caution in answer.cautions:
        console.print(f"[yellow]•[/yellow] {caution}", highlight=False)


def _title(zone: TensionZone) -> str:
    side = "zone chaude" if zone.side == TENSION_SIDE_HOT else "zone froide"
    marks = [word for flag, word in ((zone.only_discovered, "patrouilles seules"), (zone.fragile, "fragile")) if flag]
    return f"{side} ({', '.join(marks)})" if marks else side


def _parts(zone: TensionZone) -> list[tuple[str, object]]:
    where = ", ".join(zone.names) if zone.names else ", ".join(f"{cell:x}" for cell in zone.cells[:12])
    hidden = len(zone.cells) - 12
    counts = (f"{count.kind} {'masqué' if count.withheld else count.count} ({count.source})" for count in zone.counts)
    return [
        ("pourquoi", zone.reason),
        ("où", where + (f" et {hidden} autres" if hidden > 0 else "")),
        ("quoi", ", ".join(counts)),
        ("avis", zone.opinion.disagreement),
    ]
