"""`planier clearance decision`: a numbered decision as it is signed and received, on screen, as HTML and as PDF."""

import hashlib
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from planier.access.v1.decision_pb2 import DecisionDocument, GetDecisionRequest, ListOwnDecisionsRequest
from planier.access.v1.events_pb2 import NumberedDecision

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, PurposeOption, perform
from services.cli.clearance import call, clearance
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.cli.report_content import Report, Section
from services.cli.words import number_of
from services.kernel.errors import not_found, precondition

_NUMBER = re.compile(r"HAB-(\d{4})-(\d{4,})\Z")


@clearance.command()
def decision(
    number: Annotated[str, typer.Argument(help="Its number, such as HAB-2026-0007.")],
    own: Annotated[bool, typer.Option("--own", help="Of your own clearance, or of one that you requested.")] = False,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page here.")] = None,
    pdf_file: Annotated[Path | None, typer.Option("--pdf", help="Write a PDF here.")] = None,
    purpose: PurposeOption = "ADMINISTRATION",
    motive: MotiveOption = "lecture d'une décision d'habilitation",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a numbered decision, in French; auditors and officers read it with --purpose OVERSIGHT."""
    read = _NUMBER.match(number)
    if read is None:
        raise typer.BadParameter("must be a number such as HAB-2026-0007", param_hint="NUMBER")
    wanted = NumberedDecision(year=int(read[1]), number=int(read[2]))
    look = _own(wanted, motive, person) if own else _of_office(wanted, purpose, motive, person)
    perform(_show(look, html_file, pdf_file, as_json=as_json), as_json=as_json)


async def _of_office(wanted: NumberedDecision, purpose: str, motive: str, person: str) -> DecisionDocument:
    request = GetDecisionRequest(consultation=session.consultation(purpose, motive), number=wanted)
    found: DecisionDocument = (await call(Profile.load(), "GetDecision", request, person)).document
    return found


async def _own(wanted: NumberedDecision, motive: str, person: str) -> DecisionDocument:
    request = ListOwnDecisionsRequest(consultation=session.consultation("OVERSIGHT", motive))
    found = (await call(Profile.load(), "ListOwnDecisions", request, person)).documents
    one: DecisionDocument | None = next((item for item in found if item.number == wanted), None)
    if one is None:
        raise not_found("DECISION_UNKNOWN", "no such decision of yours")
    return one


async def _show(
    look: Coroutine[Any, Any, DecisionDocument], html_file: Path | None, pdf_file: Path | None, *, as_json: bool
) -> None:
    document = await look
    if hashlib.sha256(document.text.encode()).digest() != document.text_hash:
        raise precondition("DECISION_ALTERED", "the text is not the one of its hash")
    _write(document, html_file, pdf_file)
    if as_json:
        shown = MessageToDict(document, preserving_proto_field_name=True)
        print_json({**shown, "text_hash": document.text_hash.hex()})
        return
    # Lines stay whole: what is shown is what is hashed.
    console.print(document.text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"[dim]SHA-256 {document.text_hash.hex()}[/dim]")


def _write(document: DecisionDocument, html_file: Path | None, pdf_file: Path | None) -> None:
    from services.cli.report_pages import html, pdf

    page = page_of(document)
    if html_file is not None:
        html_file.write_text(html(page), encoding="utf-8")
    if pdf_file is not None:
        pdf_file.write_bytes(pdf(page))


def page_of(document: DecisionDocument) -> Report:
    """The decision as the pages of reports show it."""
    articles = (
        Section(f"Article {'1er' if place == 1 else place} : {one.title}", tuple(one.sentences))
        for place, one in enumerate(document.articles, 1)
    )
    sections = (Section("Visas", tuple(document.visas)), *articles, Section("Signature", tuple(_lines(document))))
    subtitle = f"SHA-256 du texte : {document.text_hash.hex()}"
    return Report(
        document.title, subtitle, sections, footer=f"{number_of(document.number)}, usage interne (art8.licence)"
    )


def _lines(document: DecisionDocument) -> list[str]:
    return document.signature.splitlines()
