"""`planier convention notify|amend|denounce|…`: what the parties sign after the deed, by the keys that sign it."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
import yaml
from google.protobuf.json_format import MessageToDict
from planier.access.v1.access_pb2 import GetCommitmentsRequest, RecordActRequest, RecordActResponse
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, Party, TerminationReason

from services.access import acts
from services.cli.app import JsonOption, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.convention import Keys, convention, read_key
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.cli.words import instant, value_of
from services.kernel.errors import precondition
from services.kernel.registry import Registry

CityKey = Annotated[Path | None, typer.Option(exists=True, help="The City's Ed25519 key, PEM, where it signs.")]
PrefectureKey = Annotated[Path | None, typer.Option(exists=True, help="The Préfecture's, where it signs.")]
PartyOption = Annotated[str, typer.Option(help="CITY or PREFECTURE: whose act it is.")]
When = Annotated[str, typer.Option(help="A date or a time, ISO 8601.")]


@convention.command()
def notify(
    at: When,
    act: Annotated[str, typer.Option(help="Reference of the notification.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Record the notification, from which the term runs, where the deed does not state it; both parties sign."""
    content = {"notified_at": _moment(at, "--at"), "act_reference": act}
    _record({"notification": content}, city_key, prefecture_key, as_json=as_json)


@convention.command()
def amend(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The whole terms, as YAML.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Record an amendment (avenant) that both parties sign; a wider one waits for both DPOs and a DPIA."""
    content = dict(yaml.safe_load(file.read_text()))
    content.setdefault("annex_hash", Registry.load(Profile.load().annex).hash)
    _record({"amendment": content}, city_key, prefecture_key, as_json=as_json)


@convention.command()
def denounce(
    party: PartyOption,
    received: When,
    letter: Annotated[str, typer.Option(help="Reference of the registered letter.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Give two months' notice; they run from the letter's arrival where both parties sign, else from now."""
    content = {
        "party": value_of(Party, party, "--party"),
        "received_at": _moment(received, "--received"),
        "letter_reference": letter,
    }
    _record({"denunciation": content}, city_key, prefecture_key, as_json=as_json)


@convention.command()
def terminate(
    party: PartyOption,
    reason: Annotated[str, typer.Option(help="MUTUAL (both sign) or BREACH (the party that terminates signs).")],
    act: Annotated[str, typer.Option(help="Reference of the act.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Terminate at once: use of what was transmitted stops, and is to be destroyed within 15 days."""
    content = {
        "party": value_of(Party, party, "--party"),
        "reason": value_of(TerminationReason, reason, "--reason"),
        "act_reference": act,
    }
    _record({"termination": content}, city_key, prefecture_key, as_json=as_json)


@convention.command()
def destroyed(
    certificate: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The signed certificate.")],
    at: When,
    city_key: CityKey = None,
    as_json: JsonOption = False,
) -> None:
    """Record the City's certificate that it destroyed what was transmitted."""
    content = {
        "destroyed_at": _moment(at, "--at"),
        "certificate_hash": _base64(acts.digest(certificate.read_bytes())),
    }
    _record({"destruction": content}, city_key, None, as_json=as_json)


@convention.command()
def appoint(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The appointment, as YAML.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Record who holds an office: an appointment, an interim, a delegation of signature; the party signs."""
    _record({"appointment": yaml.safe_load(file.read_text())}, city_key, prefecture_key, as_json=as_json)


@convention.command()
def discharge(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Role, party, identity and act, as YAML.")],
    city_key: CityKey = None,
    prefecture_key: PrefectureKey = None,
    as_json: JsonOption = False,
) -> None:
    """Record the end of an office, at once; the party signs."""
    _record({"discharge": yaml.safe_load(file.read_text())}, city_key, prefecture_key, as_json=as_json)


def _record(content: Mapping[str, Any], city_key: Path | None, prefecture_key: Path | None, *, as_json: bool) -> None:
    paths = {PARTY_CITY: city_key, PARTY_PREFECTURE: prefecture_key}
    keys = {party: read_key(path) for party, path in paths.items() if path is not None}
    if not keys:
        raise typer.BadParameter("an act is signed", param_hint="--city-key, --prefecture-key")
    perform(_send(content, keys, as_json=as_json), as_json=as_json)


async def _send(content: Mapping[str, Any], keys: Keys, *, as_json: bool) -> None:
    answer = await record_act(Profile.load(), content, keys)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(f"signed; recorded as {answer.release.receipt.record_id}")


async def record_act(profile: Profile, content: Mapping[str, Any], keys: Keys) -> RecordActResponse:
    """Builds an act upon the deed in force, signs it with the keys given, and records it."""
    async with channel(profile, "access") as opened:
        stub = AccessServiceStub(opened)
        commitments = await stub.GetCommitments(GetCommitmentsRequest(), timeout=DEADLINE)
        if not commitments.deed_hash:
            raise precondition("CONVENTION_NOT_SIGNED", "no convention is in force", "art2.documents")
        act = acts.build({"act_id": str(uuid4()), **content}, commitments.deed_hash)
        signatures = [acts.sign(act, party, key) for party, key in keys.items()]
        answer: RecordActResponse = await stub.RecordAct(
            RecordActRequest(act=act, signatures=signatures), timeout=DEADLINE
        )
    Receipts(profile).keep(answer)
    return answer


def _moment(text: str, option: str) -> datetime:
    return instant(text, Profile.load().zone, option).astimezone(UTC)


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
