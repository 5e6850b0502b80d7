"""`planier clearance request|decide|review|suspend|resume|undertake|decisions`: a clearance beyond its grant."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1.access_pb2 import (
    CLEARANCE_STATE_ACTIVE,
    CLEARANCE_STATE_BINDING_PROPOSED,
    CLEARANCE_STATE_GRANTED,
    CLEARANCE_STATE_SUSPENDED,
    CLEARANCE_STATE_UNDERTAKING_AWAITED,
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DECISION_KIND_REVOKE,
    Clearance,
    ClearanceDecision,
    ClearanceState,
    DecideClearancesRequest,
    RequestClearanceRequest,
    ResumeClearanceRequest,
    SignUndertakingRequest,
    SuspendClearanceRequest,
)
from planier.access.v1.events_pb2 import PARTY_CITY, Person, RevocationReason, Role
from planier.common.v1.release_pb2 import Purpose

from services.access import undertaking
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, perform
from services.cli.clearance import call, change, clearance, everyone
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.cli.words import instant, name_of, number_of, value_of

Ids = Annotated[list[str] | None, typer.Option()]
ReasonOption = Annotated[str, typer.Option(help="DEPARTURE, CHANGE_OF_DUTIES, MISUSE or REQUEST.")]
STANDING = frozenset(
    {
        CLEARANCE_STATE_GRANTED,
        CLEARANCE_STATE_BINDING_PROPOSED,
        CLEARANCE_STATE_UNDERTAKING_AWAITED,
        CLEARANCE_STATE_ACTIVE,
        CLEARANCE_STATE_SUSPENDED,
    }
)


@clearance.command()
def request(
    given_name: Annotated[str, typer.Option()],
    usual_name: Annotated[str, typer.Option()],
    service: Annotated[str, typer.Option(help="Service or directorate.")],
    address: Annotated[str, typer.Option(help="Professional address.")],
    role: Annotated[str, typer.Option(help="CITY_USER, COORDINATOR or AUDITOR.")] = "CITY_USER",
    purpose: Annotated[list[str] | None, typer.Option(help="SITUATION, CROSSING, TENSION; all by default.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only these sources; all by default.")] = None,
    days: Annotated[int, typer.Option(help="For how many days from now.")] = 180,
    motive: MotiveOption = "demande d'habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the granting authority to clear a person of the City; a coordinator asks."""
    start = datetime.now(UTC)
    asked = RequestClearanceRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=str(uuid4()),
        person=Person(given_name=given_name, usual_name=usual_name, service=service, professional_address=address),
        party=PARTY_CITY,
        role=value_of(Role, role, "--role"),
        purposes=[value_of(Purpose, name, "--purpose") for name in purpose or ("SITUATION", "CROSSING", "TENSION")],
        sources=source or (),
    )
    asked.valid_from.FromDatetime(start)
    asked.valid_until.FromDatetime(start + timedelta(days=days))
    perform(change("RequestClearance", asked, person, as_json=as_json), as_json=as_json)


