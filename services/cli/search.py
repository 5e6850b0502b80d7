"""`planier search`: facts by the words of their titles, and by place."""

from typing import Annotated

import typer
from planier.analytics.v1.analytics_pb2 import SearchFactsRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.map import AREA, box_of, features, print_features
from services.cli.output import console, print_json, print_mark
from services.cli.profile import Profile
from services.cli.words import instant


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(help="Words of a title; accents and slips are forgiven.")] = None,
    place: Annotated[str, typer.Option(help="A zone of a reference layer, such as a quartier.")] = "",
    area: Annotated[str, typer.Option(help=f"{AREA}; instead of --place.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601; with --to.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; with --from.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Most facts to show.")] = 0,
    purpose: PurposeOption = "SITUATION",
    motive: MotiveOption = "recherche d'un événement",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Find facts by words and place, the best first."""
    if place and area:
        raise typer.BadParameter("give --place or --area, not both", param_hint="--place")
    if bool(start) != bool(end):
        raise typer.BadParameter("give both --from and --to, or neither", param_hint="--from")
    profile = Profile.load()
    request = SearchFactsRequest(
        consultation=session.consultation(purpose, motive),
        words=" ".join(words or ()),
        sources=source or (),
        limit=limit,
    )
    if place:
        request.place = place
    elif area:
        request.box.CopyFrom(box_of(area))
    if start:
        request.period.start.FromDatetime(instant(start, profile.zone, "--from"))
        request.period.end.FromDatetime(instant(end, profile.zone, "--to"))
    if as_of:
        request.as_of.FromDatetime(instant(as_of, profile.zone, "--as-of"))
    perform(_search(profile, request, person, as_json=as_json), as_json=as_json)


async def _search(profile: Profile, request: SearchFactsRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).SearchFacts(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    rows = [{**row, "slips": slips} for row, slips in zip(features(answer.features), answer.slips, strict=True)]
    if as_json:
        content = {"features": rows, "more": answer.more, "zone": answer.zone}
        print_json({**content, "coverage": coverage_rows(answer.coverage), "release": mark})
        return
    where = f" in {answer.zone}" if answer.zone else ""
    print_features(f"{len(rows)} facts{where}{', and more' if answer.more else ''}", rows, profile.zone)
    if not rows:
        console.print("aucun fait ne correspond")
    print_unknown(answer.coverage, None, profile.zone)
    print_mark(mark)
