"""`planier notice`: what the data protection officers are told, and what they answer (art3.change)."""

from datetime import UTC
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from planier.access.v1.access_pb2 import (
    AcknowledgeNoticeRequest,
    ListNoticesRequest,
    Notice,
    RecordDpiaRequest,
)
from planier.access.v1.events_pb2 import NoticeKind, Party

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.clearance import call
from services.cli.output import console, print_json, print_table
from services.cli.profile import Profile
from services.cli.words import local, name_of

notice = typer.Typer(no_args_is_help=True, help="Notices to the data protection officers (avis aux DPD).")
app.add_typer(notice, name="notice")


@notice.command("list")
def list_notices(motive: MotiveOption = "avis reçus", person: AsOption = "", as_json: JsonOption = False) -> None:
    """List the notices to your party's officer, newest first."""
    perform(_list(motive, person, as_json=as_json), as_json=as_json)


@notice.command()
def acknowledge(
    notice_id: str, motive: MotiveOption = "prise de connaissance", person: AsOption = "", as_json: JsonOption = False
) -> None:
    """Say that you know: an amendment that widens the data waits for both officers."""
    consultation = session.consultation("ADMINISTRATION", motive)
    asked = AcknowledgeNoticeRequest(consultation=consultation, notice_id=notice_id)
    perform(_ask("AcknowledgeNotice", asked, person, as_json=as_json), as_json=as_json)


@notice.command()
def dpia(
    amendment_id: str,
    reference: Annotated[str, typer.Option(help="Reference of the impact study (AIPD) that was started.")],
    motive: MotiveOption = "analyse d'impact",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record the impact study of an amendment that widens the data."""
    consultation = session.consultation("ADMINISTRATION", motive)
    asked = RecordDpiaRequest(consultation=consultation, amendment_id=amendment_id, reference=reference)
    perform(_ask("RecordDpia", asked, person, as_json=as_json), as_json=as_json)


async def _list(motive: str, person: str, *, as_json: bool) -> None:
    profile = Profile.load()
    asked = ListNoticesRequest(consultation=session.consultation("OVERSIGHT", motive))
    found = list((await call(profile, "ListNotices", asked, person)).notices)
    if as_json:
        print_json([MessageToDict(item, preserving_proto_field_name=True) for item in found])
        return
    rows = (_row(profile, item) for item in found)
    print_table(f"{len(found)} notices", ("notice", "about", "issued", "acknowledged"), rows, whole=("notice",))


def _row(profile: Profile, item: Notice) -> tuple[str, str, str, str]:
    known = local(item.acknowledged_at.ToDatetime(UTC), profile.zone) if item.HasField("acknowledged_at") else ""
    about = f"{name_of(NoticeKind, item.kind)}, {name_of(Party, item.party)}"
    return item.notice_id, about, local(item.issued_at.ToDatetime(UTC), profile.zone), known


async def _ask(method: str, asked: Any, person: str, *, as_json: bool) -> None:
    answer = await call(Profile.load(), method, asked, person)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    console.print(f"recorded as {answer.release.receipt.record_id}")
