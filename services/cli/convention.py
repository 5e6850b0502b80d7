"""`planier convention`: the founding deed, signed by both parties, and what is in force."""

from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict
from planier.access.v1.access_pb2 import (
    GetConventionRequest,
    GetConventionResponse,
    SignConventionRequest,
    SignConventionResponse,
)
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, Party, Role
from planier.common.v1.release_pb2 import Purpose

from services.access import deed as deeds
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json, print_mark, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import local, name_of
from services.kernel.keys import read_private_key
from services.kernel.registry import Registry

Keys = Mapping[Party.ValueType, Ed25519PrivateKey]

convention = typer.Typer(no_args_is_help=True, help="The convention between the City and the Préfecture.")
app.add_typer(convention, name="convention")


@convention.command()
def sign(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The deed, as YAML.")],
    city_key: Annotated[Path, typer.Option(exists=True, help="The City's Ed25519 key, PEM.")],
    prefecture_key: Annotated[Path, typer.Option(exists=True, help="The Préfecture's Ed25519 key, PEM.")],
    as_json: JsonOption = False,
) -> None:
    """Make the founding event: both parties sign the deed, which hashes annex 1 and names the office holders."""
    keys = {PARTY_CITY: read_key(city_key), PARTY_PREFECTURE: read_key(prefecture_key)}
    description = yaml.safe_load(file.read_text())
    perform(_sign(description, keys, as_json=as_json), as_json=as_json)


@convention.command()
def show(
    motive: MotiveOption = "consultation de la convention", person: AsOption = "", as_json: JsonOption = False
) -> None:
    """Show the convention in force."""
    perform(_show(motive, person, as_json=as_json), as_json=as_json)


async def _sign(description: dict[str, Any], keys: Keys, *, as_json: bool) -> None:
    profile = Profile.load()
    answer = await sign_deed(profile, description, keys)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(f"signed; recorded as {answer.release.receipt.record_id}")


async def sign_deed(profile: Profile, description: dict[str, Any], keys: Keys) -> SignConventionResponse:
    """Makes the founding event from a deed's description; annex 1 is the installation's."""
    annex_hash = Registry.load(profile.annex).hash
    public = {party: key.public_key() for party, key in keys.items()}
    content = deeds.build(description, annex_hash=annex_hash, keys=public)
    signatures = [deeds.sign(content, party, key) for party, key in keys.items()]
    request = SignConventionRequest(deed=content, signatures=signatures)
    async with channel(profile, "access") as opened:
        answer = await AccessServiceStub(opened).SignConvention(request, timeout=DEADLINE)
    Receipts(profile).keep(answer)
    return answer


async def _show(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    request = GetConventionRequest(consultation=session.consultation("ADMINISTRATION", motive))
    async with channel(profile, "access") as opened:
        call = AccessServiceStub(opened).GetConvention(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    _show_deed(answer, profile.zone)
    print_mark(mark)


def _show_deed(answer: GetConventionResponse, zone: ZoneInfo) -> None:
    deed = answer.deed
    dates = (
        ("signed", local(answer.signed_at.ToDatetime(UTC), zone)),
        ("ends at the latest", local(answer.term_ends_at.ToDatetime(UTC), zone)),
        ("document, SHA-256", deed.document_hash.hex()),
        ("annex 1, SHA-256", deed.annex_hash),
    )
    print_record(f"convention {deed.convention_version}", dates)
    for item in deed.instruments:
        purposes = ", ".join(name_of(Purpose, purpose) for purpose in item.purposes)
        parts = (("title", item.title), ("sources", ", ".join(item.sources)), ("purposes", purposes))
        print_record(f"\n{item.instrument_id} {item.version}", parts)
    holders = (
        (
            name_of(Role, holder.role),
            name_of(Party, holder.party),
            f"{holder.person.given_name} {holder.person.usual_name}, {holder.person.service}",
            f"{holder.act_reference}, from {local(getattr(holder, 'from').ToDatetime(UTC), zone)}",
        )
        for holder in deed.office_holders
    )
    print_table("\noffice holders", ("role", "party", "person", "act"), holders)
    declarants = ((item.name, name_of(Party, item.party), item.certificate_identity) for item in deed.declarants)
    print_table("\ndeclaring systems", ("system", "party", "certificate"), declarants)


def read_key(path: Path) -> Ed25519PrivateKey:
    """A party's private key; BadParameter where the file holds none."""
    try:
        return read_private_key(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
