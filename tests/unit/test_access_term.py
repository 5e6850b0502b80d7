"""art9.term: local days, four years at most."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from services.access.term import convention_term, years_after

PARIS = ZoneInfo("Europe/Paris")


def test_the_last_day_ends_at_local_midnight_in_summer_time() -> None:
    term = convention_term(datetime(2024, 7, 14, 10, 0, tzinfo=UTC), PARIS)
    assert term.ends == datetime(2028, 7, 13, 22, 0, tzinfo=UTC)


def test_the_last_day_ends_at_local_midnight_in_winter_time() -> None:
    term = convention_term(datetime(2024, 1, 14, 10, 0, tzinfo=UTC), PARIS)
    assert term.ends == datetime(2028, 1, 13, 23, 0, tzinfo=UTC)


def test_the_day_of_notification_is_the_local_one() -> None:
    late = convention_term(datetime(2024, 7, 14, 22, 30, tzinfo=UTC), PARIS)  # 00:30 on the 15th in Paris
    assert late.ends == datetime(2028, 7, 14, 22, 0, tzinfo=UTC)


def test_the_term_is_half_open_to_the_microsecond() -> None:
    term = convention_term(datetime(2024, 7, 14, 10, 0, tzinfo=UTC), PARIS)
    last = term.ends.replace(hour=21, minute=59, second=59, microsecond=999_999)
    assert [term.holds(moment) for moment in (term.starts, last, term.ends)] == [True, True, False]
    assert not term.holds(datetime(2024, 7, 14, 9, 59, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    ("day", "years", "after"),
    [
        (date(2024, 2, 29), 4, date(2028, 2, 29)),
        (date(2024, 2, 29), 1, date(2025, 2, 28)),
        (date(2096, 2, 29), 4, date(2100, 2, 28)),
    ],
)
def test_29_february_falls_back_to_the_28th(day: date, years: int, after: date) -> None:
    assert years_after(day, years) == after
