"""`planier layer`: the zones that a city counts by."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1.analytics_pb2 import CountByZoneRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.output import print_json, print_mark, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local
from services.kernel.errors import invalid

layer = typer.Typer(no_args_is_help=True, help="Reference layers: quartiers, arrondissements.")
app.add_typer(layer, name="layer")


@layer.command("import")
def import_layer(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="GeoJSON, WGS 84.")],
    name: Annotated[str, typer.Option(help="The layer's name, such as quartiers.")],
    code: Annotated[str, typer.Option(help="The property that holds a zone's code.")],
    label: Annotated[str, typer.Option(help="The property that holds a zone's name.")],
    as_json: JsonOption = False,
) -> None:
    """Make a file's zones the newest version of a layer; for whoever administers the installation."""
    from services.kernel.layers import LayerError, LayerFolder, read_geojson, zones_of

    profile = Profile.load()
    try:
        zones = zones_of(read_geojson(file), code, label)
        kept = LayerFolder(profile.layers).keep(name, zones, datetime.now(UTC))
    except LayerError as error:
        raise invalid("LAYER_INVALID", str(error)) from None
    if as_json:
        print_json({"layer": name, "hash": kept.hash, "zones": len(zones), "imported_at": kept.imported_at.isoformat()})
        return
    print_table(name, ("zones", "sha-256"), [(len(zones), kept.hash)], whole=("sha-256",))


@layer.command("list")
def list_layers(as_json: JsonOption = False) -> None:
    """List the layers in use."""
    from services.kernel.layers import LayerFolder

    profile = Profile.load()
    folder = LayerFolder(profile.layers)
    known = [found for name in folder.names() if (found := folder.find(name)) is not None]
    if as_json:
        print_json([{"layer": each.name, "hash": each.hash, "zones": len(each.zones)} for each in known])
        return
    rows = [(each.name, len(each.zones), local(each.imported_at, profile.zone), each.hash[:12]) for each in known]
    print_table("layers", ("layer", "zones", "imported", "sha-256"), rows)


@layer.command("counts")
def counts(
    name: Annotated[str, typer.Argument(help="The layer, such as quartiers.")],
    start: Annotated[str, typer.Option("--from", help="ISO 8601; now by default.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; a week after the start by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "prise de service",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Count facts by zone of a layer."""
    profile = Profile.load()
    look = session.consultation(purpose, motive)
    request = CountByZoneRequest(consultation=look, layer=name, sources=source or (), kinds=kind or ())
    begin = instant(start, profile.zone, "--from") if start else datetime.now(UTC)
    request.period.start.FromDatetime(begin)
    request.period.end.FromDatetime(instant(end, profile.zone, "--to") if end else begin + timedelta(days=7))
    if as_of:
        request.as_of.FromDatetime(instant(as_of, profile.zone, "--as-of"))
    perform(_counts(profile, request, person, as_json=as_json), as_json=as_json)


async def _counts(profile: Profile, request: CountByZoneRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).CountByZone(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        zones = [{"code": zone.code, "name": zone.name, "count": zone.count} for zone in answer.zones]
        withheld = MessageToDict(answer.withheld, preserving_proto_field_name=True)
        content = {"layer": answer.layer.name, "hash": answer.layer.hash, "zones": zones, "outside": answer.outside}
        content |= {"total": answer.total, "withheld": withheld, "coverage": coverage_rows(answer.coverage)}
        print_json({**content, "release": mark})
        return
    rows = sorted(((zone.count, zone.code, zone.name) for zone in answer.zones if zone.count), reverse=True)
    title = f"{answer.total} facts by {answer.layer.name}, {answer.outside} outside"
    print_table(title, ("facts", "code", "zone"), rows)
    print_unknown(answer.coverage, answer.withheld, profile.zone)
    print_mark(mark)
