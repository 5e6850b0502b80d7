"""`planier demo`: demonstration data from a seed."""

from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from planier.common.v1.fact_pb2 import Fact

from services.cli import words
from services.cli.app import JsonOption, app
from services.cli.facts_file import write_facts
from services.cli.output import console, print_json
from services.demo.month import month
from services.demo.past import past_facts

PREFECTURE_SOURCES = frozenset({"demonstrations", "scheduled-operations", "official-visits"})


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("var/demo"),
    seed: Annotated[int, typer.Option()] = 1,
    day: Annotated[str, typer.Option(help="ISO date; today by default.")] = "",
    past: Annotated[int, typer.Option(min=0, help="How many past facts since 1998, beside the month.")] = 0,
    binary: Annotated[bool, typer.Option(help="Delimited protobuf instead of JSON Lines.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a month of Marseille around a day, one file per declaring system, and any number of past facts."""
    counts = write_demo(out, seed, words.day(day, "--day") if day else today(), past, binary=binary)
    if as_json:
        print_json(counts)
        return
    for name, count in counts.items():
        console.print(f"{name}: {count} facts")


def today() -> date:
    """Today in Marseille."""
    return datetime.now(ZoneInfo("Europe/Paris")).date()


def write_demo(out: Path, seed: int, day: date, past: int, *, binary: bool) -> dict[str, int]:
    """Writes the files and returns how many facts each holds."""
    out.mkdir(parents=True, exist_ok=True)
    suffix = "facts" if binary else "jsonl"
    facts = list(month(seed, day, ZoneInfo("Europe/Paris")))
    files: dict[str, Iterable[Fact]] = {
        f"prefecture.{suffix}": (fact for fact in facts if fact.source in PREFECTURE_SOURCES),
        f"city.{suffix}": (fact for fact in facts if fact.source not in PREFECTURE_SOURCES),
    }
    if past:
        files[f"past.{suffix}"] = past_facts(seed, day, past)
    return {str(out / name): write_facts(out / name, content) for name, content in files.items()}
