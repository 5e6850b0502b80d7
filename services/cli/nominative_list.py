"""`planier list`: the Préfecture's nominative list, proposed, validated and acted upon."""

import hashlib
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import Party, Person
from planier.access.v1.list_events_pb2 import ListedPerson
from planier.access.v1.list_pb2 import (
    AdoptListKeysRequest,
    GetListRequest,
    GetListResponse,
    ListedPersonStatus,
    ListProposal,
    ListStanding,
    ProposalState,
    ProposeListChangeRequest,
    RefuseListedPersonRequest,
    RefuseListRequest,
    ResumeListedPersonRequest,
    SubmitListRequest,
    SuspendListedPersonRequest,
    ValidateListRequest,
    WithdrawListRequest,
)

from services.access import list_version
from services.access.deed import raw_public_key
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, app, perform
from services.cli.clearance import call
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.convention import read_key
from services.cli.output import console, print_json, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of
from services.kernel.errors import not_found
from services.kernel.keys import read_public_key

nominative_list = typer.Typer(no_args_is_help=True, help="The Préfecture's nominative list.")
app.add_typer(nominative_list, name="list")

FileArgument = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Persons, as YAML: a list of mappings.")
]
KeyOption = Annotated[list[Path] | None, typer.Option("--key", exists=True, help="A list key, Ed25519, PEM; repeated.")]


