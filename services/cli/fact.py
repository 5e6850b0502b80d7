"""`planier fact`: one fact, and how it came to be."""

from datetime import UTC
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import (
    ChangeKind,
    GetFactRequest,
    GetFactResponse,
)
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import AttendanceRange, FactStatus, Geometry, MeasureKind

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.output import print_json, print_mark, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of

SHOWN_PERIODS = 5


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
    profile = Profile.load()
    request = GetFactRequest(consultation=session.consultation(purpose, motive), fact_id=fact_id)
    if as_of:
        request.as_of.FromDatetime(instant(as_of, profile.zone, "--as-of"))
    perform(_fact(profile, request, person, as_json=as_json), as_json=as_json)


async def _fact(profile: Profile, request: GetFactRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).GetFact(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        content = MessageToDict(answer, preserving_proto_field_name=True)
        print_json({**content, "coverage": coverage_rows(answer.coverage)})
        return
    _show_versions(answer, profile.zone)
    print_unknown(answer.coverage, None, profile.zone)
    print_mark(mark)


def _show_versions(answer: GetFactResponse, zone: ZoneInfo) -> None:
    """The newest version whole, then how it came to be."""
    newest = answer.versions[-1].fact
    periods = [f"{_local(period.start, zone)} / {_local(period.end, zone)}" for period in newest.periods]
    parts = (
        ("title", newest.title),
        ("source, kind", f"{newest.source}, {newest.kind}"),
        ("number", newest.source_id),
        ("status", name_of(FactStatus, newest.status)),
        ("when", "\n".join(periods[:SHOWN_PERIODS])),
        ("", f"and {len(periods) - SHOWN_PERIODS} more (--json lists all)" if len(periods) > SHOWN_PERIODS else ""),
        ("where", _place(newest.geometry)),
        ("expected", _attendance(newest.attendance) if newest.HasField("attendance") else ""),
        ("measures", ", ".join(f"{name_of(MeasureKind, item.kind)} {item.reference}" for item in newest.measures)),
        ("attributes", ", ".join(f"{item.name} {item.choice or item.number}" for item in newest.attributes)),
        ("instrument", newest.instrument_id),
    )
    print_record(f"fact {answer.fact_id}", parts)
    history = (
        (
            version.fact.revision,
            _local(version.recorded_at, zone),
            name_of(ChangeKind, version.change),
            name_of(FactStatus, version.fact.status),
        )
        for version in answer.versions
    )
    print_table("\nhistory", ("revision", "learnt", "change", "status"), history)


def _place(geometry: Geometry) -> str:
    if geometry.HasField("point"):
        return f"{geometry.point.longitude}, {geometry.point.latitude} (longitude, latitude)"
    shape = str(geometry.WhichOneof("shape")).replace("_", " ")
    return f"a {shape} (--json has its points)"


def _attendance(expected: AttendanceRange) -> str:
    return f"{expected.minimum} to {expected.maximum} persons"


def _local(moment: Timestamp, zone: ZoneInfo) -> str:
    return local(moment.ToDatetime(UTC), zone)
