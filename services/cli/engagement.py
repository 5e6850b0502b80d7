"""`planier engagement`: providers' engagements, from their opening to the certificate of destruction."""

import base64
import hashlib
import json
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import typer
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from planier.access.v1.engagement_events_pb2 import EngagementEnd
from planier.access.v1.engagement_pb2 import (
    AuthoriseHandOverRequest,
    CertifyDestructionRequest,
    EndEngagementRequest,
    Engagement,
    EngagementState,
    ListEngagementsRequest,
    OpenEngagementRequest,
)
from planier.common.v1.release_pb2 import Purpose

from services.access import engagements
from services.access.deed import raw_public_key
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.clearance import call
from services.cli.convention import read_key
from services.cli.output import print_json, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of, value_of
from services.kernel.keys import read_public_key

engagement = typer.Typer(no_args_is_help=True, help="Providers' engagements (prestations).")
app.add_typer(engagement, name="engagement")


@engagement.command("open")
def open_engagement(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Its terms, as YAML.")],
    key: Annotated[Path, typer.Option(exists=True, help="What the provider will certify with, public, Ed25519, PEM.")],
    motive: MotiveOption = "ouverture d'une prestation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Open an engagement; refused to whoever owes a certificate of destruction.

    The file holds provider {siret, name}, service, purposes, sources, persons [{person_id, person, siret}],
    subcontractors, valid_from, valid_until and destruction_days.
    """
    request = OpenEngagementRequest()
    try:
        ParseDict(_terms(file, Profile.load().zone), request)
    except ParseError:  # its text quotes values, and terms hold names
        raise typer.BadParameter("the file does not hold the terms of an engagement") from None
    request.consultation.CopyFrom(session.consultation("ADMINISTRATION", motive))
    request.engagement_id = request.engagement_id or str(uuid4())
    request.certificate_key = raw_public_key(read_public_key(key))
    perform(_change("OpenEngagement", request, person, as_json=as_json), as_json=as_json)


@engagement.command()
def end(
    engagement_id: str,
    cause: Annotated[str, typer.Option(help="SERVICE_DONE, BREACH, WITHDRAWN or PROVIDER_CEASED.")] = "SERVICE_DONE",
    motive: MotiveOption = "fin d'une prestation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """End an engagement before its last day; the provider then owes its certificate of destruction."""
    look = session.consultation("ADMINISTRATION", motive)
    request = EndEngagementRequest(
        consultation=look, engagement_id=engagement_id, cause=value_of(EngagementEnd, cause, "--cause")
    )
    perform(_change("EndEngagement", request, person, as_json=as_json), as_json=as_json)


@engagement.command("hand-over")
def hand_over(
    engagement_id: str,
    to: Annotated[str, typer.Option(help="The person_id of one of its persons.")],
    source: Annotated[list[str], typer.Option(help="What is handed over; repeated.")],
    motive: MotiveOption = "remise à un prestataire",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Authorise one hand-over; refused outside the engagement and to whoever owes a certificate."""
    request = AuthoriseHandOverRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        engagement_id=engagement_id,
        hand_over_id=str(uuid4()),
        person_id=to,
        sources=source,
    )
    perform(_change("AuthoriseHandOver", request, person, as_json=as_json), as_json=as_json)


@engagement.command()
def attest(
    engagement_id: str,
    document: Annotated[Path, typer.Option(exists=True, help="The signed document; its SHA-256 is certified.")],
    key: Annotated[Path, typer.Option(exists=True, help="The provider's Ed25519 key, PEM.")],
    destroyed: Annotated[str, typer.Option(help="When the last copy was destroyed, ISO 8601.")],
    siret: Annotated[list[str], typer.Option(help="Whose copies; the provider's and each subcontractor's.")],
    out: Annotated[Path, typer.Option(help="Where the certificate goes.")],
) -> None:
    """Make the certificate of destruction, as the provider; nothing is sent."""
    zone = Profile.load().zone
    document_hash = hashlib.sha256(document.read_bytes()).digest()
    content = engagements.certificate_content(
        engagement_id.lower(), document_hash, instant(destroyed, zone, "--destroyed"), siret
    )
    parts = {"certificate": content, "signature": engagements.sign(content, read_key(key))}
    out.write_text(json.dumps({name: base64.b64encode(part).decode() for name, part in parts.items()}) + "\n")


