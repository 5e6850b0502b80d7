"""Who may do what for which purpose: the convention as cases that lawyers can read; each must come out as written."""

import re
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from planier.access.v1.access_pb2 import CheckVerdict
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_AUDITOR, ROLE_PREFECTURE_USER
from planier.common.v1.guard_pb2 import Operation
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION, Purpose

from services.access.convention import Identity, Person, State
from services.access.decisions import Decider
from services.access.domain import ProposeBinding
from services.access.nominative_list import RefuseListedPerson, SuspendListedPerson
from services.access.policy import Policy
from tests.fixtures import access

FOLDER = Path(__file__).parent
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]
LATE = datetime(2028, 6, 1, tzinfo=UTC)
SYSTEMS = {
    "cortege": access.CORTEGE,
    "city-importer": access.CITY_IMPORTER,
    "unknown-system": "spiffe://planier/unknown",
}


def people() -> State:
    """The fixture's people, and those whom some cases need."""
    state = access.populated()

    def clear(subject: str, usual_name: str, confirmer: Identity = access.DGA, **changes: Any) -> None:
        nonlocal state
        at = changes.pop("at", access.NOW)
        grant = access.grant_command(person=Person("Camille", usual_name, "Service"), **changes)
        state = access.bound(state, grant, Identity(access.ISSUER, subject), confirmer, at)

    clear("situation-only", "Abadie", purposes=frozenset({PURPOSE_SITUATION}))
    clear("works-only", "Blanc", sources=frozenset({"works"}))
    clear("cleared-auditor", "Costa", role=ROLE_AUDITOR, purposes=frozenset({PURPOSE_OVERSIGHT}))
    clear("revoked-user", "Durand")
    state = access.applied(state, access.revoke_command(list(state.clearances)[-1]))
    clear("second-dga", "Vasseur")
    late: dict[str, Any] = {"valid_from": LATE, "valid_until": LATE + timedelta(days=365), "at": LATE}
    clear("late-user", "Estève", **late)
    long: dict[str, Any] = {"expires_at": LATE + timedelta(days=300)}
    prefecture: dict[str, Any] = {
        "party": PARTY_PREFECTURE,
        "role": ROLE_PREFECTURE_USER,
        "confirmer": access.VALIDATOR,
    }
    names = {"late-prefecture-user": "Fabre", "suspended-person": "Hardy", "refused-person": "Icard", "left": "Jaume"}
    entries = {who: access.listed_person(Person("Camille", name, "Service")) for who, name in names.items()}
    everybody = (access.listed_person(access.PREFECTURE_PERSON), *entries.values())
    state = access.listed(state, *everybody)
    for who in ("suspended-person", "refused-person", "left"):
        clear(who, names[who], **prefecture)
    state = access.listed(state, *(entry for entry in everybody if entry != entries["left"]), at=LATE, **long)
    clear("late-prefecture-user", "Fabre", **prefecture, **late)
    suspended, refused = entries["suspended-person"].entry_id, entries["refused-person"].entry_id
    state = access.applied(state, SuspendListedPerson(access.DGA, suspended, "en attente", "record"))
    state = access.applied(state, RefuseListedPerson(access.DGA, refused, "hors périmètre", "record"))
    pending = access.grant_command(person=Person("Camille", "Giraud", "Service"))
    proposal = ProposeBinding(Identity(access.ISSUER, "proposed-user"), "Camille", "Giraud", "record")
    return access.applied(access.applied(state, pending), proposal)


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider(Policy.load(), people())


def decided(decider: Decider, case: dict[str, Any]) -> CheckVerdict:
    who = SYSTEMS.get(case["who"]) or Identity(access.ISSUER, case["who"])
    purpose = case.get("purpose", "")
    return decider.decide(
        access.check_item(
            who,
            Operation.Value(f"OPERATION_{case.get('operation', 'CONSULT')}"),
            case.get("resource", "facts"),
            Purpose.Value(f"PURPOSE_{purpose or 'UNSPECIFIED'}"),
            sources=case.get("sources", ()),
            multi_factor=case.get("multi_factor", True),
            at=case.get("at", access.NOW),
        )
    )


@pytest.mark.parametrize("case", CASES)
def test_the_case_is_decided_as_written(decider: Decider, case: dict[str, Any]) -> None:
    verdict = decided(decider, case)
    expected = {name: case[name] for name in ("convention", "city-rules") if name in case}
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
def test_without_any_one_forbid_some_case_comes_out_otherwise(decider: Decider, dropped: int) -> None:
    weaker = HEAD + "".join(part for number, part in enumerate(POLICIES) if number != dropped)
    other = Decider(Policy(weaker.encode(), SCHEMA), people())
    assert any(outcome(decider, param.values[0]) != outcome(other, param.values[0]) for param in CASES)


def outcome(decider: Decider, case: Any) -> list[tuple[bool, list[str]]]:
    return [(decision.permit, list(decision.clauses)) for decision in decided(decider, case).instruments]
