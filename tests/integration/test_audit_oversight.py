"""Who sees whom in the log, what the officers decide, what leaves: through the real guard, on a real log."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ClearanceGranted, Party, Person
from planier.audit.v1 import oversight_pb2 as pb
from planier.audit.v1.audit_pb2 import (
    RELATION_MAY_HAVE_SHOWN,
    RELATION_NAMED,
    FactSought,
    ReplayFilter,
    ReplayRequest,
)
from planier.audit.v1.governance_pb2 import Agent
from planier.audit.v1.record_pb2 import LEGAL_BASIS_LEGAL_OBLIGATION, AccessRecord, Area, Recipient
from planier.common.v1.event_pb2 import EventRun, StoredEvent
from planier.common.v1.guard_pb2 import OPERATION_DISCLOSE
from planier.common.v1.release_pb2 import (
    PURPOSE_ADMINISTRATION,
    PURPOSE_OVERSIGHT,
    PURPOSE_REFUSED_STAFF_EVALUATION,
    Purpose,
)

from services.audit.log import leaf_of
from services.kernel.clock import RandomIds
from services.kernel.errors import Problem
from tests.fixtures.guard import consultation
from tests.fixtures.oversight import ISSUER, Oversight, of_person, running

OFFICER = consultation(PURPOSE_ADMINISTRATION)
LOOK = consultation(PURPOSE_OVERSIGHT)
IDS = RandomIds()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Oversight]:
    async with running(tmp_path) as started:
        yield started


def parsed(entry: object) -> AccessRecord:
    return AccessRecord.FromString(entry.record)  # type: ignore[attr-defined]


async def test_each_party_sees_its_own_people_and_the_others_under_stable_pseudonyms(service: Oversight) -> None:
    sacha = of_person(2, "sacha", "PREFECTURE", motive="relève")
    service.append([of_person(1, "andrea", "CITY"), sacha, of_person(3, "sacha", "PREFECTURE")])
    city, first, second = (await service.replay())[:3]
    assert (parsed(city).actor.subject, city.masked, len(city.salt)) == ("andrea", False, 32)
    assert leaf_of(city.salt, city.record) == city.leaf_hash
    pseudonym = parsed(first).actor.subject
    assert pseudonym.startswith("PREFECTURE-")
    assert parsed(second).actor.subject == pseudonym
    assert parsed(first).actor.organisation == sacha.actor.organisation
    for entry in (first, second):
        assert entry.masked
        assert not entry.salt
        assert b"sacha" not in entry.SerializeToString()
        assert not parsed(entry).peer
    [own] = [entry for entry in await service.replay("prefecture-auditor") if entry.index == 1]
    assert (parsed(own).actor.subject, own.masked) == ("sacha", False)


async def test_a_filter_never_tells_who_is_behind_a_pseudonym(service: Oversight) -> None:
    service.append([of_person(1, "andrea", "CITY"), of_person(2, "sacha", "PREFECTURE")])
    assert await service.replay(filter=ReplayFilter(subject="sacha")) == []
    masked = (await service.replay())[1]
    pseudonym = parsed(masked).actor.subject
    [found] = await service.replay(filter=ReplayFilter(subject=pseudonym))
    assert found.index == 1
    [own] = await service.replay(filter=ReplayFilter(subject="andrea"))
    assert own.index == 0


async def test_an_unmasking_of_the_officer_shows_who_it_was(service: Oversight) -> None:
    service.append([of_person(1, "sacha", "PREFECTURE"), of_person(2, "alex", "PREFECTURE")])
    masked = parsed((await service.replay())[0]).actor.subject
    until = datetime.now(UTC) + timedelta(days=10)
    request = pb.DecideUnmaskingRequest(
        consultation=OFFICER, unmasking_id=IDS.new(), pseudonyms=[masked],
        beneficiary=Agent(issuer=ISSUER, subject="auditor"), reference="PV 2026-12", justification="anomalie signalée",
    )  # fmt: skip
    request.valid_until.FromDatetime(until)
    for nobody in ("dpo", "auditor"):
        with pytest.raises(Problem):
            await service.call("DecideUnmasking", request, nobody)
    await service.call("DecideUnmasking", request, "prefecture-dpo")
    first, second = (await service.replay())[:2]
    assert (parsed(first).actor.subject, first.masked) == ("sacha", False)
    assert leaf_of(first.salt, first.record) == first.leaf_hash
    assert second.masked
    # Only the beneficiary sees it, and the decision itself is a record.
    assert (await service.replay("dpo"))[0].masked
    records = [parsed(entry) for entry in await service.replay("prefecture-auditor")]
    [decided] = [
        one for one in records if one.rpc.endswith("/DecideUnmasking") and one.actor.subject == "prefecture-dpo"
    ]
    assert masked in decided.data.references
    answer = await service.call("GetGovernance", pb.GetGovernanceRequest(consultation=LOOK), "auditor")
    assert [one.reference for one in answer.unmaskings] == ["PV 2026-12"]


@pytest.mark.parametrize("method", ["Replay", "OwnAccesses", "ExportAccessEvents"])
async def test_evaluating_staff_is_refused_by_name(service: Oversight, method: str) -> None:
    wanted = consultation(PURPOSE_REFUSED_STAFF_EVALUATION)
    kind: Any = ReplayRequest if method == "Replay" else getattr(pb, f"{method}Request")
    with pytest.raises(Problem) as refused:
        await service.stream(method, kind(consultation=wanted), "auditor")
    assert (refused.value.reason, refused.value.clause) == ("PURPOSE_REFUSED", "art6.purpose")
    record = parsed((await service.replay())[0])
    assert Purpose.Name(record.purpose) == "PURPOSE_REFUSED_STAFF_EVALUATION"


async def test_reading_the_log_is_an_access_that_says_whom_it_looked_at(service: Oversight) -> None:
    service.append([of_person(1, "andrea", "CITY")])
    await service.replay(filter=ReplayFilter(subject="andrea", organisation="Police municipale"))
    look = parsed((await service.replay())[1])
    assert (look.resource, look.actor.subject) == ("access-log", "auditor")
    assert dict(look.data.filters)["subject"] == "andrea"
    # To the other party this look appears without the name that it asked for.
    [masked] = [one for one in await service.replay("prefecture-auditor") if one.index == 1]
    assert b"andrea" not in masked.record


async def test_persons_see_their_own_accesses_and_nobody_elses(service: Oversight) -> None:
    service.append([of_person(1, "city-user", "CITY"), of_person(2, "andrea", "CITY"), of_person(3, "city-user", "")])
    answers = await service.stream("OwnAccesses", pb.OwnAccessesRequest(consultation=LOOK), "city-user")
    entries = [entry for answer in answers for entry in answer.entries]
    assert [entry.index for entry in entries] == [0, 2]
    assert all(leaf_of(entry.salt, entry.record) == entry.leaf_hash for entry in entries)
    assert answers[0].HasField("release")


async def test_a_requisition_is_a_disclosure_under_a_legal_obligation(service: Oversight) -> None:
    request = pb.RecordRequisitionRequest(
        consultation=LOOK, reference="TJ-2026/118", sources=["demonstrations"], count=4,
        recipient=Recipient(organisation="Tribunal judiciaire de Marseille", capacity="JUDICIAL_AUTHORITY"),
        content_digest=bytes(32), period_start=Timestamp(seconds=1), period_end=Timestamp(seconds=2),
    )  # fmt: skip
    answer = await service.call("RecordRequisition", request, "dpo")
    record = parsed((await service.replay())[0])
    assert record.record_id == answer.release.receipt.record_id
    assert record.operation == OPERATION_DISCLOSE
    assert record.disclosure.legal_basis == LEGAL_BASIS_LEGAL_OBLIGATION
    assert record.disclosure.recipients[0].organisation == "Tribunal judiciaire de Marseille"
    assert (record.data.count, list(record.data.sources)) == (4, ["demonstrations"])
    # The vocabulary of purposes has no word for it: nobody can ask for facts "for a requisition".
    assert not any("REQUISITION" in name or "JUDICIAL" in name for name in Purpose.keys())  # noqa: SIM118 -- a wrapper, no dict
    with pytest.raises(Problem) as refused:
        await service.call("RecordRequisition", request, "auditor")
    assert refused.value.reason == "NOT_AN_OFFICER"
    [found] = await service.replay(filter=ReplayFilter(operation=OPERATION_DISCLOSE, permitted=True))
    assert found.index == 0


async def test_who_may_have_seen_a_fact_is_an_upper_bound(service: Oversight) -> None:
    def look(sequence: int, west: float, start: int, **fields: object) -> AccessRecord:
        record = of_person(sequence, "andrea", "CITY", **fields)
        record.data.sources[:] = ["demonstrations"]
        record.data.area.CopyFrom(Area(west=west, south=43.2, east=west + 0.1, north=43.4))
        record.data.period_start.seconds, record.data.period_end.seconds = start, start + 3600
        return record

    named = of_person(5, "andrea", "CITY", rpc="/planier.analytics.v1.AnalyticsService/GetFact")
    named.data.references.append("f" * 32)
    other = look(4, 5.35, 1000)
    other.data.sources[:] = ["works"]
    service.append([look(1, 5.35, 1000), look(2, 6.0, 1000), look(3, 5.35, 9000), other, named])
    fact = FactSought(
        fact_id="f" * 32, source="demonstrations", area=Area(west=5.38, south=43.3, east=5.38, north=43.3),
        period_start=Timestamp(seconds=2000), period_end=Timestamp(seconds=3000),
    )  # fmt: skip
    found = await service.replay(filter=ReplayFilter(fact=fact))
    assert [(entry.index, entry.relation) for entry in found] == [(0, RELATION_MAY_HAVE_SHOWN), (4, RELATION_NAMED)]
    only_named = await service.replay(filter=ReplayFilter(fact=FactSought(fact_id="f" * 32)))
    assert [entry.index for entry in only_named] == [4]
    area = ReplayFilter(area=Area(west=6.0, south=43.0, east=6.1, north=43.5))
    assert [entry.index for entry in await service.replay(filter=area)] == [1]


async def test_the_log_is_kept_longer_once_both_officers_said_why(service: Oversight) -> None:
    proposal = IDS.new()
    propose = pb.ProposeRetentionRequest(
        consultation=OFFICER, proposal_id=proposal, months=24, justification="contentieux en cours"
    )
    approve = pb.ApproveRetentionRequest(
        consultation=OFFICER, proposal_id=proposal, justification="même contentieux, même durée"
    )
    await service.call("ProposeRetention", propose, "dpo")
    with pytest.raises(Problem, match="OTHER_PARTY_NEEDED"):
        await service.call("ApproveRetention", approve, "dpo")
    await service.call("ApproveRetention", approve, "prefecture-dpo")
    answer = await service.call("GetGovernance", pb.GetGovernanceRequest(consultation=LOOK), "auditor")
    assert answer.retention_months == 24
    assert len(answer.proposals[0].justifications) == 2


def granted(position: int, party: Party.ValueType) -> StoredEvent:
    payload = ClearanceGranted(
        clearance_id=str(position), party=party, person=Person(given_name="Sacha", usual_name="Catalans")
    ).SerializeToString()
    salt = bytes([position]) * 32
    return StoredEvent(
        position=position, stream=f"clearance-{position}", type=ClearanceGranted.DESCRIPTOR.full_name, salt=salt,
        payload=payload, commitment=hashlib.sha256(salt + payload).digest(),
    )  # fmt: skip


async def test_access_events_are_exported_without_the_other_partys_people(service: Oversight) -> None:
    later = StoredEvent(position=3, stream="clearance-2", type="x", payload=b"about 2", salt=b"s", commitment=b"c")
    fixed = [
        StoredEvent(position=4 + place, stream=stream, type="y", payload=b"what it says", salt=b"s", commitment=b"c")
        for place, stream in enumerate(("convention", "nominative-list", "engagement-1", "of-another-version"))
    ]
    service.events.append(
        EventRun(store_id="a", events=[granted(1, PARTY_CITY), granted(2, PARTY_PREFECTURE), later, *fixed])
    )
    answers = await service.stream("ExportAccessEvents", pb.ExportAccessEventsRequest(consultation=LOOK), "auditor")
    [run] = [answer.run for answer in answers if answer.run.events]
    assert [event.HasField("payload") for event in run.events] == [True, False, False, True, False, True, False]
    assert [event.salt != b"" for event in run.events] == [True, False, False, True, False, True, False]
    assert [event.commitment for event in run.events] == [event.commitment for event in service.events[0].events]
    assert sum(answer.withheld for answer in answers) == 4
