"""Rules as data: read whole or refused, and in the words of annex 1."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from services.analytics.conflicts.rules import Rules, RulesError
from services.kernel.registry import Choice, Registry

TEXT = resources.files("services.analytics.conflicts").joinpath("rules.json").read_bytes()
REGISTRY = Registry.load(Path("deploy/annex/annex-1.json"))
# Announced by no source of annex 1 yet: shown as soon as one does.
AWAITED = {"weather-warnings"}


def changed(**changes: Any) -> bytes:
    document = json.loads(TEXT)
    document["rules"][0] |= changes
    return json.dumps(document).encode()


def test_the_rules_name_what_annex_1_knows() -> None:
    rules = Rules.load()
    named = {kind for rule in rules.rules for side in (rule.left, rule.right) for kind in side.kinds}
    for name in named | rules.agenda:
        source, kind = name.split("/")
        known = REGISTRY.source(source)
        assert known is not None
        assert kind == "*" or kind in known.kinds, name
    assert {name.split("/")[0] for name in rules.weather_warnings} == AWAITED
    attributes = {
        (attribute.name, code)
        for source in REGISTRY.sources.values()
        for kind in source.kinds.values()
        for attribute in kind.attributes.values()
        if isinstance(attribute, Choice)
        for code in attribute.choices
    }
    asked = {
        (name, choice)
        for rule in rules.rules
        for side in (rule.left, rule.right)
        for name, choices in side.where.items()
        for choice in choices
    }
    assert asked <= attributes
    assert rules.severity_attributes <= {name for name, _ in attributes}


def test_a_side_takes_facts_by_kind_and_by_what_they_say_of_themselves() -> None:
    rule = next(rule for rule in Rules.load().rules if rule.rule_id == "event-bylaw")
    assert rule.left.takes("sports-events", "RACE", {"roadway": "FULL"})
    assert not rule.left.takes("sports-events", "RACE", {"roadway": "SIDEWALK"})
    assert not rule.left.takes("sports-events", "RACE", {})
    assert not rule.left.takes("sports-events", "MATCH", {"roadway": "FULL"})


@pytest.mark.parametrize(
    "broken",
    [
        b"{}",
        b"\xff",
        changed(id="Upper Case"),
        changed(version=0),
        changed(right=None, needs=None),
        changed(needs={"kinds": ["works/*"]}),
        changed(buffer_metres=-1),
        changed(buffer_metres=50_000),
        changed(left={"kinds": []}),
        changed(left={"kinds": ["works"]}),
        changed(left={"kinds": ["works/*"], "when": {}}),
        changed(answers=["PRAYER"]),
        changed(answers=[]),
        changed(id="route-market"),
    ],
)
def test_what_is_no_set_of_rules_is_refused_whole(broken: bytes) -> None:
    with pytest.raises(RulesError):
        Rules.parse(broken)
