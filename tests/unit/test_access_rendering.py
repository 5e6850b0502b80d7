"""The policy in French says all that the policy holds, and the page that is checked in is the policy that runs."""

import pytest

from services.access.policy import Policy
from services.access.policy.rendering import UnsaidError, rendering
from tools.render_policy import OUT, rendered

TEXT, HASH = Policy.load_with_text()
BASE = '@id("base") permit (principal, action in [Action::"CONSULT"], resource);'


def test_the_page_is_in_step_with_the_policy() -> None:
    assert OUT.read_text() == rendered(), "run `make policy`"


def test_every_clause_and_every_reason_is_there() -> None:
    page = rendering(TEXT, HASH)
    policy = Policy.load()
    for clause in policy.clauses:
        assert f"## `{clause}` " in page
    for reason in policy.reasons:
        assert page.count(f"« {reason} »") >= 1
    assert HASH in page


def test_conditions_are_said_in_their_order_and_nesting() -> None:
    clause = """@id("art9.term") @reason("R") forbid (principal, action == Action::"CONSULT", resource is Facts)
    when { !principal.urgent && (principal.bound || ["CITY_USER", "COORDINATOR"].contains(principal.role)) }
    unless { context.house_rules.contains("house.delegate") };"""
    said = rendering(BASE + clause, "h").partition("## ")[2]
    assert (
        said
        == """`art9.term` Article 9 : durée

**« R »**

Refusé : « consulter » sur des faits.

Seulement quand :

- toutes ces conditions :
  - il n'est pas vrai que : l'habilitation a été accordée en urgence
  - l'une de ces conditions :
    - l'identité de la personne a été confirmée
    - le rôle est l'un de : utilisateur de la Ville, coordonnateur

Sauf si :

- un avenant en vigueur institue la règle `house.delegate`
"""
    )


@pytest.mark.parametrize(
    "clause",
    [
        '@id("art1.unknown") @reason("R") forbid (principal, action, resource);',
        '@id("art9.term") @reason("R") forbid (principal, action, resource) when { context.time > 5 };',
        '@id("art9.term") @reason("R") forbid (principal, action, resource) when { context.time == context.time };',
        '@id("art9.term") @reason("R") forbid (principal, action, resource) when { principal.role == "KING" };',
        '@id("art9.term") @reason("R") forbid (principal, action == Action::"COMBINE", resource);',
        '@id("art9.term") @reason("R") forbid (principal, action, resource is Session);',
    ],
)
def test_what_no_phrase_says_is_not_released(clause: str) -> None:
    with pytest.raises(UnsaidError):
        rendering(BASE + clause, "h")


def test_a_base_that_permits_any_operation_is_not_said() -> None:
    with pytest.raises(UnsaidError):
        rendering('@id("base") permit (principal, action, resource);', "h")
