"""Mutation testing of the access policy: how many small changes of its Cedar do the published cases notice?

Usage: mutate_policy.py [LEAST]: prints each mutant that no case tells from the policy; 1 below LEAST per cent (90).
"""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from cedarpy import PolicySet
from cedarpy.pst import (
    ActionEq,
    ActionIn,
    BinaryOp,
    BinaryOpName,
    ScopeAny,
    ScopeIs,
    Set,
    StringLit,
    Template,
    UnaryOp,
    Unless,
    When,
)

from services.access.convention import State
from services.access.decisions import Decider
from services.access.policy import Policy
from tests.fixtures import access_states

LEAST = 90.0
TOLD = 600
_OTHER: dict[str, tuple[BinaryOpName, ...]] = {
    "eq": ("not_eq",),
    "not_eq": ("eq",),
    "less": ("less_eq", "greater_eq"),
    "less_eq": ("less", "greater"),
    "and": ("or",),
    "or": ("and",),
    "contains_any": ("contains_all",),
}

Outcomes = list[list[tuple[bool, list[str], list[str]]]]


def changed(node: Any) -> Iterator[Any]:
    """Every node that differs from this one by one small change, somewhere in it."""
    yield from _here(node)
    if isinstance(node, tuple):
        for place, item in enumerate(node):
            for other in changed(item):
                yield (*node[:place], other, *node[place + 1 :])
    elif is_dataclass(node) and not isinstance(node, type):
        for member in fields(node):
            if member.name not in ("annotations", "id"):
                for other in changed(getattr(node, member.name)):
                    yield replace(node, **{member.name: other})


def _here(node: Any) -> Iterator[Any]:
    match node:
        case BinaryOp(op=op):
            yield from (replace(node, op=other) for other in _OTHER.get(op, ()))
            if op in ("and", "or"):  # one side left out
                yield from (node.left, node.right)
        case UnaryOp(op="not"):
            yield node.arg
        case StringLit(value=value):
            yield StringLit(f"{value}~")
        case When() | Unless():
            yield replace(node, expr=UnaryOp("not", node.expr))
        case ScopeIs() | ActionEq():
            yield ScopeAny()
        case Set() | ActionIn() | Template():
            yield from _shorter(node)


def _shorter(node: Any) -> Iterator[Any]:
    """The node without one of its elements, actions or conditions."""
    name = "elements" if isinstance(node, Set) else "entities" if isinstance(node, ActionIn) else "clauses"
    parts = getattr(node, name)
    for place in range(len(parts)):
        yield replace(node, **{name: (*parts[:place], *parts[place + 1 :])})


class Mutant(Policy):
    """The policy with one of its policies in place of another; ids and reasons stay."""

    def __init__(self, sound: Policy, policies: PolicySet) -> None:
        """Takes what the sound policy knows of itself."""
        self.__dict__.update(sound.__dict__)
        self._policies = policies


def outcomes(policy: Policy, states: dict[str, State], against: Outcomes | None = None) -> Outcomes | None:
    """What each published case comes to; None at the first that differs from `against`."""
    deciders: dict[str, Decider] = {}
    found: Outcomes = []
    for place, (_, case) in enumerate(access_states.cases()):
        name = case.get("state", "signed")
        decider = deciders.setdefault(name, Decider(policy, states[name]))
        verdict = decider.decide(access_states.item_of(case))
        outcome = [(d.permit, list(d.clauses), sorted(d.reason_user.split(". "))) for d in verdict.instruments]
        if against is not None and outcome != against[place]:
            return None
        found.append(outcome)
    return found


def main() -> int:
    """Counts and prints."""
    least = float(sys.argv[1]) if len(sys.argv) > 1 else LEAST
    sound = Policy.load()
    tree = PolicySet.from_str(Policy.load_with_text()[0]).to_pst()
    states = {name: make() for name, make in access_states.STATES.items()}
    expected = outcomes(sound, states)
    total, survivors = 0, []
    for name, policy in tree.static_policies.items():
        for other in dict.fromkeys(changed(policy)):
            total += 1
            policies = PolicySet.from_pst(replace(tree, static_policies={**tree.static_policies, name: other}))
            if outcomes(Mutant(sound, policies), states, expected) is not None:
                survivors.append((policy, other))
    for policy, other in survivors:
        print(f"not noticed: {policy.annotations['id']} ({policy.annotations.get('reason', '')})")
        print(f"  {_told(policy, other)[:TOLD]}")
    score = 100 * (total - len(survivors)) / total
    print(f"{total} mutants, {total - len(survivors)} noticed by a published case: {score:.1f} %")
    return 0 if score >= least else 1


def _told(sound: Any, other: Any) -> str:
    """The smallest node that differs."""
    if type(sound) is type(other) and is_dataclass(sound):
        pairs = [(getattr(sound, m.name), getattr(other, m.name)) for m in fields(sound)]
        differing = [(a, b) for a, b in pairs if a != b]
        if len(differing) == 1:
            return _told(*differing[0])
    if isinstance(sound, tuple) and isinstance(other, tuple) and len(sound) == len(other):
        differing = [(a, b) for a, b in zip(sound, other, strict=True) if a != b]
        if len(differing) == 1:
            return _told(*differing[0])
    return f"{sound} -> {other}"


if __name__ == "__main__":
    sys.exit(main())
