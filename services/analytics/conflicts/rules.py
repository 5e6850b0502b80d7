"""Which facts do not go together: rules as data, versioned, read whole or refused; pure.

`rules.json` beside this file is the set in use. A pair rule names two sides; a need names what its left side must have
near it during its whole time (an event on the roadway and its by-law). Distances are metres on the territory's
projection, both sides included; times are half-open.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, Self

from planier.common.v1.fact_pb2 import MeasureKind

_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,39}/(\*|[A-Z][A-Z0-9_]{0,39})")
# Sides are told apart by one bit each in a 64-bit integer.
MOST_RULES: Final = 63
MOST_METRES: Final = 5_000
MINUTE_US: Final = 60_000_000


class RulesError(ValueError):
    """The file does not hold rules; the message says where."""


@dataclass(frozen=True, slots=True)
class Side:
    """The facts that one side of a rule means: `source/KIND` or `source/*`, and attributes with one of the choices."""

    kinds: frozenset[str]
    where: Mapping[str, frozenset[str]]

    def takes(self, source: str, kind: str, attributes: Mapping[str, str]) -> bool:
        """Whether a fact is meant; one that does not state a named attribute is not."""
        if f"{source}/{kind}" not in self.kinds and f"{source}/*" not in self.kinds:
            return False
        return all(attributes.get(name) in choices for name, choices in self.where.items())

    @property
    def sources(self) -> frozenset[str]:
        """The sources that the side names."""
        return frozenset(kind.split("/")[0] for kind in self.kinds)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `margin_us` widens the left side's periods at both ends. `needs`: the right side is what must be there.

    `answers` are the kinds of measures that resolve a conflict of this rule.
    """

    rule_id: str
    version: int
    label: str
    left: Side
    right: Side
    needs: bool
    metres: float
    margin_us: int
    answers: tuple[MeasureKind.ValueType, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole set. `digest` is the SHA-256, hex, of the file: what was detected under another is detected again."""

    version: str
    digest: str
    rules: tuple[Rule, ...]
    # Attributes of facts that make a conflict heavier.
    severity_attributes: frozenset[str]
    agenda: frozenset[str]
    weather_warnings: frozenset[str]

    @classmethod
    def load(cls) -> Self:
        """The set that this distribution carries."""
        return cls.parse(resources.files(__package__).joinpath("rules.json").read_bytes())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The set in the bytes of a file; RulesError where they hold none."""
        try:
            document = json.loads(data)
            rules = tuple(_rule(item) for item in document["rules"])
            agenda = document.get("agenda", {})
            kinds = _kinds("agenda", agenda.get("kinds", []))
            weather = _kinds("agenda", agenda.get("weather_warnings", []))
            version = str(document["version"])
            severity = frozenset(document.get("severity_attributes", []))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RulesError(f"not a set of rules ({type(error).__name__}: {error})") from None
        if not 0 < len(rules) <= MOST_RULES or len({rule.rule_id for rule in rules}) != len(rules):
            raise RulesError(f"from 1 to {MOST_RULES} rules are expected, each under its own id")
        return cls(version, hashlib.sha256(data).hexdigest(), rules, severity, kinds, weather)

    @property
    def sources(self) -> frozenset[str]:
        """The sources that some rule concerns."""
        return self.sources_of(())

    def sources_of(self, asked: Collection[str]) -> frozenset[str]:
        """The sources that the rules asked for concern; all rules where none is."""
        rules = (rule for rule in self.rules if not asked or rule.rule_id in asked)
        return frozenset().union(*(rule.left.sources | rule.right.sources for rule in rules))

    def reach_of(self, sides: int) -> tuple[float, int]:
        """Of the rules with these bits, the greatest distance (metres) and the greatest margin (microseconds)."""
        concerned = [rule for bit, rule in enumerate(self.rules) if sides >> bit & 1]
        return max((r.metres for r in concerned), default=0.0), max((r.margin_us for r in concerned), default=0)


def matches(kinds: frozenset[str], source: str, kind: str) -> bool:
    """Whether a kind is among `source/KIND` and `source/*`."""
    return f"{source}/{kind}" in kinds or f"{source}/*" in kinds


def _rule(item: Mapping[str, Any]) -> Rule:
    rule_id = str(item["id"])
    if not _ID.fullmatch(rule_id):
        raise RulesError("rules: an id is lower-case words with hyphens")
    if ("right" in item) == ("needs" in item):
        raise RulesError(f"{rule_id}: either `right` or `needs` is expected")
    needs = "needs" in item
    metres, margin = item["buffer_metres"], item.get("margin_minutes", 0)
    if not 0 <= metres <= MOST_METRES or not 0 <= margin <= 24 * 60 or (needs and margin):
        raise RulesError(f"{rule_id}: a buffer to {MOST_METRES} m and a margin to a day are expected; a need has none")
    if not isinstance(item["version"], int) or item["version"] < 1:
        raise RulesError(f"{rule_id}: versions count from 1")
    return Rule(
        rule_id=rule_id,
        version=item["version"],
        label=str(item["label"]),
        left=_side(rule_id, item["left"]),
        right=_side(rule_id, item["needs"] if needs else item["right"]),
        needs=needs,
        metres=float(metres),
        margin_us=margin * MINUTE_US,
        answers=_answers(rule_id, item["answers"]),
    )


def _side(rule_id: str, item: Mapping[str, Any]) -> Side:
    unknown = set(item) - {"kinds", "where"}
    if unknown:
        raise RulesError(f"{rule_id}: unknown members {', '.join(sorted(unknown))}")
    where = {name: frozenset(choices) for name, choices in item.get("where", {}).items()}
    kinds = _kinds(rule_id, item["kinds"])
    if not kinds:
        raise RulesError(f"{rule_id}: a side names at least one kind")
    return Side(kinds, MappingProxyType(where))


def _kinds(where: str, items: Sequence[str]) -> frozenset[str]:
    if not all(_KIND.fullmatch(kind) for kind in items):
        raise RulesError(f"{where}: kinds are written source/KIND or source/*")
    return frozenset(items)


def _answers(rule_id: str, names: Sequence[str]) -> tuple[MeasureKind.ValueType, ...]:
    try:
        answers = tuple(MeasureKind.Value(f"MEASURE_KIND_{name}") for name in names)
    except ValueError:
        raise RulesError(f"{rule_id}: an answer is a kind of measure") from None
    if not answers:
        raise RulesError(f"{rule_id}: some measure must answer it")
    return answers
