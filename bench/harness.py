"""Rows, rounds and medians: figures and peers are taken in turn, so that a slow hour of the machine hits both."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROUNDS = 3
OUT = Path("var/bench.json")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `ratio` is value / against_value, `goal` how it should stand (">= 0.4"; "" where only printed)."""

    name: str
    value: float
    unit: str
    against: str = ""
    against_value: float | None = None
    ratio: float | None = None
    goal: str = ""

    def __str__(self) -> str:
        text = f"{self.name:<58} {self.value:>12,.4g} {self.unit:<9}"
        if self.ratio is None:
            return text
        met = "" if not self.goal else ("  met" if self.met else "  NOT MET")
        return f"{text} {self.ratio:>7.2f} x {self.against} ({self.against_value:,.4g})  goal {self.goal}{met}"

    @property
    def met(self) -> bool:
        """Whether the ratio stands as the goal says; true where there is no goal."""
        if not self.goal or self.ratio is None:
            return True
        sign, bound = self.goal.split()[:2]
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


def medians(*measures: Callable[[], float], rounds: int = ROUNDS) -> tuple[float, ...]:
    """The median of each measure over rounds in which they take turns."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for place, measure in enumerate(measures):
            values[place].append(measure())
    return tuple(statistics.median(found) for found in values)


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile of the values, by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def row(name: str, value: float, unit: str, against: str, against_value: float, goal: str) -> Row:
    """A row with its ratio."""
    return Row(name, value, unit, against, against_value, value / against_value, goal)


def write(rows: Sequence[Row], path: Path = OUT) -> None:
    """Adds the rows to the file, in place of older ones of the same names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else []
    names = {row.name for row in rows}
    content = [item for item in kept if item["name"] not in names] + [asdict(row) for row in rows]
    path.write_text(json.dumps(content, indent=2) + "\n")
