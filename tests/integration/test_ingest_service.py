"""The servicer behind the real guard, over a real store: who may declare what, what is recorded, what is answered."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE
from planier.audit.v1.record_pb2 import RECORD_KIND_ATTEMPT
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.common.v1.release_pb2 import InstrumentReference
from planier.ingest.v1 import ingest_pb2 as pb
from planier.ingest.v1.events_pb2 import CANCELLATION_REASON_MISTAKE, ERASURE_REASON_PERSONAL_DATA, FactDeclared

from services.ingest.service import IngestService
from services.kernel.errors import Problem
from services.kernel.guard.options import methods_of
from services.kernel.rpc.call import Invocation
from tests.fixtures import guard as guarding
from tests.fixtures.ingest import REGISTRY, Bench, march, works

CITY_IMPORTER = "spiffe://planier/city-importer"
CORTEGE = "spiffe://planier/cortege"
DECLARER = pb.Declarer(agent_reference="agent-42")
PARTIES = {CORTEGE: (PARTY_PREFECTURE, "PREFECTURE", "convention"), CITY_IMPORTER: (PARTY_CITY, "CITY", "city-rules")}
Answer = TypeVar("Answer", bound=Message)


def verdict(item: CheckItem) -> CheckVerdict:
    party, name, instrument = PARTIES[item.subject.certificate_identity]
    decision = InstrumentDecision(
        instrument=InstrumentReference(instrument_id=instrument, version="1"),
        permit=True,
        clauses=["art4.secure_entry"],
        sources=sorted(REGISTRY.sources_of(name)),
    )
    return CheckVerdict(
        check_id=item.check_id, permit=True, instruments=[decision], clauses=["art4.secure_entry"], party=party
    )


class Door:
    """One ingest with its guard; `call` is a call as the server would make it."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(f"sqlite:///{folder}/ingest.db", folder)
        self.around = guarding.Bench(service="ingest")
        self.around.access.verdict = verdict
        self.service = IngestService(
            registry=REGISTRY,
            admission=self.bench.admission,
            engine=self.bench.engine,
            store=self.bench.store,
            ids=self.bench.ids,
        )
        self.service.open_door()

    async def call(self, name: str, request: Message, answer: type[Answer], caller: str = CITY_IMPORTER) -> Answer:
        invocation = self.around.call(name, token="", caller=caller)
        describe: Any = getattr(self.service, f"describe_{name}", None)
        data = await self.around.guard.unary(invocation, request, getattr(self.service, name), describe)
        return answer.FromString(data)

    async def declare(self, *facts: Any, caller: str = CITY_IMPORTER) -> pb.DeclareFactsResponse:
        request = pb.DeclareFactsRequest(declarer=DECLARER, facts=facts)
        return await self.call("DeclareFacts", request, pb.DeclareFactsResponse, caller)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = Door(tmp_path)
    yield made
    await made.around.guard.close()
    await made.bench.close()


async def test_a_batch_is_recorded_as_an_attempt_and_its_events_name_the_record(door: Door) -> None:
    response = await door.declare(works("W-1"), works("W-2", title="Appeler le 06 12 34 56 78"), march())
    outcomes = [(each.outcome, each.reason, each.clause) for each in response.verdicts]
    assert outcomes == [
        (pb.OUTCOME_ACCEPTED, 0, ""),
        (pb.OUTCOME_REFUSED, pb.REFUSAL_REASON_PERSONAL_DATA, "art3.anonymised"),
        (pb.OUTCOME_REFUSED, pb.REFUSAL_REASON_NOT_YOUR_SOURCE, "art4.secure_entry"),
    ]
    record = door.around.log.records[0]
    assert record.kind == RECORD_KIND_ATTEMPT
    assert record.actor.agent_reference == "agent-42"
    assert (list(record.data.sources), record.data.count) == (["demonstrations", "works"], 3)
    assert list(record.data.references) == ["W-1", "W-2", "M-1"]
    assert b"06 12" not in record.SerializeToString()
    event = door.bench.store.read_all(0, 10)[0]
    assert event.payload is not None
    assert FactDeclared.FromString(event.payload).record_id == record.record_id == response.release.receipt.record_id
    assert b"agent-42" not in event.payload


async def test_what_a_request_says_wrongly_never_reaches_the_record(door: Door) -> None:
    fact = works("jean.dupont@exemple.fr")
    fact.source, fact.kind = "Jean", "DUPONT"
    response = await door.declare(fact)
    assert response.verdicts[0].reason == pb.REFUSAL_REASON_INVALID
    for data in (door.around.log.records[0].SerializeToString(), response.SerializeToString()):
        assert b"dupont" not in data.lower()


async def test_a_stream_answers_as_a_unary_call_does(door: Door) -> None:
    request = pb.StreamFactsRequest(batch=pb.DeclareFactsRequest(declarer=DECLARER, facts=[works()]))
    first = await door.call("StreamFacts", request, pb.StreamFactsResponse)
    again = await door.call("StreamFacts", request, pb.StreamFactsResponse)
    assert [first.batch.verdicts[0].outcome, again.batch.verdicts[0].outcome] == [1, 2]
    assert first.batch.verdicts[0].position == again.batch.verdicts[0].position == 1
    assert first.release.receipt.record_id != again.release.receipt.record_id


