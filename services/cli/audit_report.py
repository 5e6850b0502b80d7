"""`planier audit report`: a period of the log in French, as HTML and PDF."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from planier.access.v1.access_pb2 import CLEARANCE_STATE_ACTIVE, GetConventionRequest, GetConventionResponse
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.engagement_pb2 import ListEngagementsRequest
from planier.access.v1.events_pb2 import Party
from planier.audit.v1.audit_pb2 import ReplayFilter
from planier.audit.v1.oversight_pb2 import GetIntegrityRequest
from planier.audit.v1.oversight_pb2_grpc import OversightServiceStub

from services.audit.statistics import ActiveClearance, Statistics, clearance_notes, records_of
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.audit import audit
from services.cli.audit_calls import clearances_of, newest_head, replayed
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.cli.report_content import Facts, LateEngagement, report_of, texts
from services.cli.words import instant, name_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What to report on, and where to."""

    start: datetime
    end: datetime
    html: Path | None
    pdf: Path | None


@audit.command()
def report(
    start: Annotated[str, typer.Option("--from", help="First day, ISO 8601.")],
    end: Annotated[str, typer.Option("--to", help="First day after the period; now by default.")] = "",
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page here.")] = None,
    pdf_file: Annotated[Path | None, typer.Option("--pdf", help="Write a PDF here.")] = None,
    motive: MotiveOption = "rapport périodique sur le journal des accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Report a period in French: per clause, purpose and organisation; what is unusual, unused or due. No person."""
    if html_file is None and pdf_file is None:
        raise typer.BadParameter("one of both at least", param_hint="--html / --pdf")
    zone = Profile.load().zone
    until = instant(end, zone, "--to") if end else datetime.now(UTC)
    asked = Asked(instant(start, zone, "--from"), until, html_file, pdf_file)
    perform(_report(asked, motive, person, as_json=as_json), as_json=as_json)


async def _report(asked: Asked, motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    statistics, record_id = await _counted(profile, asked, motive, person)
    convention = await _convention(profile, motive, person)
    clearances = [
        ActiveClearance(
            one.clearance_id,
            (name_of(Party, one.party), one.person.service),
            one.valid_from.ToDatetime(UTC),
            one.valid_until.ToDatetime(UTC),
        )
        for one in await clearances_of(profile, motive, person)
        if one.state == CLEARANCE_STATE_ACTIVE
    ]
    notes = clearance_notes(clearances, statistics, asked.start, asked.end)
    from services.cli.report_pages import html, pdf

    facts = await _facts(profile, asked, convention, record_id)
    content = report_of(statistics, notes, await _late(profile, motive, person), facts)
    written = []
    if asked.html is not None:
        asked.html.write_text(html(content), encoding="utf-8")
        written.append(str(asked.html))
    if asked.pdf is not None:
        asked.pdf.write_bytes(pdf(content))
        written.append(str(asked.pdf))
    if as_json:
        sections = {one.title: {"columns": one.columns, "rows": one.rows} for one in content.sections}
        print_json({"files": written, "sections": sections})
        return
    console.print(f"{statistics.total.accesses} accesses, {sum(1 for _ in texts(content))} texts: {', '.join(written)}")


async def _counted(profile: Profile, asked: Asked, motive: str, person: str) -> tuple[Statistics, str]:
    """The period's numbers, and the record of the look that gave them."""
    wanted = ReplayFilter()
    wanted.occurred_from.FromDatetime(asked.start)
    wanted.occurred_until.FromDatetime(asked.end)
    statistics, record_id = Statistics(profile.zone), ""
    async for _, entries, release in replayed(profile, wanted, motive, person):
        record_id = release.receipt.record_id if release is not None else record_id
        records_of(
            ((one.index, one.record if one.HasField("record") else None, one.masked) for one in entries), statistics
        )
    return statistics, record_id


async def _late(profile: Profile, motive: str, person: str) -> list[LateEngagement]:
    """Engagements whose certificate is overdue now, as access shows them."""
    signed_in = await session.current(profile, person)
    request = ListEngagementsRequest(consultation=session.consultation("OVERSIGHT", motive), overdue=True)
    async with channel(profile, "access") as opened:
        answer = await AccessServiceStub(opened).ListEngagements(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    return [
        LateEngagement(
            one.engagement_id,
            one.provider.name,
            one.ended_at.ToDatetime(UTC),
            one.certificate_due_at.ToDatetime(UTC),
        )
        for one in answer.engagements
    ]


async def _convention(profile: Profile, motive: str, person: str) -> GetConventionResponse:
    signed_in = await session.current(profile, person)
    request = GetConventionRequest(consultation=session.consultation("OVERSIGHT", motive))
    async with channel(profile, "access") as opened:
        answer = await AccessServiceStub(opened).GetConvention(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    return answer


async def _facts(profile: Profile, asked: Asked, convention: GetConventionResponse, record_id: str) -> Facts:
    head, _, _ = await newest_head(profile)
    async with channel(profile, "audit") as opened:
        integrity = await OversightServiceStub(opened).GetIntegrity(GetIntegrityRequest(), timeout=DEADLINE)
    return Facts(
        start=asked.start,
        end=asked.end,
        made_at=datetime.now(UTC),
        zone=profile.zone,
        convention_version=convention.deed.convention_version,
        term_ends=convention.term_ends_at.ToDatetime(UTC),
        tree_size=head.size,
        root=head.root,
        record_id=record_id,
        corrupt=tuple((part.first_index, part.end_index, part.fault) for part in integrity.corrupt),
        holes=tuple((hole.instance, hole.missing) for hole in integrity.holes),
    )
