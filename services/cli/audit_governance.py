"""`planier audit requisition`, `unmask`, `retention`, `hold`, `governance`: for the data protection officers."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from planier.audit.v1 import oversight_pb2 as pb
from planier.audit.v1.governance_pb2 import Agent
from planier.audit.v1.record_pb2 import Recipient

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.audit import audit
from services.cli.audit_calls import oversee
from services.cli.output import console, print_json, print_receipt, print_record
from services.cli.profile import Profile
from services.cli.words import instant, local
from services.kernel.clock import RandomIds

DECISION = "décision sur le journal des accès"
ReferenceOption = Annotated[str, typer.Option(help="The number of the act that calls for it.")]
WhyOption = Annotated[str, typer.Option("--because", help="The justification, kept with the decision.")]


@audit.command()
def requisition(
    reference: ReferenceOption,
    organisation: Annotated[str, typer.Option("--to-whom", help="The authority that required it, never a person.")],
    source: Annotated[list[str] | None, typer.Option(help="Sources of what was handed over.")] = None,
    item: Annotated[list[str] | None, typer.Option("--reference-to", help="A fact handed over, by its id.")] = None,
    count: Annotated[int, typer.Option(min=0, help="How many facts.")] = 0,
    content: Annotated[Path | None, typer.Option(help="The file handed over; only its digest is recorded.")] = None,
    start: Annotated[str, typer.Option("--from", help="Period of the facts, ISO 8601.")] = "",
    end: Annotated[str, typer.Option("--to", help="Period of the facts, ISO 8601.")] = "",
    motive: MotiveOption = "obligation légale",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record a judicial requisition that was answered: a disclosure under a legal obligation, never a purpose."""
    request = pb.RecordRequisitionRequest(
        consultation=session.consultation("OVERSIGHT", motive),
        reference=reference,
        recipient=Recipient(organisation=organisation, capacity="JUDICIAL_AUTHORITY"),
        sources=source or (),
        references=item or (),
        count=count,
        content_digest=hashlib.sha256(content.read_bytes()).digest() if content else b"",
        period_start=_stamp(start, "--from"),
        period_end=_stamp(end, "--to"),
    )
    perform(_answer("RecordRequisition", request, person, as_json=as_json), as_json=as_json)


@audit.command()
def unmask(
    reference: ReferenceOption,
    because: WhyOption,
    beneficiary: Annotated[str, typer.Option("--for", help="Who may see: the subject at the identity provider.")],
    pseudonym: Annotated[list[str] | None, typer.Option(help="Whom; without any, everybody of your party.")] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="For how long.")] = 30,
    motive: MotiveOption = DECISION,
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let one person see who stands behind pseudonyms of your own party."""
    request = pb.DecideUnmaskingRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        unmasking_id=RandomIds().new(),
        pseudonyms=pseudonym or (),
        beneficiary=Agent(issuer=Profile.load().issuer, subject=beneficiary),
        reference=reference,
        justification=because,
    )
    request.valid_until.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    perform(_answer("DecideUnmasking", request, person, as_json=as_json), as_json=as_json)


@audit.command()
def retention(
    because: WhyOption,
    months: Annotated[int, typer.Option(min=0, max=36, help="Propose so many months, 12 to 36.")] = 0,
    approve: Annotated[str, typer.Option(help="Approve the other party's proposal of this id.")] = "",
    motive: MotiveOption = DECISION,
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Propose how long the log is kept, or approve what the other party's officer proposed."""
    if bool(months) == bool(approve):
        raise typer.BadParameter("one of both", param_hint="--months / --approve")
    consultation = session.consultation("ADMINISTRATION", motive)
    if approve:
        method, request = "ApproveRetention", pb.ApproveRetentionRequest(
            consultation=consultation, proposal_id=approve, justification=because
        )  # fmt: skip
        perform(_answer(method, request, person, as_json=as_json), as_json=as_json)
        return
    proposal = pb.ProposeRetentionRequest(
        consultation=consultation, proposal_id=RandomIds().new(), months=months, justification=because
    )
    perform(_answer("ProposeRetention", proposal, person, as_json=as_json), as_json=as_json)


@audit.command()
def hold(
    reference: Annotated[str, typer.Option(help="The number of the act that calls for it.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601.")] = "",
    lift: Annotated[str, typer.Option(help="Lift the hold of this id instead.")] = "",
    motive: MotiveOption = DECISION,
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Keep what was recorded in a period whatever its age, or let it age again."""
    consultation = session.consultation("ADMINISTRATION", motive)
    if lift:
        request = pb.LiftHoldRequest(consultation=consultation, hold_id=lift)
        perform(_answer("LiftHold", request, person, as_json=as_json), as_json=as_json)
        return
    placed = pb.PlaceHoldRequest(
        consultation=consultation,
        hold_id=RandomIds().new(),
        period_start=_stamp(start, "--from"),
        period_end=_stamp(end, "--to"),
        reference=reference,
    )
    perform(_answer("PlaceHold", placed, person, as_json=as_json), as_json=as_json)


@audit.command()
def governance(motive: MotiveOption = DECISION, person: AsOption = "", as_json: JsonOption = False) -> None:
    """Show what the officers decided about the log, and what is in force."""
    perform(_governance(motive, person, as_json=as_json), as_json=as_json)


async def _answer(method: str, request: Any, person: str, *, as_json: bool) -> None:
    answer = await oversee(Profile.load(), method, request, person)
    content: dict[str, Any] = MessageToDict(answer, preserving_proto_field_name=True)
    if as_json:
        print_json(content)
        return
    mark = content.pop("release")
    for name, parts in content.items():
        print_record(name, ((key, _words(value)) for key, value in parts.items()))
    print_receipt(mark)


async def _governance(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    request = pb.GetGovernanceRequest(consultation=session.consultation("OVERSIGHT", motive))
    answer = await oversee(profile, "GetGovernance", request, person)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(f"the log is kept [bold]{answer.retention_months}[/bold] months")
    for kind, found in (("retention", answer.proposals), ("hold", answer.holds), ("unmasking", answer.unmaskings)):
        for one in found:
            parts = MessageToDict(one, preserving_proto_field_name=True)
            print_record(kind, ((name, _local(value, profile)) for name, value in parts.items()))


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(str(part) for part in value.values())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _local(value: object, profile: Profile) -> str:
    text = _words(value)
    try:
        return local(datetime.fromisoformat(text), profile.zone) if text.endswith("Z") else text
    except ValueError:
        return text


def _stamp(text: str, option: str) -> Timestamp | None:
    if not text:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(instant(text, Profile.load().zone, option))
    return stamp
