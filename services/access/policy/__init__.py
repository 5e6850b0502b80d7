"""The policy set: Cedar text, one base permit, each clause a forbid. Parsed once; any doubt is a deny.

Cedar skips a forbid that errs, which would leave an Allow: an evaluation error therefore denies here. Requests and
entities are checked against the schema, so that a missing attribute is an error and never a silent false.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

from cedarpy import AuthzResult, Entities, PolicySet, Schema, is_authorized_batch, validate_policies

DEFAULT_DENY = "default.deny"
BASE = "base"
# A Holder's name, the action, (entity type, id) of the resource, the context.
Question = tuple[str, str, tuple[str, str], Mapping[str, object]]
_POLICY_FILE = "convention.cedar"
_SCHEMA_FILE = "schema.cedarschema"
_DEFAULT_REASON = "Aucun texte en vigueur ne permet cette demande."


class PolicyError(ValueError):
    """The policy text is not valid under its schema, or a clause has no id or no reason; the service does not start."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy says of one request: denying clauses sorted, the French reason of each policy that denied."""

    permit: bool
    clauses: tuple[str, ...]
    reasons: tuple[str, ...]
    # Evaluation errors, for the administrator; they quote policy ids and attribute names, never values.
    faults: int = 0


def entity(kind: str, name: str, attributes: Mapping[str, object]) -> dict[str, object]:
    """One entity in Cedar's JSON."""
    return {"uid": {"type": kind, "id": name}, "attrs": dict(attributes), "parents": []}


class Policy:
    """A parsed policy set with its schema; immutable, shared by threads."""

    def __init__(self, policy_text: bytes, schema_text: bytes) -> None:
        """Parses and validates. Raises PolicyError."""
        text, schema = policy_text.decode(), schema_text.decode()
        try:
            self._schema = Schema.from_str(schema)
            self._policies = PolicySet.from_str(text)
        except ValueError as broken:
            raise PolicyError("the policy or its schema does not parse") from broken
        if not validate_policies(text, self._schema).validation_passed:
            raise PolicyError("the policy does not validate under its schema")
        self._ids, self._reasons = _annotations(self._policies)
        digest = hashlib.sha256()
        for part in (policy_text, schema_text):  # lengths first: no two pairs of files share an input
            digest.update(len(part).to_bytes(8, "big") + part)
        self.hash = digest.hexdigest()
        self.clauses = frozenset(self._ids.values()) - {BASE}
        self.reasons = frozenset(self._reasons.values()) - {""}

    @classmethod
    def load(cls) -> Self:
        """The policy set that this distribution carries."""
        folder = resources.files(__name__)
        return cls(folder.joinpath(_POLICY_FILE).read_bytes(), folder.joinpath(_SCHEMA_FILE).read_bytes())

    @classmethod
    def load_with_text(cls) -> tuple[str, str]:
        """The text of that policy and its hash, for people to read."""
        return resources.files(__name__).joinpath(_POLICY_FILE).read_text(), cls.load().hash

    def entities(self, entities: Sequence[Mapping[str, Any]]) -> Entities:
        """A reusable handle on entities, checked against the schema. Raises ValueError where one does not conform."""
        return Entities.from_json_str(json.dumps(list(entities)), self._schema)

    def rule(
        self, principal: str, action: str, resource: tuple[str, str], context: Mapping[str, object], entities: Entities
    ) -> Ruling:
        """The ruling on a Holder's action on (entity type, id). Never raises on what a request holds: it denies."""
        return self.rule_all([(principal, action, resource, context)], entities)[0]

    def rule_all(self, questions: Sequence[Question], entities: Entities) -> list[Ruling]:
        """The rulings on several questions over the same entities, in order: a quarter cheaper each than one by one."""
        requests = [
            {
                "principal": {"type": "Holder", "id": principal},
                "action": {"type": "Action", "id": action},
                "resource": {"type": resource[0], "id": resource[1]},
                "context": _encode(context),
            }
            for principal, action, resource, context in questions
        ]
        return [self._ruling(found) for found in is_authorized_batch(requests, self._policies, entities, self._schema)]

    def _ruling(self, diagnosis: AuthzResult) -> Ruling:
        errors, reasons = diagnosis.diagnostics.errors, diagnosis.diagnostics.reasons
        if diagnosis.allowed and not errors:
            return _PERMITTED
        denying = sorted((policy for policy in reasons if self._ids.get(policy, BASE) != BASE), key=_text_order)
        if not denying:
            return Ruling(permit=False, clauses=(DEFAULT_DENY,), reasons=(_DEFAULT_REASON,), faults=len(errors))
        return Ruling(
            permit=False,
            clauses=tuple(sorted({self._ids[policy] for policy in denying})),
            reasons=tuple(dict.fromkeys(self._reasons[policy] for policy in denying)),
            faults=len(errors),
        )


_PERMITTED = Ruling(permit=True, clauses=(), reasons=())
# Told that no context holds itself, JSON costs a third less; the engine takes its text as it is.
_encode = json.JSONEncoder(check_circular=False).encode


def _text_order(policy: str) -> int:
    return int(policy.removeprefix("policy"))


def _annotations(policies: PolicySet) -> tuple[dict[str, str], dict[str, str]]:
    """(clause, French reason) by Cedar's own id of each policy."""
    ids: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, node in policies.to_pst().static_policies.items():
        ids[name] = node.annotations.get("id", "")
        reasons[name] = node.annotations.get("reason", "")
        named = bool(ids[name]) and (ids[name] == BASE or bool(reasons[name]))
        if not named or (ids[name] == BASE) != (node.effect == "permit"):
            raise PolicyError("each policy needs its clause and its reason, and the base alone permits")
    if sum(clause == BASE for clause in ids.values()) != 1:
        raise PolicyError("there is one base permit")
    return ids, reasons
