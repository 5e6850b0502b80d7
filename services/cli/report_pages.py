"""The report as HTML (jinja2, everything escaped) and as PDF (reportlab, A4)."""

import io
from html import escape
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from services.cli.report_content import Report, Section

# Columns whose cells are numbers.
NUMBERS = frozenset({"Accès", "Refus", "Nombre", "Entre 22 h et 6 h", "Habituel (médiane)", "Index au journal"})
_TEMPLATE = "report.html.j2"
_NUMBER_WIDTH = 26 * mm
_MARGIN = 18 * mm
# An id stays on one line.
_WEIGHTS = {"Habilitation": 1.8, "Prestation": 1.8}
# What a heading stays with: its sentences and the table's first rows.
_TOGETHER = 6


def html(report: Report) -> str:
    """One self-contained page; no script, nothing fetched."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("services.cli").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(report=report, numbers=NUMBERS)


def pdf(report: Report) -> bytes:
    """The same on A4 pages, numbered; the same report gives the same bytes."""
    file = io.BytesIO()
    document = SimpleDocTemplate(
        file, pagesize=A4, leftMargin=_MARGIN, rightMargin=_MARGIN, topMargin=_MARGIN, bottomMargin=_MARGIN,
        title=report.title, subject=report.subtitle, author="Planier", lang="fr", invariant=1,
    )  # fmt: skip
    styles = _styles()
    story: list[Any] = [
        Paragraph(escape(report.title), styles["title"]),
        Paragraph(escape(report.subtitle), styles["subtitle"]),
        Spacer(1, 4 * mm),
    ]
    for section in report.sections:
        story += _section(section, styles, document.width)

    def footer(canvas: Any, page: Any) -> None:
        _footer(canvas, page, report.footer)

    document.build(story, onFirstPage=footer, onLaterPages=footer)
    return file.getvalue()


def _section(section: Section, styles: dict[str, ParagraphStyle], width: float) -> list[Any]:
    head: list[Any] = [Paragraph(escape(section.title), styles["heading"])]
    head += [Paragraph(escape(sentence), styles["text"]) for sentence in section.sentences]
    if not section.rows:
        return [KeepTogether(head)]
    table = _table(section, styles, width)
    return [KeepTogether([*head, table])] if len(section.rows) <= _TOGETHER else [*head, table]


def _table(section: Section, styles: dict[str, ParagraphStyle], width: float) -> Table:
    def cell(text: str, column: str, *, is_head: bool = False) -> Paragraph:
        style = "number" if column in NUMBERS else "cell"
        content = f"<b>{escape(text)}</b>" if is_head else escape(text)
        return Paragraph(content, styles[style])

    rows = [[cell(column, column, is_head=True) for column in section.columns]]
    rows += [[cell(text, column) for text, column in zip(row, section.columns, strict=True)] for row in section.rows]
    weights = [0.0 if column in NUMBERS else _WEIGHTS.get(column, 1.0) for column in section.columns]
    unit = (width - weights.count(0.0) * _NUMBER_WIDTH) / (sum(weights) or 1)
    widths = [weight * unit or _NUMBER_WIDTH for weight in weights]
    # The heading row comes back on each page.
    table = Table(rows, colWidths=widths, repeatRows=1, hAlign="LEFT")
    line = colors.Color(0.82, 0.82, 0.82)
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.Color(0.35, 0.35, 0.35)),
                ("LINEBELOW", (0, 1), (-1, -1), 0.4, line),
                ("LEFTPADDING", (0, 0), (-1, -1), 2),
                ("RIGHTPADDING", (0, 0), (-1, -1), 4),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    return table


def _styles() -> dict[str, ParagraphStyle]:
    base = getSampleStyleSheet()["Normal"]
    cell = ParagraphStyle("cell", base, fontName="Helvetica", fontSize=8.5, leading=11, splitLongWords=True)
    return {
        "title": ParagraphStyle("title", base, fontName="Helvetica-Bold", fontSize=17, leading=21),
        "subtitle": ParagraphStyle("subtitle", base, fontSize=10, leading=13, textColor=colors.Color(0.3, 0.3, 0.3)),
        "heading": ParagraphStyle(
            "heading", base, fontName="Helvetica-Bold", fontSize=11.5, leading=14, spaceBefore=10, spaceAfter=3
        ),
        "text": ParagraphStyle("text", base, fontSize=9, leading=12, spaceAfter=2),
        "cell": cell,
        "number": ParagraphStyle("number", cell, alignment=TA_RIGHT),
    }


def _footer(canvas: Any, document: Any, words: str) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 8)
    canvas.setFillGray(0.35)
    canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, f"page {document.page}")
    canvas.drawString(_MARGIN, 10 * mm, words)
    canvas.restoreState()
