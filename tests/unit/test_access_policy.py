"""Cedar's traps: an error denies, what is missing is an error, and a policy that cannot be cited does not load."""

from importlib import resources
from typing import Any

import pytest

from services.access.policy import DEFAULT_DENY, Policy, PolicyError, entity

FOLDER = resources.files("services.access.policy")
TEXT = FOLDER.joinpath("convention.cedar").read_bytes()
SCHEMA = FOLDER.joinpath("schema.cedarschema").read_bytes()
HOLDER: dict[str, object] = {
    "basis": "CLEARANCE",
    "role": "CITY_USER",
    "party": "CITY",
    "purposes": ["SITUATION"],
    "sources": ["works"],
    "bound": True,
    "revoked": False,
    "suspended": False,
    "undertaken": True,
    "urgent": False,
    "valid_from": 0,
    "valid_until": 100,
    "review_due": 100,
    "list_standing": "",
    "listed_in": 0,
    "list_version": 0,
    "list_until": 100,
}
FACTS: dict[str, object] = {
    "instrument": "city-rules",
    "purposes": ["SITUATION"],
    "term": {"starts": 0, "ends": 100, "denounced": 100, "terminated": 100},
    "expires": 100,
}
CONTEXT: dict[str, object] = {
    "purpose": "SITUATION",
    "sources": ["works"],
    "multi_factor": True,
    "time": 5,
    "within": True,
    "house_rules": [],
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load()


def rule(policy: Policy, context: dict[str, object] | None = None, *, action: str = "CONSULT", **names: str) -> Any:
    entities = policy.entities([entity("Holder", "h", HOLDER), entity("Facts", "f", FACTS)])
    resource = (names.get("kind", "Facts"), names.get("resource", "f"))
    return policy.rule(names.get("principal", "h"), action, resource, CONTEXT if context is None else context, entities)


def test_a_complete_request_is_permitted(policy: Policy) -> None:
    ruling = rule(policy)
    assert (ruling.permit, ruling.clauses, ruling.faults) == (True, (), 0)


@pytest.mark.parametrize("missing", CONTEXT)
def test_a_request_without_one_of_its_attributes_is_denied(policy: Policy, missing: str) -> None:
    ruling = rule(policy, {name: value for name, value in CONTEXT.items() if name != missing})
    assert (ruling.permit, ruling.clauses) == (False, (DEFAULT_DENY,))


@pytest.mark.parametrize("attribute", CONTEXT)
def test_an_attribute_of_another_type_is_denied(policy: Policy, attribute: str) -> None:
    assert not rule(policy, {**CONTEXT, attribute: {"unexpected": 1}}).permit


@pytest.mark.parametrize("missing", HOLDER)
def test_a_holder_without_one_of_its_attributes_is_not_built(policy: Policy, missing: str) -> None:
    attributes = {name: value for name, value in HOLDER.items() if name != missing}
    with pytest.raises(ValueError, match="does not conform to the schema"):
        policy.entities([entity("Holder", "h", attributes)])


@pytest.mark.parametrize("missing", FACTS)
def test_facts_without_one_of_their_attributes_are_not_built(policy: Policy, missing: str) -> None:
    attributes = {name: value for name, value in FACTS.items() if name != missing}
    with pytest.raises(ValueError, match="does not conform to the schema"):
        policy.entities([entity("Facts", "f", attributes)])


@pytest.mark.parametrize("names", [{"principal": "nobody"}, {"resource": "nothing"}, {"kind": "Session"}])
def test_what_is_not_known_is_denied(policy: Policy, names: dict[str, Any]) -> None:
    ruling = rule(policy, **names)
    assert not ruling.permit
    assert ruling.clauses


def test_an_unknown_action_is_denied_by_default(policy: Policy) -> None:
    assert rule(policy, action="PUBLISH").clauses == (DEFAULT_DENY,)


def test_a_forbid_that_errs_denies_although_cedar_would_allow() -> None:
    # Overflow passes validation and is an error when evaluated: Cedar skips the forbid and allows.
    overflowing = b"""
@id("base") permit (principal, action, resource);
@id("art9.term") @reason("r") forbid (principal, action, resource) when { context.time * 9223372036854775807 > 5 };
"""
    ruling = rule(Policy(overflowing, SCHEMA))
    assert (ruling.permit, ruling.clauses, ruling.faults) == (False, (DEFAULT_DENY,), 1)


def test_every_denial_has_a_french_reason_and_its_clauses_are_sorted(policy: Policy) -> None:
    ruling = rule(policy, {**CONTEXT, "purpose": "TENSION", "multi_factor": False})
    assert ruling.clauses == ("art6.purpose", "art6.secure_access")
    assert ruling.reasons == (
        "La finalité demandée n'est pas de celles que le texte en vigueur permet.",
        "Une authentification forte, à plusieurs facteurs, est nécessaire.",
    )


def test_the_hash_covers_policy_and_schema(policy: Policy) -> None:
    assert Policy(TEXT, SCHEMA).hash == policy.hash
    assert Policy(TEXT + b"\n", SCHEMA).hash != policy.hash
    assert Policy(TEXT, SCHEMA + b"\n").hash != policy.hash


@pytest.mark.parametrize(
    "text",
    [
        TEXT + b'@reason("r") forbid (principal, action, resource);',
        TEXT + b'@id("art1.x") forbid (principal, action, resource);',
        TEXT + b'@id("art1.x") @reason("r") permit (principal, action, resource);',
        TEXT + b'@id("base") permit (principal, action, resource);',
        TEXT + b'@id("art1.x") @reason("r") forbid (principal, action, resource) when { context.absent };',
        TEXT + b"forbid (",
        TEXT.replace(b'@id("base")', b'@id("other")'),
        b'@id("art1.x") @reason("r") forbid (principal, action, resource);',
    ],
)
def test_a_policy_that_is_not_of_one_permit_and_cited_forbids_does_not_load(text: bytes) -> None:
    with pytest.raises(PolicyError):
        Policy(text, SCHEMA)
