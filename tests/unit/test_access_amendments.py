"""Amendments: of which version, what widens, and what both data protection officers are told first (art3.change)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from planier.access.v1.events_pb2 import (
    NOTICE_KIND_WIDENING_AMENDMENT,
    PARTY_CITY,
    PARTY_PREFECTURE,
    ConventionAmended,
    NoticeIssued,
)

from services.access.convention import Identity, State, in_force
from services.access.domain import AcknowledgeNotice, Command, RecordDpia, decide
from services.access.instruments import URGENT_CLEARANCE, YEARLY_REVIEW
from tests.fixtures import access
from tests.fixtures.access import (
    NOW,
    act_command,
    amendment,
    applied,
    founded,
    house_rules,
)
from tests.fixtures.refusals import refused

# Amendments.


def test_an_amendment_that_widens_nothing_is_in_force_when_it_is_recorded_or_says() -> None:
    state = applied(founded(), house_rules(YEARLY_REVIEW))
    assert in_force(state).terms(NOW).version == "2026-02"
    later = amendment(effective_at=NOW + timedelta(days=10))
    state = applied(founded(), act_command("amendment", later))
    assert in_force(state).terms(NOW + timedelta(days=10, microseconds=-1)).version == "2025-03"
    assert in_force(state).terms(NOW + timedelta(days=10)).version == "2026-02"
    earlier = amendment(effective_at=NOW - timedelta(days=10))
    state = applied(founded(), act_command("amendment", earlier))
    assert in_force(state).terms(NOW - timedelta(microseconds=1)).version == "2025-03"


def test_an_amendment_is_of_the_version_in_force_and_has_a_name_of_its_own() -> None:
    state = applied(founded(), house_rules())
    outdated = act_command("amendment", amendment("2026-03"))
    assert refused(state, outdated).reason == "AMENDMENT_OUTDATED"
    taken = act_command("amendment", amendment("2025-03", previous_version="2026-02"))
    assert refused(state, taken).reason == "VERSION_EXISTS"


def test_the_last_signature_replaces_an_amendment_that_is_not_in_force_yet() -> None:
    later = amendment("2026-later", effective_at=NOW + timedelta(days=10))
    state = applied(founded(), act_command("amendment", later))
    state = applied(state, act_command("amendment", amendment("2026-now")))
    assert [terms.version for terms in in_force(state).versions] == ["2025-03", "2026-now"]


FIRST, SECOND = access.description()["instruments"]
WIDER: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a source": ({"instruments": [{**FIRST, "sources": [*FIRST["sources"], "visits"]}, SECOND]}, ("source visits",)),
    "a purpose": ({"instruments": [{**FIRST, "purposes": SECOND["purposes"]}, SECOND]}, ("purpose TENSION",)),
    "annex 1": ({"annex_hash": "cd" * 32}, ("annex",)),
    "another instrument's source": (
        {
            "instruments": [
                {**FIRST, "sources": [*FIRST["sources"], "works"]},
                {**SECOND, "sources": ["markets"]},
            ]
        },
        ("source works",),
    ),
}


@pytest.mark.parametrize("case", WIDER)
def test_a_widening_amendment_tells_both_officers_and_is_not_in_force(case: str) -> None:
    changes, widens = WIDER[case]
    command = act_command("amendment", amendment(**changes), act_id=str(UUID(int=9)))
    event, *notices = decide(founded(), command, NOW)
    assert isinstance(event, ConventionAmended)
    told = [(n.party, n.kind, n.reference, n.notice_id) for n in notices if isinstance(n, NoticeIssued)]
    reference = str(UUID(int=9))
    assert told == [
        (PARTY_CITY, NOTICE_KIND_WIDENING_AMENDMENT, reference, f"{reference}:CITY"),
        (PARTY_PREFECTURE, NOTICE_KIND_WIDENING_AMENDMENT, reference, f"{reference}:PREFECTURE"),
    ]
    state = applied(founded(), command)
    assert in_force(state).versions[-1].widens == widens
    assert in_force(state).versions[-1].awaits == ("notice CITY", "notice PREFECTURE", "dpia")
    assert in_force(state).terms(NOW + timedelta(days=900)).version == "2025-03"


def test_less_is_no_widening() -> None:
    command = act_command("amendment", amendment(instruments=[{**FIRST, "sources": ["demonstrations"]}]))
    assert len(decide(founded(), command, NOW)) == 1


AMENDMENT = str(UUID(int=9))
PREFECTURE_DPO = Identity(access.ISSUER, "prefecture-dpo")


def widened() -> State:
    return applied(founded(), act_command("amendment", amendment(annex_hash="cd" * 32), act_id=AMENDMENT))


TOLD = AcknowledgeNotice(access.DPO, f"{AMENDMENT}:CITY", "record")
STUDIED = RecordDpia(PREFECTURE_DPO, AMENDMENT, "AIPD-1", "record")
STEPS: tuple[Command, ...] = (
    TOLD,
    AcknowledgeNotice(PREFECTURE_DPO, f"{AMENDMENT}:PREFECTURE", "record"),
    STUDIED,
)


@pytest.mark.parametrize("missing", range(3))
def test_a_widening_amendment_needs_both_notices_and_the_impact_study(missing: int) -> None:
    state = widened()
    for number, step in enumerate(STEPS):
        if number != missing:
            state = applied(state, step, NOW + timedelta(hours=number))
    late = NOW + timedelta(days=9)
    assert in_force(state).terms(late).version == "2025-03"
    state = applied(state, STEPS[missing], late)
    assert in_force(state).terms(late).version == "2026-02"
    assert in_force(state).terms(late - timedelta(microseconds=1)).version == "2025-03"
    for step in STEPS:  # again changes nothing
        assert decide(state, step, late) == ()


def test_a_notice_is_its_officers_alone() -> None:
    for actor in (access.DGA, access.STRANGER, access.VALIDATOR):
        problem = refused(widened(), replace(TOLD, actor=actor))
        assert (problem.reason, problem.clause) == ("NOT_DATA_PROTECTION_OFFICER", "art3.change")
    assert refused(widened(), replace(TOLD, actor=PREFECTURE_DPO)).reason == "NOTICE_UNKNOWN"
    assert refused(widened(), replace(TOLD, notice_id="x:CITY")).reason == "NOTICE_UNKNOWN"


def test_an_impact_study_is_of_an_amendment_that_widens_and_is_one() -> None:
    assert refused(widened(), replace(STUDIED, actor=access.DGA)).reason == "NOT_DATA_PROTECTION_OFFICER"
    assert refused(widened(), replace(STUDIED, amendment_id="x")).reason == "AMENDMENT_UNKNOWN"
    assert refused(widened(), replace(STUDIED, amendment_id="")).reason == "AMENDMENT_UNKNOWN"
    state = applied(widened(), STEPS[2])
    another = refused(state, replace(STUDIED, reference="AIPD-2"))
    assert (another.reason, another.clause) == ("DPIA_RECORDED", "art3.change")
    narrow = applied(founded(), act_command("amendment", amendment(), act_id=AMENDMENT))
    assert refused(narrow, replace(STUDIED, actor=access.DPO)).reason == "AMENDMENT_UNKNOWN"


def test_a_house_rule_holds_since_the_first_of_the_amendments_that_keep_it() -> None:
    state = applied(founded(), house_rules(YEARLY_REVIEW))
    keeps = amendment("3", previous_version="2026-02", house_rules=[{"rule_id": YEARLY_REVIEW}])
    state = applied(state, act_command("amendment", keeps), NOW + timedelta(days=1))
    drops = amendment("4", previous_version="3")
    state = applied(state, act_command("amendment", drops), NOW + timedelta(days=2))
    found = in_force(state)
    assert found.house_since(YEARLY_REVIEW, NOW - timedelta(seconds=1)) is None
    assert found.house_since(YEARLY_REVIEW, NOW + timedelta(days=1)) == NOW
    assert found.house_since(YEARLY_REVIEW, NOW + timedelta(days=2)) is None
    assert found.house_since(URGENT_CLEARANCE, NOW) is None


def test_an_urgent_clearances_notice_changes_no_amendment() -> None:
    state = applied(founded(), house_rules(URGENT_CLEARANCE))
    hours: dict[str, Any] = {"valid_from": NOW, "valid_until": NOW + timedelta(hours=1)}
    grant = replace(access.grant_command(AMENDMENT, **hours), urgent=True)
    state = applied(state, grant)
    after = applied(state, STEPS[0])
    assert in_force(after) == in_force(state)
    assert after.notices[f"{AMENDMENT}:CITY"].acknowledged_at == NOW
