"""`planier agenda`: the coming days, and what deserves a second look."""

from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1 import agenda_pb2 as pb
from planier.analytics.v1.analytics_pb2 import GetAgendaRequest, GetAgendaResponse
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import FactStatus, MeasureKind

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.map import AREA, box_of
from services.cli.output import console, print_json, print_mark, print_table
from services.cli.profile import Profile
from services.cli.words import day, instant, local, name_of

_WORDS = {
    pb.ATTENTION_KIND_SIMULTANEITY: "simultanés à moins de 500 m",
    pb.ATTENTION_KIND_UNRESOLVED_CONFLICTS: "conflits non résolus",
    pb.ATTENTION_KIND_MISSING_MEASURES: "conflits sans mesure",
    pb.ATTENTION_KIND_WEATHER_WARNING: "vigilances météo",
}


@app.command()
def agenda(
    first: Annotated[str, typer.Option("--from", help="The first day, such as 2026-06-01; today by default.")] = "",
    days: Annotated[int, typer.Option(help="How many days; 30 by default.", min=1, max=92)] = 30,
    area: Annotated[str, typer.Option(help=f"{AREA}; everywhere by default.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    changed_since: Annotated[str, typer.Option(help="Only what is new, moved or cancelled since that instant.")] = "",
    motive: MotiveOption = "prise de service",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show day by day what happens, where, when, how many are expected, and why to look twice."""
    profile = Profile.load()
    zone = profile.zone
    request = GetAgendaRequest(
        consultation=session.consultation("SITUATION", motive),
        first_day=day(first, "--from").isoformat() if first else "",
        days=days,
        sources=source or (),
    )
    if area:
        request.box.CopyFrom(box_of(area))
    if as_of:
        request.as_of.FromDatetime(instant(as_of, zone, "--as-of"))
    if changed_since:
        request.changed_since.FromDatetime(instant(changed_since, zone, "--changed-since"))
    perform(_agenda(profile, request, person, as_json=as_json), as_json=as_json)


async def _agenda(profile: Profile, request: GetAgendaRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).GetAgenda(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        content = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        print_json({**content, "coverage": coverage_rows(answer.coverage), "release": mark})
        return
    _show(answer, profile.zone)
    print_unknown(answer.coverage, None, profile.zone)
    print_mark(mark)


def _show(answer: GetAgendaResponse, zone: ZoneInfo) -> None:
    listed: set[int] = set()
    for one in answer.days:
        if one.entries:
            listed.update(one.entries)
            rows = (_row(answer.entries[number], zone) for number in one.entries)
            title = " · ".join((one.day, *_factors(one.factors)))
            print_table(title, ("when", "what and where", "attention"), rows, whole=("when",))
    others = [entry for number, entry in enumerate(answer.entries) if number not in listed]
    if others:
        print_table("no longer in these days", ("when", "what and where", "attention"), (_row(o, zone) for o in others))
    if not answer.entries:
        console.print("nothing")


def _row(entry: pb.AgendaEntry, zone: ZoneInfo) -> tuple[str, ...]:
    first, last = entry.periods[0].start.ToDatetime(UTC), entry.periods[-1].end.ToDatetime(UTC)
    often = f" ({len(entry.periods)} times)" if len(entry.periods) > 1 else ""
    change = f"{name_of(pb.AgendaChange, entry.change)}: " if entry.change else ""
    what = (
        f"{change}{entry.title or entry.kind}{often}\n{entry.kind}, {name_of(FactStatus, entry.status)}, {entry.place}"
    )
    measures = [f"{name_of(MeasureKind, measure.kind)} {measure.reference}" for measure in entry.measures]
    return f"{local(first, zone)}\n{local(last, zone)}", what, "\n".join([*_factors(entry.factors), *measures])


def _factors(factors: Iterable[pb.AttentionFactor]) -> Iterator[str]:
    for factor in factors:
        if factor.kind == pb.ATTENTION_KIND_ATTENDANCE:
            yield f"{factor.value} à {factor.maximum} personnes"
        else:
            yield f"{factor.value} {_WORDS[factor.kind]}"
