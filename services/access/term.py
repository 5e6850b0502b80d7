"""The calendar of art9: one year from notification, renewed tacitly, four years in all; local days.

Everywhere the day on which something happens is the first of its period: the shorter reading, since a doubt denies.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

YEARS_AT_MOST = 4
MONTHS_OF_NOTICE = 2
DAYS_TO_DESTROY = 15
_MONTHS = 12


@dataclass(frozen=True, slots=True)
class Term:
    """When the convention holds: [starts, ends), UTC. `year_ends`: the end of each annual period, `ends` the last."""

    starts: datetime
    ends: datetime
    year_ends: tuple[datetime, ...] = ()

    def holds(self, moment: datetime) -> bool:
        """Whether the convention is in force at that instant."""
        return self.starts <= moment < self.ends

    def year(self, moment: datetime) -> int:
        """Which annual period runs, 1 to 4; those after the first were renewed tacitly. 0 outside of the term."""
        if not self.holds(moment):
            return 0
        return 1 + sum(moment >= end for end in self.year_ends)


def years_after(day: date, years: int) -> date:
    """The same day some years later; 28 February where 29 does not exist."""
    return months_after(day, years * _MONTHS)


def months_after(day: date, months: int) -> date:
    """The same day some months later; the last of the month where that day does not exist."""
    count = day.year * _MONTHS + day.month - 1 + months
    year, month = divmod(count, _MONTHS)
    next_year, next_month = divmod(count + 1, _MONTHS)
    last = date(next_year, next_month + 1, 1) - timedelta(days=1)
    return date(year, month + 1, min(day.day, last.day))


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def local_day(moment: datetime, zone: ZoneInfo) -> date:
    """The local day of an instant."""
    return moment.astimezone(zone).date()


def convention_term(notified_at: datetime, zone: ZoneInfo) -> Term:
    """The term of a convention notified at an instant, without a denunciation.

    The notification's local day is the first; the last day is the eve of its fourth anniversary. The text leaves open
    whether the anniversary itself counts.
    """
    first = local_day(notified_at, zone)
    ends = tuple(midnight(years_after(first, year), zone) for year in range(1, YEARS_AT_MOST + 1))
    return Term(notified_at.astimezone(UTC), ends[-1], ends)


def notice_ends(received_at: datetime, zone: ZoneInfo) -> datetime:
    """The first instant after two months' notice (art9.denunciation)."""
    return midnight(months_after(local_day(received_at, zone), MONTHS_OF_NOTICE), zone)


def destruction_due(ended_at: datetime, zone: ZoneInfo) -> datetime:
    """The instant by which what was transmitted must be destroyed (art9.termination)."""
    return midnight(local_day(ended_at, zone) + timedelta(days=DAYS_TO_DESTROY), zone)


def review_due(looked_at: datetime, zone: ZoneInfo) -> datetime:
    """When a clearance lapses unless it is looked at again (house.yearly_review): its local anniversary, same time."""
    local = looked_at.astimezone(zone)
    anniversary = years_after(local.date(), 1)
    return datetime.combine(anniversary, local.time(), zone).astimezone(UTC)