async def test_the_life_of_a_fact(door: Door) -> None:
    key = pb.FactKey(source="works", source_id="W-1")
    asking = pb.GetDeclarationRequest(declarer=DECLARER, key=key)
    await door.declare(works())
    amended = await door.call(
        "AmendFact", pb.AmendFactRequest(declarer=DECLARER, fact=works(revision=2, title="Deux")), pb.AmendFactResponse
    )
    assert (amended.verdict.outcome, amended.verdict.revision) == (pb.OUTCOME_ACCEPTED, 2)
    cancelling = pb.CancelFactRequest(declarer=DECLARER, key=key, revision=3, reason=CANCELLATION_REASON_MISTAKE)
    cancelled = await door.call("CancelFact", cancelling, pb.CancelFactResponse)
    assert cancelled.verdict.outcome == pb.OUTCOME_ACCEPTED
    state = await door.call("GetDeclaration", asking, pb.GetDeclarationResponse)
    assert (state.state, state.revision, state.position) == (pb.DECLARATION_STATE_CANCELLED, 3, 3)
    erasing = pb.EraseFactRequest(declarer=DECLARER, key=key, reason=ERASURE_REASON_PERSONAL_DATA)
    assert (await door.call("EraseFact", erasing, pb.EraseFactResponse)).verdict.outcome == pb.OUTCOME_ACCEPTED
    state = await door.call("GetDeclaration", asking, pb.GetDeclarationResponse)
    assert state.state == pb.DECLARATION_STATE_ERASED
    assert (await door.declare(works())).verdicts[0].reason == pb.REFUSAL_REASON_ERASED


@pytest.mark.parametrize("name", ["CancelFact", "EraseFact"])
async def test_nobody_ends_the_facts_of_another(door: Door, name: str) -> None:
    await door.declare(works())
    key = pb.FactKey(source="works", source_id="W-1")
    request: Message
    if name == "CancelFact":
        request = pb.CancelFactRequest(declarer=DECLARER, key=key, revision=2, reason=CANCELLATION_REASON_MISTAKE)
        refused = (await door.call(name, request, pb.CancelFactResponse, CORTEGE)).verdict
    else:
        request = pb.EraseFactRequest(declarer=DECLARER, key=key, reason=ERASURE_REASON_PERSONAL_DATA)
        refused = (await door.call(name, request, pb.EraseFactResponse, CORTEGE)).verdict
    assert refused.reason == pb.REFUSAL_REASON_NOT_YOUR_SOURCE
    assert door.bench.store.head().position == 1


async def test_another_authority_cannot_tell_a_declaration_from_none(door: Door) -> None:
    await door.declare(works())
    problems = []
    for source_id in ("W-1", "W-none"):
        key = pb.FactKey(source="works", source_id=source_id)
        with pytest.raises(Problem) as caught:
            await door.call(
                "GetDeclaration",
                pb.GetDeclarationRequest(declarer=DECLARER, key=key),
                pb.GetDeclarationResponse,
                CORTEGE,
            )
        problems.append((caught.value.code, caught.value.message, caught.value.clause, caught.value.violations))
        assert caught.value.reason == "DECLARATION_UNKNOWN"
    assert problems[0] == problems[1]


async def test_nothing_is_declared_before_the_annex_is_known_to_be_the_signed_one(door: Door) -> None:
    door.service._annex_signed = False
    with pytest.raises(Problem, match="ANNEX_UNCONFIRMED"):
        await door.declare(works())
    assert door.bench.store.head().position == 0


async def test_analytics_reads_events_and_anybody_the_head(door: Door) -> None:
    await door.declare(works())
    invocation = door.around.call("GetHead", token="", caller=CORTEGE)
    head = pb.GetHeadResponse.FromString(
        await door.around.guard.unary(invocation, pb.GetHeadRequest(), door.service.GetHead)
    )
    assert (head.head.position, head.annex_hash) == (1, REGISTRY.hash)
    reading = [
        ReadEventsResponse.FromString(data)
        async for data in door.around.guard.stream(
            _read_events("spiffe://planier/analytics"), ReadEventsRequest(), door.service.ReadEvents
        )
    ]
    assert reading[0].run.digest == head.head.digest
    assert reading[-1].caught_up
    with pytest.raises(Problem, match="CALLER_NOT_ALLOWED"):
        async for _ in door.around.guard.stream(_read_events(CORTEGE), ReadEventsRequest(), door.service.ReadEvents):
            pass


def _read_events(caller: str) -> Invocation:
    # Two services have a method of this name.
    methods = {method.name: method for method in methods_of(pb.DESCRIPTOR.services_by_name["IngestService"])}
    return Invocation(methods["ReadEvents"], "ipv4:127.0.0.1:1", caller, "", "", "")
