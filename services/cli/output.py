"""How the command line answers: for a person with rich, for a program with one JSON document on standard output."""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.kernel.errors import Problem

console = Console()
errors = Console(stderr=True)


def print_json(content: Any) -> None:
    """One JSON document, keys as they come."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], whole: Collection[str] = ()
) -> None:
    """A table for a person; what is `whole` is never cut, because people copy it."""
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)


def print_record(title: str, parts: Iterable[tuple[str, object]]) -> None:
    """One thing for a person, a line a part; parts that hold nothing are left out."""
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, content in parts:
        if content not in ("", None):
            table.add_row(name, escape(str(content)))
    console.print(table)


def print_mark(mark: dict[str, Any]) -> None:
    """What was withheld from an answer and why, then its receipt."""
    for part in mark.get("withheld", []):
        console.print(f"[yellow]withheld[/yellow] {part['instrument_id']}: {escape(part.get('reason_user', ''))}")
    print_receipt(mark)


def print_receipt(mark: dict[str, Any]) -> None:
    """Where the log holds the access."""
    console.print(f"[dim]recorded as {mark['receipt']['record_id']}, log index {mark['receipt'].get('index', 0)}[/dim]")


def fail(problem: Problem, *, as_json: bool, status: int = 1) -> NoReturn:
    """Says what was refused, under which clause and at which field, and exits."""
    if as_json:
        print_json({"error": describe(problem)})
    else:
        clause = f" [dim]({problem.clause})[/dim]" if problem.clause else ""
        errors.print(f"[red]{problem.reason}[/red]{clause}: {escape(problem.message)}")
        for violation in problem.violations:
            errors.print(escape(f"  {violation.field}: {violation.description}"))
    raise SystemExit(status)


def describe(problem: Problem) -> dict[str, Any]:
    """A problem as JSON."""
    return {
        "code": problem.code.name,
        "reason": problem.reason,
        "message": problem.message,
        "clause": problem.clause,
        "violations": [
            {"field": violation.field, "rule": violation.rule, "description": violation.description}
            for violation in problem.violations
        ],
    }
