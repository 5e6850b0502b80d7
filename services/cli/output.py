"""How the command line answers: for a person with rich, for a program with one JSON document on standard output."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from services.kernel.errors import Problem

console = Console()
errors = Console(stderr=True)


def print_json(content: Any) -> None:
    """One JSON document, keys as they come."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for a person."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def fail(problem: Problem, *, as_json: bool) -> NoReturn:
    """Says what was refused, under which clause and at which field, and exits with 1."""
    if as_json:
        print_json({"error": describe(problem)})
    else:
        clause = f" [dim]({problem.clause})[/dim]" if problem.clause else ""
        errors.print(f"[red]{problem.reason}[/red]{clause}: {problem.message}")
        for violation in problem.violations:
            errors.print(f"  {violation.field}: {violation.description}")
    raise SystemExit(1)


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
