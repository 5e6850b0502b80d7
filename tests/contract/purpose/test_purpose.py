"""Who may do what for which purpose: the convention as cases that lawyers can read; each must come out as written."""

import re
from functools import cache
from importlib import resources
from typing import Any

import pytest
from planier.access.v1.access_pb2 import CheckVerdict

from services.access.decisions import Decider
from services.access.policy import Policy
from tests.fixtures import access_states

CASES = [pytest.param(case, id=name) for name, case in access_states.cases()]
# What a case says beside the outcome of each instrument.
SAYS = {"name", "state", "who", "operation", "resource", "purpose", "sources", "multi_factor", "at", "box"}


@cache
def state(name: str) -> Any:
    return access_states.STATES[name]()


@cache
def decider(policy: Policy, name: str) -> Decider:
    return Decider(policy, state(name))


POLICY = Policy.load()


def decided(policy: Policy, case: dict[str, Any]) -> CheckVerdict:
    return decider(policy, case.get("state", "signed")).decide(access_states.item_of(case))


@pytest.mark.parametrize("case", CASES)
def test_the_case_is_decided_as_written(case: dict[str, Any]) -> None:
    verdict = decided(POLICY, case)
    expected = {name: outcome for name, outcome in case.items() if name not in SAYS}
    actual: dict[str, dict[str, list[str]]] = {}
    for decision in verdict.instruments:
        entry = actual.setdefault(decision.instrument.instrument_id, {})
        if decision.permit:
            entry["sources"] = list(decision.sources)
        else:
            entry["denied"] = list(decision.clauses)
            assert decision.reason_user
    assert actual == expected
    assert verdict.permit == any("sources" in outcome for outcome in expected.values())


POLICY_TEXT = resources.files("services.access.policy").joinpath("convention.cedar").read_text()
SCHEMA = resources.files("services.access.policy").joinpath("schema.cedarschema").read_bytes()
# One policy a part: its annotations, effect and conditions, with the comment of the next one.
HEAD, *POLICIES = re.split(r"(?m)^(?=@id)", POLICY_TEXT)


@pytest.mark.parametrize("dropped", range(1, len(POLICIES)), ids=lambda n: f"{n} {POLICIES[n].splitlines()[0]}")
def test_without_any_one_forbid_some_case_comes_out_otherwise(dropped: int) -> None:
    weaker = Policy((HEAD + "".join(part for n, part in enumerate(POLICIES) if n != dropped)).encode(), SCHEMA)
    assert any(outcome(POLICY, param.values[0]) != outcome(weaker, param.values[0]) for param in CASES)


def outcome(policy: Policy, case: Any) -> list[tuple[bool, list[str], str]]:
    return [(d.permit, list(d.clauses), d.reason_user) for d in decided(policy, case).instruments]