@clearance.command()
def decide(
    grant: Ids = None,
    refuse: Ids = None,
    renew: Ids = None,
    review: Ids = None,
    revoke: Ids = None,
    reason: Annotated[str, typer.Option(help="Why it is refused; no personal data.")] = "",
    until: Annotated[str, typer.Option(help="Until when it is renewed, ISO 8601.")] = "",
    revocation: ReasonOption = "CHANGE_OF_DUTIES",
    service: Annotated[str, typer.Option(help="Refuse the list where it holds a person of another service.")] = "",
    motive: MotiveOption = "décisions d'habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Decide a list, one numbered decision each, all or nothing."""
    lasting = _stamp(until) if until else None
    found = [
        *(ClearanceDecision(clearance_id=name, kind=DECISION_KIND_GRANT) for name in grant or ()),
        *(ClearanceDecision(clearance_id=name, kind=DECISION_KIND_REFUSE, reason=reason) for name in refuse or ()),
        *(ClearanceDecision(clearance_id=name, kind=DECISION_KIND_RENEW, valid_until=lasting) for name in renew or ()),
        *(ClearanceDecision(clearance_id=name, kind=DECISION_KIND_REVIEW) for name in review or ()),
        *(
            ClearanceDecision(
                clearance_id=name,
                kind=DECISION_KIND_REVOKE,
                revocation=value_of(RevocationReason, revocation, "--revocation"),
            )
            for name in revoke or ()
        ),
    ]
    perform(_decide(found, service, motive, person, as_json=as_json), as_json=as_json)


@clearance.command("review")
def review_service(
    service: Annotated[str, typer.Argument(help="The service whose list is reviewed.")],
    motive: MotiveOption = "revue annuelle des habilitations",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Review every clearance of a service that stands; revoke first whoever is to leave the list."""
    perform(_review(service, motive, person, as_json=as_json), as_json=as_json)


@clearance.command()
def suspend(
    clearance_id: str,
    reason: ReasonOption = "MISUSE",
    motive: MotiveOption = "suspension d'habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Suspend a clearance at once; either party's office alone."""
    asked = SuspendClearanceRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=clearance_id,
        reason=value_of(RevocationReason, reason, "--reason"),
    )
    perform(change("SuspendClearance", asked, person, as_json=as_json), as_json=as_json)


@clearance.command()
def resume(
    clearance_id: str,
    motive: MotiveOption = "levée de suspension",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Lift the suspension of your own party."""
    consultation = session.consultation("ADMINISTRATION", motive)
    asked = ResumeClearanceRequest(consultation=consultation, clearance_id=clearance_id)
    perform(change("ResumeClearance", asked, person, as_json=as_json), as_json=as_json)


@clearance.command()
def undertake(
    accept: Annotated[bool, typer.Option(help="Sign without being asked again.")] = False,
    motive: MotiveOption = "engagement de confidentialité",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Read and sign the confidentiality undertaking, before the first access."""
    if not as_json:
        console.print(undertaking.TEXT)
    if not accept:
        typer.confirm("Signer cet engagement ?", abort=True)
    perform(_undertake(motive, person, as_json=as_json), as_json=as_json)


@clearance.command()
def decisions(
    motive: MotiveOption = "registre des décisions", person: AsOption = "", as_json: JsonOption = False
) -> None:
    """List the numbered decisions, newest last."""
    perform(_decisions(motive, person, as_json=as_json), as_json=as_json)


async def _decide(found: list[ClearanceDecision], service: str, motive: str, person: str, *, as_json: bool) -> None:
    if not found:
        raise typer.BadParameter("name at least one clearance", param_hint="--grant, --refuse, --renew, ...")
    profile = Profile.load()
    consultation = session.consultation("ADMINISTRATION", motive)
    asked = DecideClearancesRequest(consultation=consultation, decisions=found, service=service)
    answer = await call(profile, "DecideClearances", asked, person)
    _show_numbers(list(answer.clearances), as_json=as_json)


async def _review(service: str, motive: str, person: str, *, as_json: bool) -> None:
    listed = await everyone(Profile.load(), motive, person)
    own = [item for item in listed if item.person.service == service and item.state in STANDING]
    found = [ClearanceDecision(clearance_id=item.clearance_id, kind=DECISION_KIND_REVIEW) for item in own]
    await _decide(found, service, motive, person, as_json=as_json)


async def _undertake(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    consultation = session.consultation("ADMINISTRATION", motive)
    asked = SignUndertakingRequest(consultation=consultation, text_hash=undertaking.HASH)
    answer = await call(profile, "SignUndertaking", asked, person)
    _show_numbers(list(answer.clearances), as_json=as_json)


async def _decisions(motive: str, person: str, *, as_json: bool) -> None:
    _show_numbers(await everyone(Profile.load(), motive, person), as_json=as_json)


def _show_numbers(found: list[Clearance], *, as_json: bool) -> None:
    if as_json:
        print_json([MessageToDict(item, preserving_proto_field_name=True) for item in found])
        return
    rows = sorted(
        (
            ", ".join(number_of(number) for number in item.decisions),
            f"{item.person.given_name} {item.person.usual_name}, {item.person.service}",
            name_of(ClearanceState, item.state),
            item.clearance_id,
        )
        for item in found
    )
    print_table(f"{len(rows)} clearances", ("decisions", "person", "state", "clearance"), rows, whole=("clearance",))


def _stamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant(text, Profile.load().zone, "--until"))
    return stamp
