"""The servicer: requests to orders, answers to verdicts. The guard has checked and recorded before any of it runs."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Final

from planier.audit.v1.record_pb2 import DataReference
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.common.v1.fact_pb2 import Fact
from planier.common.v1.release_pb2 import StorePosition
from planier.ingest.v1.events_pb2 import ErasureReason
from planier.ingest.v1.ingest_pb2 import (
    OUTCOME_ACCEPTED,
    OUTCOME_DUPLICATE,
    OUTCOME_REFUSED,
    AmendFactRequest,
    AmendFactResponse,
    CancelFactRequest,
    CancelFactResponse,
    DeclareFactsRequest,
    DeclareFactsResponse,
    EraseFactRequest,
    EraseFactResponse,
    FactKey,
    FieldViolation,
    GetDeclarationRequest,
    GetDeclarationResponse,
    GetHeadRequest,
    GetHeadResponse,
    StreamFactsRequest,
    StreamFactsResponse,
    Verdict,
)

from services.ingest.admission import SECURE_ENTRY, Admission, Admitted, Authority
from services.ingest.domain import Refusal, fact_id_of
from services.ingest.engine import Answer, Engine, Kept
from services.ingest.entry import measure_entry
from services.ingest.ledger import Erasure
from services.ingest.orders import Order, amending, cancelling, declaring, erasing
from services.kernel.bus.replication import read_events
from services.kernel.clock import Ids, from_microseconds
from services.kernel.errors import denied, not_found, unavailable
from services.kernel.registry import Registry
from services.kernel.rpc.call import Call
from services.kernel.screening import find_personal_data
from services.kernel.store.base import EventStore
from services.kernel.telemetry import Telemetry

# Seconds of admission before other calls have their turn: a hundred points, or part of one large shape.
_TURN: Final = 0.002
_MOST_REFERENCES: Final = 20
_SOURCE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_.:-]{0,79}")


class IngestService:
    """IngestService of protos/planier/ingest/v1/ingest.proto."""

    def __init__(
        self,
        *,
        registry: Registry,
        admission: Admission,
        engine: Engine,
        store: EventStore,
        ids: Ids,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._engine = engine
        self._store = store
        self._ids = ids
        self._telemetry = telemetry or Telemetry.off()
        self._annex_signed = False

    def open_door(self) -> None:
        """Lets declarations in: annex 1 is known to be the signed one. Until then every caller is told to come back."""
        self._annex_signed = True

    async def DeclareFacts(self, request: DeclareFactsRequest, call: Call) -> DeclareFactsResponse:
        """A verdict for each fact, in order, all durable."""
        response = DeclareFactsResponse()
        await self._declare(request, call, response, patient=False)
        return response

    async def StreamFacts(self, request: StreamFactsRequest, call: Call) -> StreamFactsResponse:
        """One batch of a stream; waits for room, so that the stream's flow control reaches the client."""
        response = StreamFactsResponse()
        await self._declare(request.batch, call, response.batch, patient=True)
        return response

    async def AmendFact(self, request: AmendFactRequest, call: Call) -> AmendFactResponse:
        """The verdict on the next revision of a fact."""
        admitted = self._admission.admit(request.fact, self._authority(call))
        if isinstance(admitted, Refusal):
            return AmendFactResponse(verdict=_refused(request.fact, admitted))
        grant = call.granted
        answer = await self._one(amending(admitted, grant.party, grant.record_id, self._ids), call)
        return AmendFactResponse(
            verdict=_verdict(admitted.fact.source_id, admitted.fact.revision, admitted.fact_id, answer)
        )

    async def CancelFact(self, request: CancelFactRequest, call: Call) -> CancelFactResponse:
        """The verdict on a cancellation, itself the next revision of the fact."""
        grant = call.granted
        fact_id = fact_id_of(request.key.source, request.key.source_id)
        answer: Answer
        owned = self._admission.owned(request.key.source, self._authority(call))
        if isinstance(owned, Refusal):
            answer = owned
        else:
            order = cancelling(fact_id, request.revision, request.reason, grant.party, grant.record_id, self._ids)
            answer = await self._one(order, call)
        return CancelFactResponse(verdict=_verdict(request.key.source_id, request.revision, fact_id, answer))

    async def EraseFact(self, request: EraseFactRequest, call: Call) -> EraseFactResponse:
        """The verdict on an erasure; once durable, no revision of the fact exists here, or can again."""
        grant = call.granted
        fact_id = fact_id_of(request.key.source, request.key.source_id)
        answer: Answer
        owned = self._admission.owned(request.key.source, self._authority(call))
        if isinstance(owned, Refusal):
            answer = owned
        else:
            erasure = Erasure(fact_id, ErasureReason.Name(request.reason), grant.party, grant.record_id)
            answer = await self._one(erasing(erasure, self._ids), call)
        return EraseFactResponse(verdict=_verdict(request.key.source_id, 0, fact_id, answer))

    async def GetDeclaration(self, request: GetDeclarationRequest, call: Call) -> GetDeclarationResponse:
        """Where the caller's own declaration stands; another authority's is as unknown as one that never was."""
        self._describe_key(request.key, call.data)
        unknown = not_found("DECLARATION_UNKNOWN", "no such declaration of yours")
        if isinstance(self._admission.owned(request.key.source, self._authority(call)), Refusal):
            raise unknown
        fact_id = fact_id_of(request.key.source, request.key.source_id)
        state = await self._engine.find(fact_id)
        if state is None or state.newest.party != call.granted.party:
            raise unknown
        newest = state.newest
        response = GetDeclarationResponse(
            fact_id=fact_id, state=newest.state, revision=newest.number, position=newest.position
        )
        response.recorded_at.FromDatetime(from_microseconds(newest.recorded_at_us))
        return response

    async def ReadEvents(self, request: ReadEventsRequest, call: Call) -> AsyncGenerator[ReadEventsResponse, None]:  # noqa: ARG002 -- the server calls it so
        """Runs of events after a cursor."""
        async for response in read_events(self._store, request):
            yield response

    async def GetHead(self, request: GetHeadRequest, call: Call) -> GetHeadResponse:  # noqa: ARG002 -- the server calls it so
        """Where the store stands, and the annex in use."""
        head = await asyncio.to_thread(self._store.head)
        position = StorePosition(store_id=head.store_id, position=head.position, digest=head.digest)
        return GetHeadResponse(head=position, annex_hash=self._registry.hash)

    def describe_DeclareFacts(self, request: DeclareFactsRequest, call: Call) -> None:
        """References for the access record."""
        self._describe(request.facts, call.data)

    def describe_StreamFacts(self, request: StreamFactsRequest, call: Call) -> None:
        """References for the access record."""
        self._describe(request.batch.facts, call.data)

    def describe_AmendFact(self, request: AmendFactRequest, call: Call) -> None:
        """References for the access record."""
        self._describe([request.fact], call.data)

    def describe_CancelFact(self, request: CancelFactRequest, call: Call) -> None:
        """References for the access record."""
        self._describe_key(request.key, call.data)

    def describe_EraseFact(self, request: EraseFactRequest, call: Call) -> None:
        """References for the access record."""
        self._describe_key(request.key, call.data)

    async def _declare(
        self, request: DeclareFactsRequest, call: Call, response: DeclareFactsResponse, *, patient: bool
    ) -> None:
        """Fills in a verdict for each fact, where it is: messages given to another are copied."""
        authority, grant = self._authority(call), call.granted
        facts = request.facts
        admissions: list[Admitted | Refusal] = []
        turn_ends = time.monotonic() + _TURN
        for fact in facts:
            if time.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN
            admissions.append(self._admission.admit(fact, authority))
        admitted = [item for item in admissions if isinstance(item, Admitted)]
        orders = declaring(admitted, grant.party, grant.record_id, self._ids)
        applied = await self._engine.apply(orders, patient=patient, traceparent=call.invocation.traceparent)
        if self._telemetry.is_on:
            measure_entry(self._telemetry, grant.party, admitted, applied)
        answers, verdicts = iter(applied), response.verdicts
        for fact, item in zip(facts, admissions, strict=True):
            if isinstance(item, Refusal):
                verdicts.append(_refused(fact, item))
                continue
            answer = next(answers)
            if isinstance(answer, Refusal):
                verdicts.append(_verdict(fact.source_id, fact.revision, item.fact_id, answer))
            else:
                verdicts.add(**_kept(fact.source_id, item.fact_id, answer))

    def _authority(self, call: Call) -> Authority:
        if not self._annex_signed:
            raise unavailable("ANNEX_UNCONFIRMED", "annex 1 has not been compared with the signed one yet")
        grant = call.granted
        if not grant.party:
            raise denied("NOT_A_DECLARANT", "no party declares under this certificate", SECURE_ENTRY)
        return Authority(grant.party, grant.sources)

    async def _one(self, order: Order, call: Call) -> Answer:
        return (await self._engine.apply([order], patient=False, traceparent=call.invocation.traceparent))[0]

    def _describe(self, facts: Sequence[Fact], data: DataReference) -> None:
        """Nothing has been validated yet: only names of annex 1 and numbers without personal data may be recorded."""
        pairs = {(fact.source, fact.kind) for fact in facts}
        known = [(source, kind) for source, kind in pairs if self._registry.kind(source, kind)]
        data.sources.extend(sorted({source for source, _ in pairs if self._registry.source(source)}))
        data.kinds.extend(sorted({kind for _, kind in known}))
        data.count = len(facts)
        data.references.extend(_references(fact.source_id for fact in facts[:_MOST_REFERENCES]))

    def _describe_key(self, key: FactKey, data: DataReference) -> None:
        if self._registry.source(key.source):
            data.sources.append(key.source)
        data.count = 1
        data.references.extend(_references([key.source_id]))


