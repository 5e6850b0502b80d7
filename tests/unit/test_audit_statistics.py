"""The report's numbers: what is counted, what is shown apart, and that no person ever is."""

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from planier.audit.v1.record_pb2 import (
    LEGAL_BASIS_LEGAL_OBLIGATION,
    RECORD_KIND_ATTEMPT,
    RECORD_KIND_REFUSAL,
    RECORD_KIND_STREAM_CLOSED,
    RECORD_KIND_STREAM_OPENED,
    RECORD_KIND_UNAUTHENTICATED,
    AccessRecord,
    Disclosure,
    Recipient,
)

from services.audit.statistics import ActiveClearance, Statistics, clearance_notes
from tests.fixtures.audit import access_record

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2026, 6, 1, 8, tzinfo=UTC)
POLICE = ("CITY", "Police municipale")


def at(moment: datetime, **changes: Any) -> AccessRecord:
    record = access_record(**changes)
    record.occurred_at.FromDatetime(moment)
    return record


def counted(*records: AccessRecord | None) -> Statistics:
    statistics = Statistics(PARIS)
    for index, record in enumerate(records):
        statistics.add(index, record)
    return statistics


def test_accesses_and_refusals_are_counted_by_clause_purpose_and_organisation() -> None:
    refused = at(START, kind=RECORD_KIND_REFUSAL, refusal_reason="ACCESS_DENIED")
    refused.decision.clauses[:] = ["art9.term"]
    found = counted(at(START), at(START), refused, None)
    assert (found.total.accesses, found.total.refusals, found.erased) == (3, 1, 1)
    assert {name: (tally.accesses, tally.refusals) for name, tally in found.by_clause.items()} == {
        "art6.purpose": (2, 0), "art6.habilitation": (2, 0), "art9.term": (1, 1),
    }  # fmt: skip
    assert found.by_purpose["SITUATION"].accesses == 3
    assert found.by_organisation[POLICE].refusals == 1
    assert found.reasons == {"ACCESS_DENIED": 1}


def test_a_stream_and_an_attempt_that_was_refused_are_one_access_each() -> None:
    attempt = at(START, kind=RECORD_KIND_ATTEMPT)
    refusal = at(START, kind=RECORD_KIND_REFUSAL, refusal_reason="X", continues_record_id=attempt.record_id)
    opened = at(START, kind=RECORD_KIND_STREAM_OPENED)
    closed = at(START, kind=RECORD_KIND_STREAM_CLOSED, continues_record_id=opened.record_id)
    found = counted(attempt, refusal, opened, closed)
    assert (found.total.accesses, found.total.refusals) == (2, 1)


def test_strangers_are_counted_apart() -> None:
    stranger = AccessRecord(kind=RECORD_KIND_UNAUTHENTICATED, unauthenticated={"TOKEN_EXPIRED": 3, "PLAINTEXT": 2})
    found = counted(stranger)
    assert (found.strangers, found.total.accesses) == (5, 0)


def test_hours_are_the_territorys() -> None:
    # 03:30 and 05:30 in Paris, 06:30 in Paris, 22:10 in Paris.
    hours = [(1, 30), (3, 30), (4, 30), (20, 10)]
    found = counted(*(at(datetime(2026, 6, 1, hour, minute, tzinfo=UTC)) for hour, minute in hours))
    assert found.unusual_hours == {POLICE: 3}


def test_unusual_days_are_of_an_organisation_never_of_a_person() -> None:
    usual = [at(START + timedelta(days=day)) for day in range(10) for _ in range(5)]
    found = counted(*usual, *[at(START + timedelta(days=4)) for _ in range(40)])
    [day] = found.unusual_days()
    assert (day.organisation, day.accesses, day.usual) == (POLICE, 45, 5)
    assert counted(*usual).unusual_days() == ()
    # A week's days are needed to say what is usual.
    assert counted(at(START), *[at(START + timedelta(days=1)) for _ in range(90)]).unusual_days() == ()
    # No total, no part of a total, is keyed by who it was.
    assert is_dataclass(found)
    shown = {one.name: getattr(found, one.name) for one in fields(found)}
    assert "agent-7" not in repr(shown)


def test_disclosures_are_listed_with_their_recipients() -> None:
    record = at(START)
    record.disclosure.CopyFrom(
        Disclosure(
            legal_basis=LEGAL_BASIS_LEGAL_OBLIGATION, reference="TJ-1", recipients=[Recipient(organisation="Tribunal")]
        )
    )
    [disclosed] = counted(at(START), record).disclosures
    assert (disclosed.index, disclosed.reference, disclosed.recipients) == (1, "TJ-1", ("Tribunal",))


def test_a_clearance_is_unused_only_where_its_use_would_be_known() -> None:
    end = START + timedelta(days=30)

    def clearance(name: str, party: str = "CITY", since: int = -100, days: int = 300) -> ActiveClearance:
        return ActiveClearance(name, (party, "S"), START + timedelta(days=since), START + timedelta(days=days))

    active = [
        clearance("c-7"), clearance("never"), clearance("fresh", since=2), clearance("ending", days=45),
        clearance("theirs", "PREFECTURE"),
    ]  # fmt: skip
    notes = clearance_notes(active, counted(at(START)), START, end)
    assert [(note.clearance_id, note.note) for note in notes] == [
        ("never", "UNUSED"), ("ending", "UNUSED"), ("ending", "DUE"), ("theirs", "NOT_ASSESSED"),
    ]  # fmt: skip
