"""What the officers may decide about the log, and what needs both."""

from datetime import UTC, datetime, timedelta

import pytest

from services.audit.domain import (
    ApproveRetention,
    Command,
    DecideUnmasking,
    Governance,
    LiftHold,
    Officer,
    PlaceHold,
    ProposeRetention,
    decide,
    evolve,
    months_before,
)
from services.kernel.errors import Problem

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CITY = Officer("CITY", "https://idp.example", "dpo")
PREFECTURE = Officer("PREFECTURE", "https://idp.example", "prefecture-dpo")
MASKED = "PREFECTURE-aaaaaaaaaaaaaaaa"


def after(*commands: Command) -> Governance:
    state = Governance()
    for command in commands:
        for event in decide(state, command, NOW):
            state = evolve(state, event)
    return state


def proposed(months: int = 24, officer: Officer = CITY) -> ProposeRetention:
    return ProposeRetention(officer, "p", months, "contentieux en cours", "r1")


def approved(officer: Officer = PREFECTURE) -> ApproveRetention:
    return ApproveRetention(officer, "p", "même contentieux", "r2")


def unmasking(officer: Officer = PREFECTURE, days: int = 30, subject: str = "auditor", **changes: object) -> Command:
    found = DecideUnmasking(
        officer, "u", frozenset({MASKED}), CITY.issuer, subject, "PV-1", "contrôle", NOW + timedelta(days=days), "r"
    )
    for name, value in changes.items():
        object.__setattr__(found, name, value)
    return found


def test_a_longer_retention_needs_both_officers() -> None:
    assert after().months == 12
    assert after(proposed()).months == 12
    with pytest.raises(Problem, match="OTHER_PARTY_NEEDED"):
        after(proposed(), approved(CITY))
    state = after(proposed(), approved())
    assert state.months == 24
    assert state.proposals["p"].justifications == ("contentieux en cours", "même contentieux")
    # Saying it twice changes nothing.
    assert decide(state, approved(), NOW) == ()
    assert after(proposed(), approved(), proposed()) == state


@pytest.mark.parametrize("months", [0, 11, 37])
def test_the_log_is_kept_one_to_three_years(months: int) -> None:
    with pytest.raises(Problem, match="RETENTION_INVALID"):
        after(proposed(months))


def test_an_officer_unmasks_own_people_only_for_another_and_for_a_time() -> None:
    state = after(unmasking())
    [decision] = state.unmaskings.values()
    viewer = ("PREFECTURE", MASKED, CITY.issuer, "auditor")
    assert decision.shows(*viewer, NOW)
    assert not decision.shows(*viewer, decision.valid_until)
    assert not decision.shows("PREFECTURE", "PREFECTURE-bbbbbbbbbbbbbbbb", CITY.issuer, "auditor", NOW)
    assert not decision.shows("PREFECTURE", MASKED, CITY.issuer, "another", NOW)
    with pytest.raises(Problem, match="NOT_YOUR_PEOPLE"):
        after(unmasking(CITY))
    with pytest.raises(Problem, match="OWN_UNMASKING"):
        after(unmasking(subject=PREFECTURE.subject))
    for days in (0, 91):
        with pytest.raises(Problem, match="UNMASKING_INVALID"):
            after(unmasking(days=days))
    with pytest.raises(Problem, match="UNMASKING_EXISTS"):
        after(unmasking(), unmasking(days=31))


def test_a_hold_is_lifted_by_the_party_that_placed_it() -> None:
    start, end = NOW - timedelta(days=10), NOW - timedelta(days=5)
    placed = PlaceHold(CITY, "h", start, end, "REQ-9", "r")
    state = after(placed)
    assert [state.is_held(at) for at in (start, end, start - timedelta(seconds=1))] == [True, False, False]
    with pytest.raises(Problem, match="HOLD_OF_OTHER_PARTY"):
        after(placed, LiftHold(PREFECTURE, "h", "r"))
    assert not after(placed, LiftHold(CITY, "h", "r")).is_held(start)
    with pytest.raises(Problem, match="HOLD_INVALID"):
        after(PlaceHold(CITY, "h", end, start, "REQ-9", "r"))


def test_whoever_holds_no_office_of_a_party_decides_nothing() -> None:
    with pytest.raises(Problem, match="NOT_AN_OFFICER"):
        after(proposed(officer=Officer("", "i", "s")))


def test_months_are_the_calendars() -> None:
    assert months_before(datetime(2028, 2, 29, tzinfo=UTC), 12) == datetime(2027, 2, 28, tzinfo=UTC)
    assert months_before(datetime(2026, 1, 31, tzinfo=UTC), 36) == datetime(2023, 1, 31, tzinfo=UTC)
    assert months_before(datetime(2026, 3, 31, tzinfo=UTC), 13) == datetime(2025, 2, 28, tzinfo=UTC)