def _references(source_ids: Iterable[str]) -> list[str]:
    return [each for each in source_ids if _SOURCE_ID.fullmatch(each) and find_personal_data(each) is None]


def _refused(fact: Fact, refusal: Refusal) -> Verdict:
    # The number is given back only where it is one: an invalid field's value never is.
    echoed = fact.source_id if _SOURCE_ID.fullmatch(fact.source_id) else ""
    return _verdict(echoed, fact.revision, "", refusal)


def _verdict(source_id: str, revision: int, fact_id: str, answer: Answer) -> Verdict:
    if isinstance(answer, Refusal):
        return Verdict(
            source_id=source_id,
            revision=revision,
            outcome=OUTCOME_REFUSED,
            fact_id=fact_id,
            reason=answer.reason,
            violations=[FieldViolation(field=f, rule=r, description=d) for f, r, d in answer.violations],
            clause=answer.clause,
        )
    return Verdict(**_kept(source_id, fact_id, answer))


def _kept(source_id: str, fact_id: str, answer: Kept) -> dict[str, Any]:
    return {
        "source_id": source_id,
        "revision": answer.revision.number,
        "outcome": OUTCOME_DUPLICATE if answer.duplicate else OUTCOME_ACCEPTED,
        "fact_id": fact_id,
        "position": answer.revision.position,
    }
