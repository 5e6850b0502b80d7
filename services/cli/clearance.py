"""`planier clearance`: habilitations, as the DGA grants and revokes them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

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
from planier.access.v1.events_pb2 import Party, Person, RevocationReason, Role
from planier.common.v1.release_pb2 import Purpose

from services.cli import session
from services.cli.app import JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.cli.queries import AsOption

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
    role: Annotated[str, typer.Option(help="CITY_USER, PREFECTURE_USER, COORDINATOR or AUDITOR.")] = "CITY_USER",
    purpose: Annotated[list[str] | None, typer.Option(help="SITUATION, CROSSING, TENSION; all by default.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only these sources; all by default.")] = None,
    days: Annotated[int, typer.Option(help="For how many days from now.")] = 180,
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
        party=Party.Value(f"PARTY_{party.upper()}"),
        role=Role.Value(f"ROLE_{role.upper()}"),
        purposes=[Purpose.Value(f"PURPOSE_{name.upper()}") for name in purpose or ("SITUATION", "CROSSING", "TENSION")],
        sources=source or (),
    )
    request.valid_from.FromDatetime(start)
    request.valid_until.FromDatetime(start + timedelta(days=days))
    perform(_change("GrantClearance", request, person, as_json=as_json), as_json=as_json)


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
        reason=RevocationReason.Value(f"REVOCATION_REASON_{reason.upper()}"),
    )
    perform(_change("RevokeClearance", request, person, as_json=as_json), as_json=as_json)


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


async def call(profile: Profile, method: str, request: Any, person: str) -> Any:
    """One call of access under a person's session, its receipt kept."""
    signed_in = await session.current(profile, person)
    async with channel(profile, "access") as opened:
        stub = AccessServiceStub(opened)
        answer = await getattr(stub, method)(request, timeout=DEADLINE, metadata=signed_in.metadata)
    Receipts(profile).keep(answer)
    return answer


async def _change(method: str, request: Any, person: str, *, as_json: bool) -> None:
    answer = await call(Profile.load(), method, request, person)
    _show(answer.clearance, as_json=as_json)


async def _confirm(clearance_id: str, motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    proposed = {item.clearance_id: item for item in await everyone(profile, motive, person)}.get(clearance_id)
    if proposed is None:
        raise typer.BadParameter("no such clearance")
    request = ConfirmBindingRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        clearance_id=clearance_id,
        identity=proposed.identity,
    )
    answer = await call(profile, "ConfirmBinding", request, person)
    _show(answer.clearance, as_json=as_json)


async def _list(motive: str, person: str, *, as_json: bool) -> None:
    found = await everyone(Profile.load(), motive, person)
    if as_json:
        print_json([MessageToDict(item, preserving_proto_field_name=True) for item in found])
        return
    columns = ("clearance", "person", "service", "role", "until", "state")
    print_table("clearances", columns, (_row(item) for item in found))


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


def _row(item: Clearance) -> tuple[str, ...]:
    name = f"{item.person.given_name} {item.person.usual_name}"
    until = item.valid_until.ToDatetime(UTC).date().isoformat()
    state = ClearanceState.Name(item.state).removeprefix("CLEARANCE_STATE_")
    role = Role.Name(item.role).removeprefix("ROLE_")
    return item.clearance_id, name, item.person.service, role, until, state


def _show(item: Clearance, *, as_json: bool) -> None:
    if as_json:
        print_json(MessageToDict(item, preserving_proto_field_name=True))
        return
    console.print(" · ".join(_row(item)))
