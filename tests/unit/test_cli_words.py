"""What people type at the command line, and what they read of what the contracts hold."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import typer
from planier.common.v1.fact_pb2 import FACT_STATUS_CONFIRMED, FactStatus
from planier.common.v1.release_pb2 import PURPOSE_REFUSED_ENFORCEMENT, Purpose

from services.cli.words import day, instant, local, name_of, value_of

MARSEILLE = ZoneInfo("Europe/Paris")


def test_a_word_in_either_case_names_its_value() -> None:
    assert value_of(Purpose, "refused_Enforcement", "--purpose") == PURPOSE_REFUSED_ENFORCEMENT


def test_another_word_is_misuse_and_the_words_there_are_are_said() -> None:
    with pytest.raises(typer.BadParameter, match="must be one of SITUATION, CROSSING, TENSION") as misuse:
        value_of(Purpose, "curiosity", "--purpose")
    assert "UNSPECIFIED" not in misuse.value.message


def test_a_value_is_read_without_its_prefix() -> None:
    assert name_of(FactStatus, FACT_STATUS_CONFIRMED) == "CONFIRMED"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-06-01T08:00", datetime(2026, 6, 1, 6, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 11, 30, 23, tzinfo=UTC)),
        ("2026-06-01T08:00Z", datetime(2026, 6, 1, 8, tzinfo=UTC)),
    ],
)
def test_a_time_without_an_offset_is_the_territorys(typed: str, meant: datetime) -> None:
    assert instant(typed, MARSEILLE, "--from") == meant


@pytest.mark.parametrize("typed", ["yesterday", "2026-13-01", ""])
def test_what_is_no_time_is_misuse(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        instant(typed, MARSEILLE, "--from")
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        day(typed, "--day")


def test_an_instant_is_read_on_the_territorys_clocks() -> None:
    assert local(datetime(2026, 3, 29, 1, 30, tzinfo=UTC), MARSEILLE) == "2026-03-29 03:30"
