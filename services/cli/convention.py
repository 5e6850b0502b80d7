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
    ConventionVersion,
    GetConventionRequest,
    GetConventionResponse,
    SignConventionRequest,
    SignConventionResponse,
    VersionState,
)
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    Appointment,
    AppointmentKind,
    Party,
    Role,
    TerminationReason,
)
from planier.common.v1.release_pb2 import Purpose

from services.access import deed as deeds
from services.access.policy import Policy
from services.access.policy.rendering import rendering
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.output import console, print_json, print_mark, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import local, name_of
from services.kernel.errors import not_found
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


@convention.command()
def term(
    motive: MotiveOption = "consultation de la convention", person: AsOption = "", as_json: JsonOption = False
) -> None:
    """Show the term as computed: annual periods, denunciation, termination, destruction (art9)."""
    perform(_term(motive, person, as_json=as_json), as_json=as_json)


@convention.command()
def policy() -> None:
    """Print the policy that this version executes, in French, clause by clause."""
    console.print(rendering(*Policy.load_with_text()), markup=False, highlight=False)


@convention.command()
def diff(
    before: Annotated[str, typer.Argument(help="A version signed.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    motive: MotiveOption = "consultation de la convention",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what changes from one signed version to another."""
    perform(_diff(before, after, motive, person, as_json=as_json), as_json=as_json)


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
    answer, mark = await fetch(profile, motive, person)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    _show_deed(answer, profile.zone)
    _show_versions(answer, profile.zone)
    print_mark(mark)


async def fetch(profile: Profile, motive: str, person: str) -> tuple[GetConventionResponse, dict[str, Any]]:
    """The convention as it stands, and the mark of the look."""
    signed_in = await session.current(profile, person)
    request = GetConventionRequest(consultation=session.consultation("ADMINISTRATION", motive))
    async with channel(profile, "access") as opened:
        call = AccessServiceStub(opened).GetConvention(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    return answer, Receipts(profile).keep(answer)


async def _term(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    answer, mark = await fetch(profile, motive, person)
    if as_json:
        print_json(MessageToDict(answer.term, preserving_proto_field_name=True))
        return
    print_record("échéances de la convention", term_lines(answer, profile.zone))
    print_mark(mark)


def term_lines(answer: GetConventionResponse, zone: ZoneInfo) -> list[tuple[str, str]]:
    """The term in the words that officials read, in the territory's time; every end is the first instant beyond."""
    term = answer.term
    if not term.HasField("notified_at"):
        return [("état", "signée, pas encore notifiée : le terme ne court pas (art9.term)")]

    def day(field: str) -> str:
        return local(getattr(term, field).ToDatetime(UTC), zone)

    renewed = "" if term.year == 1 else f", reconduite tacitement {term.year - 1} fois"
    lines = [
        ("état", f"en vigueur, année {term.year} sur 4{renewed}" if term.in_force else "n'est plus en vigueur"),
        ("notifiée le", day("notified_at")),
    ]
    if term.in_force:
        lines.append(("fin de l'année en cours", day("year_ends_at")))
    lines.append(("fin au plus tard", day("hard_stop_at")))
    if term.HasField("denounced_until"):
        lines.append(("dénoncée, préavis jusqu'au", f"{day('denounced_until')} ({name_of(Party, term.denounced_by)})"))
    if term.HasField("terminated_at"):
        reason = name_of(TerminationReason, term.termination_reason)
        lines.append(("résiliée le", f"{day('terminated_at')} ({reason})"))
    if term.HasField("destroy_before"):
        late = " : EN RETARD" if term.destruction_overdue else ""
        lines.append(("destruction avant le", day("destroy_before") + late))
    if term.HasField("destroyed_at"):
        lines.append(("détruites le", day("destroyed_at")))
    return lines


async def _diff(before: str, after: str, motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    answer, mark = await fetch(profile, motive, person)
    versions = {item.version: item for item in answer.versions}
    for name in (before, after):
        if name not in versions:
            raise not_found("VERSION_UNKNOWN", "no version of this name was signed")
    changes = differences(versions[before], versions[after])
    if as_json:
        print_json([{"what": what, "before": old, "after": new} for what, old, new in changes])
        return
    print_table(f"{before} → {after}", ("what", "before", "after"), changes)
    print_mark(mark)


def differences(before: ConventionVersion, after: ConventionVersion) -> list[tuple[str, str, str]]:
    """What an amendment changes: (what, before, after), "" where it is absent on one side."""
    old, new = _stated(before), _stated(after)
    return [
        (what, old.get(what, ""), new.get(what, "")) for what in _in_order(old, new) if old.get(what) != new.get(what)
    ]


def _in_order(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [*old, *(what for what in new if what not in old)]


def _stated(version: ConventionVersion) -> dict[str, str]:
    stated = {"annex 1": version.annex_hash}
    for item in version.instruments:
        stated[f"{item.instrument_id}: version"] = item.version
        stated[f"{item.instrument_id}: sources"] = ", ".join(sorted(item.sources))
        purposes = sorted(name_of(Purpose, purpose) for purpose in item.purposes)
        stated[f"{item.instrument_id}: purposes"] = ", ".join(purposes)
    for declarant in version.declarants:
        stated[f"declarant {declarant.certificate_identity}"] = declarant.name
    for rule in version.house_rules:
        stated[rule.rule_id] = "in force"
    return stated


def _show_versions(answer: GetConventionResponse, zone: ZoneInfo) -> None:
    rows = (
        (
            item.version,
            name_of(VersionState, item.state),
            local(item.in_force_from.ToDatetime(UTC), zone) if item.HasField("in_force_from") else "",
            ", ".join(rule.rule_id for rule in item.house_rules),
            ", ".join(item.awaits),
        )
        for item in answer.versions
    )
    print_table("\nversions", ("version", "state", "from", "house rules", "awaits (art3.change)"), rows)
    print_record("\nterm", term_lines(answer, zone))


def _show_deed(answer: GetConventionResponse, zone: ZoneInfo) -> None:
    deed = answer.deed
    dates = (
        ("signed", local(answer.signed_at.ToDatetime(UTC), zone)),
        (
            "ends at the latest",
            local(answer.term_ends_at.ToDatetime(UTC), zone) if answer.HasField("term_ends_at") else "",
        ),
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
            name_of(Role, office.holder.role),
            name_of(Party, office.holder.party),
            f"{office.holder.person.given_name} {office.holder.person.usual_name}, {office.holder.person.service}",
            f"{office.holder.act_reference}, {name_of(AppointmentKind, office.kind).lower()} {_held(office, zone)}",
        )
        for office in answer.offices
    )
    print_table("\noffice holders", ("role", "party", "person", "act"), holders)
    declarants = ((item.name, name_of(Party, item.party), item.certificate_identity) for item in deed.declarants)
    print_table("\ndeclaring systems", ("system", "party", "certificate"), declarants)


def _held(office: Appointment, zone: ZoneInfo) -> str:
    since = local(getattr(office.holder, "from").ToDatetime(UTC), zone)  # a keyword of Python
    return f"from {since}" + (f" to {local(office.until.ToDatetime(UTC), zone)}" if office.HasField("until") else "")


def read_key(path: Path) -> Ed25519PrivateKey:
    """A party's private key; BadParameter where the file holds none."""
    try:
        return read_private_key(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