@nominative_list.command()
def show(
    motive: MotiveOption = "consultation de la liste nominative",
    purpose: PurposeOption = "ADMINISTRATION",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the version in force, who stands how in it, and what is proposed."""
    perform(_show(motive, purpose, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def submit(
    file: FileArgument,
    expires: Annotated[str, typer.Option(help="When the list ends, ISO 8601; a year from now at most.")],
    motive: MotiveOption = "transmission de la liste nominative",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Transmit a whole list; it has no effect until another validator signs it."""
    request = SubmitListRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        proposal_id=str(uuid4()),
        persons=read_persons(file),
    )
    request.expires_at.FromDatetime(instant(expires, Profile.load().zone, "--expires"))
    perform(_proposed("SubmitList", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def propose(
    file: Annotated[Path | None, typer.Option("--set", exists=True, help="Persons to add or change, as YAML.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="An entry to remove; repeated.")] = None,
    expires: Annotated[str, typer.Option(help="Another end, ISO 8601.")] = "",
    motive: MotiveOption = "modification de la liste nominative",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Propose additions, changes and removals to the version in force."""
    request = ProposeListChangeRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        proposal_id=str(uuid4()),
        changed=read_persons(file) if file else (),
        removed=remove or (),
    )
    if expires:
        request.expires_at.FromDatetime(instant(expires, Profile.load().zone, "--expires"))
    perform(_proposed("ProposeListChange", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def validate(
    proposal_id: str,
    letter: Annotated[
        Path | None, typer.Option(exists=True, help="The signed letter; its SHA-256 is recorded.")
    ] = None,
    key: KeyOption = None,
    motive: MotiveOption = "validation de la liste nominative",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Sign a proposal as a validator other than its proposer: it is in force at once."""
    letter_hash = hashlib.sha256(letter.read_bytes()).digest() if letter else b""
    signers = [read_key(path) for path in key or ()]
    perform(_validate(proposal_id, letter_hash, signers, motive, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def refuse(
    proposal_id: str,
    reason: Annotated[str, typer.Option(help="Why, in French; no personal data.")],
    motive: MotiveOption = "refus d'une modification de la liste",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Refuse a proposal, as a validator."""
    look = session.consultation("ADMINISTRATION", motive)
    request = RefuseListRequest(consultation=look, proposal_id=proposal_id, reason=reason)
    perform(_proposed("RefuseList", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def withdraw(
    proposal_id: str,
    motive: MotiveOption = "retrait d'une proposition de liste",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Withdraw one's own proposal."""
    request = WithdrawListRequest(consultation=session.consultation("ADMINISTRATION", motive), proposal_id=proposal_id)
    perform(_proposed("WithdrawList", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command("refuse-person")
def refuse_person(
    entry_id: str,
    reason: Annotated[str, typer.Option(help="Why, in French; the Préfecture reads it.")],
    motive: MotiveOption = "instruction de la liste nominative",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Refuse a listed person, as the granting authority."""
    look = session.consultation("ADMINISTRATION", motive)
    request = RefuseListedPersonRequest(consultation=look, entry_id=entry_id, reason=reason)
    perform(_marked("RefuseListedPerson", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def suspend(
    entry_id: str,
    reason: Annotated[str, typer.Option(help="Why, in French; both parties read it.")],
    motive: MotiveOption = "suspension d'une personne inscrite",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Suspend a listed person, alone and at once; the very next look is refused."""
    look = session.consultation("ADMINISTRATION", motive)
    request = SuspendListedPersonRequest(consultation=look, entry_id=entry_id, reason=reason)
    perform(_marked("SuspendListedPerson", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def resume(
    entry_id: str,
    motive: MotiveOption = "fin de suspension d'une personne inscrite",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Lift one's own party's suspension."""
    request = ResumeListedPersonRequest(consultation=session.consultation("ADMINISTRATION", motive), entry_id=entry_id)
    perform(_marked("ResumeListedPerson", request, person, as_json=as_json), as_json=as_json)


@nominative_list.command()
def keys(
    version: Annotated[int, typer.Option(help="1 for the first set, then one more each time.")],
    prefecture_key: Annotated[Path, typer.Option(exists=True, help="The Préfecture's key of the deed, Ed25519, PEM.")],
    threshold: Annotated[int, typer.Option(help="How many must sign a version; 0 gives up signing by keys.")] = 0,
    public: Annotated[list[Path] | None, typer.Option(exists=True, help="A list key, public, PEM; repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Adopt the Préfecture's own keys: its next versions are signed by so many of them."""
    public_keys = [raw_public_key(read_public_key(path)) for path in public or ()]
    content = list_version.keys_content(version, threshold, public_keys)
    signature = list_version.sign_keys(content, read_key(prefecture_key))
    perform(_adopt(AdoptListKeysRequest(keys=content, signature=signature), as_json=as_json), as_json=as_json)


def read_persons(file: Path) -> list[ListedPerson]:
    """Persons from YAML: entry_id (a fresh one where absent), given_name, usual_name, service, directorate, address."""
    found = yaml.safe_load(file.read_text())
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise typer.BadParameter("must be a YAML list of persons")
    return [_person(item) for item in found]


def _person(item: dict[str, Any]) -> ListedPerson:
    known = ("entry_id", "given_name", "usual_name", "service", "directorate", "professional_address")
    if set(item) - set(known):
        raise typer.BadParameter(f"a person has only {', '.join(known)}")
    person = Person(**{name: str(item.get(name, "")) for name in (*known[1:4], known[5])})
    return ListedPerson(
        entry_id=str(item.get("entry_id") or uuid4()), person=person, directorate=str(item.get("directorate", ""))
    )


async def _listed(profile: Profile, motive: str, purpose: str, person: str) -> GetListResponse:
    answer: GetListResponse = await call(
        profile, "GetList", GetListRequest(consultation=session.consultation(purpose, motive)), person
    )
    return answer


async def _validate(
    proposal_id: str, letter_hash: bytes, signers: list[Ed25519PrivateKey], motive: str, person: str, *, as_json: bool
) -> None:
    profile = Profile.load()
    found = await _listed(profile, motive, "ADMINISTRATION", person)
    proposal = next((one for one in found.proposals if one.proposal_id == proposal_id), None)
    if proposal is None:
        raise not_found("PROPOSAL_UNKNOWN", "no such proposal")
    request = ValidateListRequest(
        consultation=session.consultation("ADMINISTRATION", motive),
        proposal_id=proposal_id,
        list_hash=proposal.list_hash,
        letter_hash=letter_hash,
        signatures=[list_version.sign(proposal.list, key) for key in signers],
    )
    answer = await call(profile, "ValidateList", request, person)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(f"version {answer.version} in force; recorded as {answer.release.receipt.record_id}")


async def _adopt(request: AdoptListKeysRequest, *, as_json: bool) -> None:
    profile = Profile.load()
    async with channel(profile, "access") as opened:
        answer = await AccessServiceStub(opened).AdoptListKeys(request, timeout=DEADLINE)
    mark = Receipts(profile).keep(answer)
    if as_json:
        print_json(mark)
        return
    console.print(f"adopted; recorded as {answer.release.receipt.record_id}")


async def _show(motive: str, purpose: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    found = await _listed(profile, motive, purpose, person)
    if as_json:
        print_json(MessageToDict(found, preserving_proto_field_name=True))
        return
    parts = (
        ("expires", local(found.expires_at.ToDatetime(UTC), profile.zone) if found.version else ""),
        ("list, SHA-256", found.list_hash.hex()),
        ("signed by", f"{found.keys.threshold} of {len(found.keys.public_keys)} keys" if found.keys.threshold else ""),
        ("not relied on", found.fault),
    )
    print_record(f"list version {found.version}", parts)
    print_table("persons", ("entry", "person", "service", "standing"), map(_cells, found.persons), whole=("entry",))
    rows = ((one.proposal_id, name_of(ProposalState, one.state), one.reason) for one in found.proposals)
    print_table("proposals", ("proposal", "state", "reason"), rows, whole=("proposal",))


def _cells(status: ListedPersonStatus) -> tuple[str, ...]:
    listed_person = status.person
    words = [name_of(ListStanding, status.standing), *(name_of(Party, party) for party in status.suspended_by)]
    return (
        listed_person.entry_id,
        f"{listed_person.person.given_name} {listed_person.person.usual_name}",
        f"{listed_person.person.service}\n{listed_person.directorate}",
        "\n".join([" by ".join(words[:2]) if len(words) > 1 else words[0], *status.reasons]),
    )


async def _proposed(method: str, request: Any, person: str, *, as_json: bool) -> None:
    answer = await call(Profile.load(), method, request, person)
    proposal: ListProposal = answer.proposal
    if as_json:
        print_json(MessageToDict(proposal, preserving_proto_field_name=True))
        return
    parts = (
        ("state", name_of(ProposalState, proposal.state)),
        ("list, SHA-256", proposal.list_hash.hex()),
        ("reason", proposal.reason),
    )
    print_record(f"proposal {proposal.proposal_id}", parts)


async def _marked(method: str, request: Any, person: str, *, as_json: bool) -> None:
    answer = await call(Profile.load(), method, request, person)
    if as_json:
        print_json(MessageToDict(answer.person, preserving_proto_field_name=True))
        return
    print_table("person", ("entry", "person", "service", "standing"), [_cells(answer.person)], whole=("entry",))
