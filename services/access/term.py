"""The calendar of art9.term: one year from notification, renewed tacitly, four years in all; local days."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

YEARS_AT_MOST = 4


@dataclass(frozen=True, slots=True)
class Term:
    """When the convention holds: [starts, ends), UTC."""

    starts: datetime
    ends: datetime

    def holds(self, moment: datetime) -> bool:
        """Whether the convention is in force at that instant."""
        return self.starts <= moment < self.ends


def years_after(day: date, years: int) -> date:
    """The same day some years later; 28 February where 29 does not exist."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def convention_term(notified_at: datetime, zone: ZoneInfo) -> Term:
    """The term of a convention notified at an instant, without a denunciation.

    The notification's local day is the first; the last day is the eve of its fourth anniversary. The text leaves open
    whether the anniversary itself counts: we take the shorter reading, since a doubt denies.
    """
    first = notified_at.astimezone(zone).date()
    return Term(notified_at.astimezone(UTC), midnight(years_after(first, YEARS_AT_MOST), zone))
