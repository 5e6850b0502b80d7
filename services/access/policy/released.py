"""The policy sets of past releases, kept as they were: what a decision of their time, or theirs today, would say.

A state says more today than their schemas knew; what a schema does not name is left out before it is asked.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from cedarpy import Entities

from services.access.policy import Policy, Question, Ruling

CURRENT = "current"
_FOLDER = "released"
_COMMENT = re.compile(r"//[^\n]*")
_RECORD = re.compile(r"\b(?:entity|type)\s+(\w+)\s*=\s*\{([^}]*)\}")
_INLINE = re.compile(r"(\w+)\s*:\s*(\w+)")


class ReleasedPolicy(Policy):
    """A policy set of a past release under its own schema."""

    def __init__(self, policy_text: bytes, schema_text: bytes) -> None:
        super().__init__(policy_text, schema_text)
        plain = _COMMENT.sub("", schema_text.decode())
        self._words = {name: dict(_INLINE.findall(body)) for name, body in _RECORD.findall(plain)}

    def entities(self, entities: Sequence[Mapping[str, Any]]) -> Entities:
        """A reusable handle on what its schema knows of the entities."""
        known = [
            {**one, "attrs": self._known(one["uid"]["type"], one["attrs"])}
            for one in entities
            if one["uid"]["type"] in self._words
        ]
        return super().entities(known)

    def rule_all(self, questions: Sequence[Question], entities: Entities) -> list[Ruling]:
        """The rulings that this release gives."""
        known = [(holder, action, on, self._known("Asked", context)) for holder, action, on, context in questions]
        return super().rule_all(known, entities)

    def _known(self, kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        words = self._words.get(kind, {})
        return {
            name: self._known(words[name], value) if isinstance(value, Mapping) else value
            for name, value in attributes.items()
            if name in words
        }


def policies() -> dict[str, Policy]:
    """Every policy set that this distribution carries, by the release that brought it; the one that decides is last."""
    found: dict[str, Policy] = {}
    folders = resources.files("services.access.policy").joinpath(_FOLDER).iterdir()
    for folder in sorted(folders, key=lambda item: item.name):
        parts = (folder.joinpath(name).read_bytes() for name in ("convention.cedar", "schema.cedarschema"))
        found[folder.name] = ReleasedPolicy(*parts)
    found[CURRENT] = Policy.load()
    return found


def find(carried: Mapping[str, Policy], version: str) -> Policy | None:
    """The policy set of a release, or whose hash begins so; None for none, or for a beginning that several share."""
    if version in carried:
        return carried[version]
    by_hash = {policy.hash: policy for policy in carried.values() if version and policy.hash.startswith(version)}
    return next(iter(by_hash.values())) if len(by_hash) == 1 else None
