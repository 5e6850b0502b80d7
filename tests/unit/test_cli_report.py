"""The auditors' report: everything that is counted is on the page, in French, escaped, and no person is."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pypdfium2
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL

from services.audit.statistics import ClearanceNote, Statistics
from services.cli.report_content import Facts, LateEngagement, Report, report_of, texts
from services.cli.report_pages import html, pdf
from tests.fixtures.audit import access_record

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2026, 6, 1, tzinfo=UTC)


def report() -> Report:
    statistics = Statistics(PARIS)
    for day in range(30):
        for number in range(30 if day != 12 else 120):
            record = access_record(number)
            record.occurred_at.FromDatetime(START + timedelta(days=day, hours=number % 24))
            if number % 9 == 0:
                record.kind, record.refusal_reason = RECORD_KIND_REFUSAL, "ACCESS_DENIED"
            record.actor.organisation = "Régie <œuvres> & cie" if number % 2 else "Police municipale"
            statistics.add(number, record)
    notes = [ClearanceNote(f"0190c1d2-0000-7000-8000-{n:012}", ("CITY", "Voirie"), START, "UNUSED") for n in range(40)]
    facts = Facts(
        start=START, end=START + timedelta(days=30), made_at=START + timedelta(days=31), zone=PARIS,
        convention_version="2026.1", term_ends=START + timedelta(days=1000), tree_size=1_234_567, root=bytes(32),
        record_id="0190c1d2-0000-7000-8000-000000000001", corrupt=((0, 4096, "RECORD_ALTERED"),),
        holes=(("analytics-1", 3),),
    )  # fmt: skip
    late = [LateEngagement("0190c1d2-0000-7000-8000-00000000000e", "Études & Cie", START, START + timedelta(days=10))]
    return report_of(statistics, notes, late, facts)


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def test_the_page_shows_every_text_and_fetches_nothing() -> None:
    page = html(report())
    reader = Text()
    reader.feed(page)
    shown = set(reader.parts)
    assert {text for text in texts(report()) if text} <= shown | {""}
    assert "Régie <œuvres> & cie" in shown
    assert "<œuvres>" not in page
    assert not re.search(r"(src|href)=|url\(|<script", page)


def test_no_person_is_in_the_report() -> None:
    everything = " ".join(texts(report()))
    assert "agent-7" not in everything
    assert "c-7" not in everything
    assert "Volumes inhabituels" in everything


def test_what_is_altered_or_missing_is_said() -> None:
    [integrity] = [section for section in report().sections if section.title == "Intégrité"]
    assert [row[1] for row in integrity.rows] == ["altéré : RECORD_ALTERED", "3 numéros sans enregistrement"]


def test_the_pdf_holds_the_same_and_is_the_same_each_time() -> None:
    assert pdf(report()) == pdf(report())
    assert pdf(report()).startswith(b"%PDF-")


def test_every_text_of_the_report_can_be_read_in_the_pdf() -> None:
    document = pypdfium2.PdfDocument(pdf(report()))
    shown = "".join(page.get_textpage().get_text_range() for page in document)
    document.close()
    bare = re.sub(r"\s", "", shown)
    assert [text for text in texts(report()) if re.sub(r"\s", "", text) not in bare] == []