@engagement.command()
def certify(
    engagement_id: str,
    certificate: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `attest` made.")],
    motive: MotiveOption = "attestation de destruction",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record the provider's certificate: the engagement closes on nothing else."""
    try:
        parts = json.loads(certificate.read_text())
        content, signature = base64.b64decode(parts["certificate"]), base64.b64decode(parts["signature"])
    except (KeyError, TypeError, ValueError):
        raise typer.BadParameter("the file is not a certificate") from None
    request = CertifyDestructionRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        engagement_id=engagement_id,
        certificate=content,
        signature=signature,
    )
    perform(_change("CertifyDestruction", request, person, as_json=as_json), as_json=as_json)


@engagement.command("list")
def list_engagements(
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those whose certificate is late.")] = False,
    purpose: PurposeOption = "ADMINISTRATION",
    motive: MotiveOption = "suivi des prestations",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """List engagements, what they still owe and until when; exits with 1 where --overdue finds any."""
    perform(_list(purpose, motive, person, overdue=overdue, as_json=as_json), as_json=as_json)


def _terms(file: Path, zone: ZoneInfo) -> dict[str, Any]:
    """The file's terms in protobuf's JSON mapping; dates and times without an offset are the territory's."""
    found = yaml.safe_load(file.read_text())
    if not isinstance(found, dict):
        raise typer.BadParameter("must be a YAML mapping")
    for name in ("valid_from", "valid_until"):
        if name in found:
            found[name] = instant(str(found[name]), zone, name).isoformat().replace("+00:00", "Z")
    found["purposes"] = [f"PURPOSE_{name}" for name in found.get("purposes", ())]
    return found


async def _change(method: str, request: Any, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    answer = await call(profile, method, request, person)
    _show(profile.zone, answer.engagement, as_json=as_json)


async def _list(purpose: str, motive: str, person: str, *, overdue: bool, as_json: bool) -> None:
    profile = Profile.load()
    request = ListEngagementsRequest(consultation=session.consultation(purpose, motive), overdue=overdue)
    found: list[Engagement] = list((await call(profile, "ListEngagements", request, person)).engagements)
    if as_json:
        print_json([MessageToDict(item, preserving_proto_field_name=True) for item in found])
    else:
        columns = ("engagement", "provider", "state", "dates")
        rows = ((item.engagement_id, item.provider.name, *_standing(item, profile.zone)) for item in found)
        print_table(f"{len(found)} engagements", columns, rows, whole=("engagement",))
    if overdue and found:
        raise SystemExit(1)


def _standing(item: Engagement, zone: ZoneInfo) -> tuple[str, str]:
    state = name_of(EngagementState, item.state)
    if not item.HasField("ended_at"):
        return state, f"until {local(item.valid_until.ToDatetime(UTC), zone)}"
    if item.HasField("certified_at"):
        return state, f"certified {local(item.certified_at.ToDatetime(UTC), zone)}"
    return state, f"certificate due before {local(item.certificate_due_at.ToDatetime(UTC), zone)}"


def _show(zone: ZoneInfo, item: Engagement, *, as_json: bool) -> None:
    if as_json:
        print_json(MessageToDict(item, preserving_proto_field_name=True))
        return
    state, dates = _standing(item, zone)
    parts = (
        ("provider", item.provider.name),
        ("service", item.service),
        ("purposes", ", ".join(name_of(Purpose, purpose) for purpose in item.purposes)),
        ("sources", ", ".join(item.sources)),
        ("state", f"{state}, {dates}"),
        ("hand-overs", len(item.hand_overs) or ""),
        ("document, SHA-256", item.document_hash.hex()),
    )
    print_record(f"engagement {item.engagement_id}", parts)
