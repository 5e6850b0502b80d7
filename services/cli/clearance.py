"""`planier clearance`: habilitations, as the DGA grants and revokes them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from planier.access.v1.access_pb2 import (
    Clearance,
    ClearanceState,
    ConfirmBindingRequest,
    GrantClearanceRequest,
    ListClearancesRequest,
    RevokeClearanceRequest,
)
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import Area, Party, Person, RevocationReason, Role
from planier.common.v1.release_pb2 import Purpose

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import print_json, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import local, name_of, value_of
from services.kernel.errors import not_found

clearance = typer.Typer(no_args_is_help=True, help="Clearances (habilitations).")
app.add_typer(clearance, name="clearance")

PAGE = 1000


@clearance.command()
def grant(
    given_name: Annotated[str, typer.Option()],
    usual_name: Annotated[str, typer.Option()],
    service: Annotated[str, typer.Option(help="Service or directorate.")],
    address: Annotated[str, typer.Option(help="Professional address.")],
    party: Annotated[str, typer.Option(help="CITY or PREFECTURE.")] = "CITY",
    role: Annotated[
        str, typer.Option(help="CITY_USER, PREFECTURE_USER, COORDINATOR, AUDITOR, PROVIDER_RECIPIENT.")
    ] = "CITY_USER",
    purpose: Annotated[list[str] | None, typer.Option(help="SITUATION, CROSSING, TENSION; all by default.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only these sources; all by default.")] = None,
    days: Annotated[int, typer.Option(help="For how many days from now.")] = 180,
    engagement: Annotated[str, typer.Option(help="A PROVIDER_RECIPIENT's engagement.")] = "",
    area: Annotated[list[str] | None, typer.Option(help="Only there: west,south,east,north in degrees.")] = None,
    urgent: Annotated[bool, typer.Option(help="Twelve hours, by house.urgent_clearance; both DPOs are told.")] = False,
    motive: MotiveOption = "habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Grant a clearance to a named person; it takes effect once their first login is confirmed."""
    start = datetime.now(UTC)
    request = GrantClearanceRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=str(uuid4()),
        person=Person(given_name=given_name, usual_name=usual_name, service=service, professional_address=address),
        party=value_of(Party, party, "--party"),
        role=value_of(Role, role, "--role"),
        purposes=[value_of(Purpose, name, "--purpose") for name in purpose or ("SITUATION", "CROSSING", "TENSION")],
        sources=source or (),
        engagement_id=engagement,
        areas=[_area(text) for text in area or ()],
        urgent=urgent,
    )
    request.valid_from.FromDatetime(start)
    request.valid_until.FromDatetime(start + (timedelta(hours=12) if urgent else timedelta(days=days)))
    perform(change("GrantClearance", request, person, as_json=as_json), as_json=as_json)


@clearance.command()
def revoke(
    clearance_id: str,
    reason: Annotated[str, typer.Option(help="DEPARTURE, CHANGE_OF_DUTIES, MISUSE or REQUEST.")] = "CHANGE_OF_DUTIES",
    motive: MotiveOption = "retrait d'habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Revoke a clearance; the very next look is refused."""
    request = RevokeClearanceRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=clearance_id,
        reason=value_of(RevocationReason, reason, "--reason"),
    )
    perform(change("RevokeClearance", request, person, as_json=as_json), as_json=as_json)


@clearance.command()
def confirm(
    clearance_id: str,
    motive: MotiveOption = "confirmation d'identité",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Confirm that the login proposed for a clearance is that person's."""
    perform(_confirm(clearance_id, motive, person, as_json=as_json), as_json=as_json)


@clearance.command("list")
def list_clearances(
    motive: MotiveOption = "revue des habilitations", person: AsOption = "", as_json: JsonOption = False
) -> None:
    """List clearances and what became of them."""
    perform(_list(motive, person, as_json=as_json), as_json=as_json)


def _area(text: str) -> Area:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter("must be four numbers: west,south,east,north", param_hint="--area") from None
    return Area(west=west, south=south, east=east, north=north)


async def call(profile: Profile, method: str, request: Any, person: str) -> Any:
    """One call of access under a person's session, its receipt kept."""
    signed_in = await session.current(profile, person)
    async with channel(profile, "access") as opened:
        stub = AccessServiceStub(opened)
        answer = await getattr(stub, method)(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    return answer


async def change(method: str, request: Any, person: str, *, as_json: bool) -> None:
    """One call that changes a clearance, and shows it."""
    profile = Profile.load()
    answer = await call(profile, method, request, person)
    _show(profile, answer.clearance, as_json=as_json)


async def _confirm(clearance_id: str, motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    proposed = {item.clearance_id: item for item in await everyone(profile, motive, person)}.get(clearance_id)
    if proposed is None:
        raise not_found("CLEARANCE_UNKNOWN", "no such clearance among those that you may see")
    request = ConfirmBindingRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=clearance_id,
        identity=proposed.identity,
    )
    answer = await call(profile, "ConfirmBinding", request, person)
    _show(profile, answer.clearance, as_json=as_json)


async def _list(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    found = await everyone(profile, motive, person)
    if as_json:
        print_json([MessageToDict(item, preserving_proto_field_name=True) for item in found])
        return
    rows = ((item.clearance_id, *(f"{one}\n{other}" for one, other in _parts(profile.zone, item))) for item in found)
    print_table(f"{len(found)} clearances", ("clearance", "person", "role", "state"), rows, whole=("clearance",))


async def everyone(profile: Profile, motive: str, person: str) -> list[Clearance]:
    """Every clearance that the person may see, page after page."""
    found: list[Clearance] = []
    token = ""
    while True:
        consultation = session.consultation("ADMINISTRATION", motive)
        request = ListClearancesRequest(consultation=consultation, page_size=PAGE, page_token=token)
        answer = await call(profile, "ListClearances", request, person)
        found.extend(answer.clearances)
        token = answer.next_page_token
        if not token:
            return found


def _parts(zone: ZoneInfo, item: Clearance) -> tuple[tuple[str, str], ...]:
    """Who it is for, what it lets do and what became of it, in two lines each."""
    person = (f"{item.person.given_name} {item.person.usual_name}", item.person.service)
    role = (name_of(Role, item.role), name_of(Party, item.party))
    until = local(item.valid_until.ToDatetime(UTC), zone)
    return person, role, (name_of(ClearanceState, item.state), f"until {until}")


def _show(profile: Profile, item: Clearance, *, as_json: bool) -> None:
    if as_json:
        print_json(MessageToDict(item, preserving_proto_field_name=True))
        return
    parts = zip(("person", "role", "state"), _parts(profile.zone, item), strict=True)
    print_record(f"clearance {item.clearance_id}", ((name, ", ".join(pair)) for name, pair in parts))
