"""What a person types, read; and what the contracts hold, in a person's words."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar
from zoneinfo import ZoneInfo

import typer

if TYPE_CHECKING:
    # Only the stubs know it, as the class of the generated enumerations.
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as Enumeration

Value = TypeVar("Value", bound=int)


class Numbered(Protocol):
    """A decision's number, as access's messages bear it."""

    year: int
    number: int


def number_of(decision: Numbered) -> str:
    """A numbered decision as it is cited: HAB-2026-0007."""
    return f"HAB-{decision.year}-{decision.number:04d}"


def value_of(enum: "Enumeration[Value]", text: str, option: str) -> Value:
    """The value that a word such as SITUATION names, in either case; BadParameter lists the words there are."""
    try:
        return enum.Value(f"{_prefix(enum)}{text.upper()}")
    except ValueError:
        words = ", ".join(name.removeprefix(_prefix(enum)) for name in enum.keys()[1:])
        raise typer.BadParameter(f"must be one of {words}", param_hint=option) from None


def name_of(enum: "Enumeration[Value]", value: Value) -> str:
    """A value's word, without the prefix that its enumeration gives all of them."""
    return enum.Name(value).removeprefix(_prefix(enum))


def instant(text: str, zone: ZoneInfo, option: str) -> datetime:
    """An instant from ISO 8601, in UTC; without an offset it is the territory's time."""
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter at the ends of the calendar
        message = "must be a date or a time in ISO 8601, such as 2026-06-01 or 2026-06-01T08:00"
        raise typer.BadParameter(message, param_hint=option) from None


def day(text: str, option: str) -> date:
    """A day from ISO 8601."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("must be a day in ISO 8601, such as 2026-06-01", param_hint=option) from None


def local(moment: datetime, zone: ZoneInfo) -> str:
    """An instant on the territory's clocks, to the minute."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _prefix(enum: "Enumeration[Value]") -> str:
    # Every enumeration of the contracts begins with <PREFIX>_UNSPECIFIED; buf's lint holds it.
    return enum.keys()[0].removesuffix("UNSPECIFIED")
