"""The audit service over mTLS with the real guard and a real log; only the decisions of access are told to it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from planier.audit.v1.audit_pb2 import (
    AddCosignaturesRequest,
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    GetInclusionProofRequest,
    ProveAccessRequest,
    RecordItem,
    RecordOutcome,
    RecordRequest,
    ReplayFilter,
    ReplayRequest,
    ReplayResponse,
    VerifyLogRequest,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, Receipt
from sqlalchemy import text

from services.audit import merkle
from services.audit.batch import Appended, Outcome
from services.audit.checkpoint import parse_checkpoint
from services.audit.log import AccessLog, leaf_of
from services.audit.note import NoteVerifier
from services.audit.proof import parse_proof
from services.audit.reading import MAX_ENTRIES_BYTES
from services.audit.settings import LOG_ORIGIN, AuditSettings
from services.audit.verify import verify_database
from services.audit.wiring import assemble
from services.audit.writer import LogWriter
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.errors import Problem
from services.kernel.guard.receipts import verify_receipt
from services.kernel.guard.tokens import TokenIssuer, TokenVerifier
from services.kernel.keys import create_key_pair, read_private_key
from services.kernel.rpc.client import open_channel
from services.kernel.telemetry import Telemetry
from tests.fixtures.audit import access_record, batch, items, no_events, sqlite_url
from tests.fixtures.guard import PERSON, TOKEN_KEY, Access, consultation, deny
from tests.fixtures.rpc import certificates

TIMEOUT = 20.0


@dataclass
class Service:
    """A running audit service and its callers."""

    url: str
    key: Path
    access: Access
    log: AccessLog
    internal: AuditServiceStub
    person: AuditServiceStub
    metadata: tuple[tuple[str, str], ...]

    def require(self, receipt: Receipt) -> None:
        verify_receipt(receipt, read_private_key(self.key).public_key())

    async def record(self, *records: AccessRecord) -> list[Receipt]:
        request = RecordRequest(items=[RecordItem(record_id=name, record=content) for name, content in items(records)])
        return [result.receipt for result in (await self.internal.Record(request, timeout=TIMEOUT)).results]

    async def replay(self, **fields: object) -> list[ReplayResponse]:
        request = ReplayRequest(consultation=consultation(PURPOSE_OVERSIGHT), **fields)  # type: ignore[arg-type]
        return [answer async for answer in self.person.Replay(request, timeout=TIMEOUT, metadata=self.metadata)]


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Service]:
    files = certificates(folder, "audit", "analytics", "cli")
    key = folder / "log.pem"
    create_key_pair(key, folder / "log.pub")
    issuer = TokenIssuer(TOKEN_KEY, SystemClock(), RandomIds())
    token, _ = issuer.access_token(PERSON, ["audit"])
    settings = AuditSettings(
        service="audit", certificate_file=files("audit").certificate, key_file=files("audit").key,
        ca_file=files("audit").ca, database_url=sqlite_url(folder), access_address="127.0.0.1:1", log_key_file=key,
    )  # fmt: skip
    access = Access([])
    verifier = TokenVerifier({issuer.key_id: TOKEN_KEY.public_key()}, SystemClock())
    audit = await assemble(settings, Telemetry.off(), access, verifier, no_events)
    port = await audit.server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(audit.close)
        stack.push_async_callback(audit.server.drain, 1)
        stubs = []
        for name in ("analytics", "cli"):
            channel = open_channel(f"127.0.0.1:{port}", files(name), Telemetry.off(), server_name="audit")
            stack.push_async_callback(channel.close)
            stubs.append(AuditServiceStub(channel))
        internal, person = stubs
        metadata = (("authorization", f"Bearer {token}"),)
        yield Service(settings.database_url, key, access, audit.log, internal, person, metadata)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path) as started:
        yield started


async def test_a_service_gets_receipts_that_a_client_can_prove(service: Service) -> None:
    receipts = await service.record(*[access_record(number) for number in range(1, 13)])
    answer = await service.person.GetCheckpoint(GetCheckpointRequest(), timeout=TIMEOUT)
    head = parse_checkpoint(NoteVerifier.parse(answer.verifier_key).open(answer.checkpoint))
    assert (head.size, head.root) == (12, answer.root_hash)
    for receipt in receipts:
        service.require(receipt)
        by_index = GetInclusionProofRequest(index=receipt.index)
        for request in (by_index, GetInclusionProofRequest(leaf_hash=receipt.leaf_hash)):
            proof = await service.person.GetInclusionProof(request, timeout=TIMEOUT)
            assert proof.index == receipt.index
            assert merkle.verify_inclusion(proof.index, 12, receipt.leaf_hash, proof.hashes, head.root)
    await service.record(access_record(13))
    grown = await service.person.GetConsistencyProof(GetConsistencyProofRequest(first_size=12), timeout=TIMEOUT)
    later = await service.person.GetCheckpoint(GetCheckpointRequest(), timeout=TIMEOUT)
    assert merkle.verify_consistency(12, 13, head.root, later.root_hash, grown.hashes)


async def test_each_record_of_a_request_keeps_its_own_outcome(service: Service) -> None:
    record = access_record()
    (first,) = await service.record(record)
    same, other = items([record])[0], access_record()
    request = RecordRequest(items=[
        RecordItem(record_id=same[0], record=same[1]),
        RecordItem(record_id=same[0], record=same[1] + b"\x62\x01x"),
        RecordItem(record_id=other.record_id, record=same[1]),
    ])  # fmt: skip
    results = (await service.internal.Record(request, timeout=TIMEOUT)).results
    outcomes = [RecordOutcome.Name(result.outcome).removeprefix("RECORD_OUTCOME_") for result in results]
    assert outcomes == ["RECORDED", "CONFLICT", "INVALID"]
    assert results[0].receipt == first
    assert not results[1].HasField("receipt")


async def test_only_our_services_record(service: Service) -> None:
    name, content = batch(1)[0]
    request = RecordRequest(items=[RecordItem(record_id=name, record=content)])
    with pytest.raises(Problem) as refused:
        await service.person.Record(request, timeout=TIMEOUT)
    assert refused.value.reason == "CALLER_NOT_ALLOWED"
    assert service.log.size() == 0


async def test_a_service_records_its_own_accesses_only(service: Service) -> None:
    """Or whoever holds the certificate of one service could write the history of all."""
    own, forged = access_record(1), access_record(2, rpc="/planier.ingest.v1.IngestService/DeclareFacts")
    nameless = access_record(3, rpc="")
    door = access_record(4, rpc="", kind=RecordKind.RECORD_KIND_UNAUTHENTICATED)
    request = RecordRequest(
        items=[RecordItem(record_id=name, record=content) for name, content in items([forged, own, nameless, door])]
    )
    results = (await service.internal.Record(request, timeout=TIMEOUT)).results
    outcomes = [RecordOutcome.Name(result.outcome).removeprefix("RECORD_OUTCOME_") for result in results]
    assert outcomes == ["INVALID", "RECORDED", "INVALID", "RECORDED"]
    assert [result.record_id for result in results] == [r.record_id for r in (forged, own, nameless, door)]
    assert service.log.size() == 2


async def test_concurrent_requests_share_durable_writes(service: Service) -> None:
    receipts = await asyncio.gather(*(service.record(access_record(number)) for number in range(200)))
    assert sorted(receipt.index for (receipt,) in receipts) == list(range(200))
    await asyncio.to_thread(service.log.store_checkpoint)
    with service.log.reading() as connection:
        # One checkpoint a write, and the first write had only what had come in by then.
        writes = connection.execute(text("SELECT count(*) FROM checkpoints WHERE size > 0")).scalar()
    assert writes is not None
    assert writes < 200


async def test_replay_covers_the_tree_before_its_own_record(service: Service) -> None:
    for start in (1, 651):
        await service.record(*[access_record(number) for number in range(start, start + 650)])
    answers = await service.replay()
    opening, entries = answers[0], [entry for answer in answers[1:] for entry in answer.entries]
    assert (opening.tree_size, len(opening.entries)) == (1_300, 0)
    assert [entry.index for entry in entries] == list(range(1_300))
    assert all(leaf_of(entry.salt, entry.record) == entry.leaf_hash for entry in entries)
    assert all(sum(entry.ByteSize() for entry in answer.entries) <= MAX_ENTRIES_BYTES for answer in answers)
    assert merkle.EMPTY.grow([entry.leaf_hash for entry in entries])[0].root() == opening.release.data_state.digest
    service.require(opening.release.receipt)
    assert opening.release.receipt.index == 1_300
    own = [entry for answer in (await service.replay(from_index=1_300))[1:] for entry in answer.entries]
    kinds = [AccessRecord.FromString(entry.record).kind for entry in own]
    assert kinds == [RecordKind.RECORD_KIND_STREAM_OPENED, RecordKind.RECORD_KIND_STREAM_CLOSED]


async def test_replay_filters_bounds_and_states_what_it_looked_for(service: Service) -> None:
    records = [access_record(number) for number in range(1, 6)]
    records[2].actor.subject = records[4].actor.subject = "agent-9"
    await service.record(*records)
    answers = await service.replay(filter=ReplayFilter(subject="agent-9"), limit=1)
    assert [entry.index for answer in answers for entry in answer.entries] == [2]
    (opened,) = [
        AccessRecord.FromString(entry.record)
        for answer in await service.replay(filter=ReplayFilter(record_id=answers[0].release.receipt.record_id))
        for entry in answer.entries
    ]
    assert opened.data.filters["subject"] == "agent-9"
    assert opened.data.data_state.position == 5


async def test_a_refused_look_at_the_log_is_in_the_log(service: Service) -> None:
    service.access.verdict = deny
    with pytest.raises(Problem) as refused:
        await service.replay()
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert service.log.size() == 1


async def test_verification_over_the_wire_and_offline_agree(service: Service) -> None:
    await service.record(*[access_record(number) for number in (1, 2, 4)])
    request = VerifyLogRequest(consultation=consultation(PURPOSE_OVERSIGHT))
    answer = await service.person.VerifyLog(request, timeout=TIMEOUT, metadata=service.metadata)
    assert (answer.sound, answer.tree_size, answer.root_hash) == (True, 3, service.log.root_at(3))
    assert [(hole.instance, hole.missing) for hole in answer.holes] == [("analytics-1", 1)]
    service.require(answer.release.receipt)
    offline = verify_database(service.url, read_private_key(service.key).public_key())
    assert (offline.sound, offline.tree_size) == (True, 4)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (GetInclusionProofRequest(index=3), "LEAF_NOT_FOUND"),
        (GetInclusionProofRequest(index=1, tree_size=1), "LEAF_NOT_FOUND"),
        (GetInclusionProofRequest(leaf_hash=bytes(32)), "LEAF_NOT_FOUND"),
        (GetInclusionProofRequest(index=0, tree_size=4), "SIZE_BEYOND_LOG"),
        (GetConsistencyProofRequest(first_size=3, second_size=2), "SIZES_OUT_OF_ORDER"),
        (GetConsistencyProofRequest(first_size=1, second_size=1 << 63), "SIZE_BEYOND_LOG"),
    ],
)
async def test_proofs_that_do_not_exist(
    service: Service, request_: GetInclusionProofRequest | GetConsistencyProofRequest, reason: str
) -> None:
    await service.record(*[access_record(number) for number in range(3)])
    if isinstance(request_, GetInclusionProofRequest):
        asked = service.person.GetInclusionProof(request_, timeout=TIMEOUT)
    else:
        asked = service.person.GetConsistencyProof(request_, timeout=TIMEOUT)  # type: ignore[assignment]
    with pytest.raises(Problem) as refused:
        await asked
    assert refused.value.reason == reason


async def test_an_access_is_proved_to_who_may_see_it(service: Service) -> None:
    """The proof verifies from its own bytes and the log's key; of another party's person it proves the leaf alone."""
    own, other = access_record(1), access_record(2)
    other.actor.party, other.actor.subject = "PREFECTURE", "agent-8"
    receipts = await service.record(own, other)
    verifier = NoteVerifier(LOG_ORIGIN, read_private_key(service.key).public_key())
    for record, receipt, masked in ((own, receipts[0], False), (other, receipts[1], True)):
        request = ProveAccessRequest(consultation=consultation(PURPOSE_OVERSIGHT), record_id=record.record_id)
        answer = await service.person.ProveAccess(request, timeout=TIMEOUT, metadata=service.metadata)
        service.require(answer.release.receipt)
        proof = parse_proof(answer.proof)
        assert (answer.masked, answer.index, proof.index) == (masked, receipt.index, receipt.index)
        head = parse_checkpoint(verifier.open(proof.checkpoint))
        salt, content = proof.extra[:32], proof.extra[32:]
        assert content == (b"" if masked else record.SerializeToString())
        leaf = receipt.leaf_hash if masked else leaf_of(salt, content)
        assert leaf == receipt.leaf_hash == answer.leaf_hash
        assert merkle.verify_inclusion(proof.index, head.size, leaf, proof.hashes, head.root)
    unknown = ProveAccessRequest(consultation=consultation(PURPOSE_OVERSIGHT), record_id=access_record().record_id)
    with pytest.raises(Problem) as refused:
        await service.person.ProveAccess(unknown, timeout=TIMEOUT, metadata=service.metadata)
    assert refused.value.reason == "RECORD_NOT_FOUND"


async def test_a_service_whose_log_was_taken_over_records_nothing_and_says_so(service: Service) -> None:
    await service.record(access_record(1))
    successor = AccessLog(service.url, origin=service.log.origin, key=read_private_key(service.key))
    successor.open()
    with pytest.raises(Problem) as refused:
        await service.record(access_record(2))
    assert (refused.value.reason, successor.size()) == ("RECORD_UNAVAILABLE", 1)
    successor.close()


async def test_cosignatures_of_nobody_are_refused(service: Service) -> None:
    await service.record(access_record(1))
    head = await service.person.GetCheckpoint(GetCheckpointRequest(), timeout=TIMEOUT)
    for note in ("x", head.checkpoint):
        with pytest.raises(Problem) as refused:
            await service.person.AddCosignatures(AddCosignaturesRequest(checkpoint=note), timeout=TIMEOUT)
        assert refused.value.reason == "COSIGNATURE_INVALID"


async def test_nothing_is_recorded_where_the_log_cannot_be_written(service: Service) -> None:
    with service.log.engine.begin() as connection:
        connection.execute(text("ALTER TABLE tree_runs RENAME TO lost"))
    writer = LogWriter(service.log)
    with pytest.raises(Problem) as failed:
        await writer.write(batch(2))
    await writer.close()
    assert failed.value.reason == "RECORD_UNAVAILABLE"
    assert service.log.size() == 0


async def test_requests_that_wait_share_a_write_and_each_has_its_own_results(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, append = LogWriter(service.log), service.log.append
    begun, gate, sizes = threading.Event(), threading.Event(), list[int]()

    def held(items: Sequence[tuple[str, bytes]]) -> list[Appended]:
        sizes.append(len(items))
        begun.set()
        gate.wait(10)
        return append(items)

    monkeypatch.setattr(service.log, "append", held)
    given = [batch(number) for number in (1, 1, 2, 3)]
    first = asyncio.create_task(writer.write(given[0]))
    await asyncio.to_thread(begun.wait, 10)
    others = [asyncio.create_task(writer.write(items)) for items in given[1:]]
    await asyncio.sleep(0)
    others[1].cancel()
    closing = asyncio.create_task(writer.close())
    gate.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    await closing
    assert sizes == [1, 6]
    assert isinstance(results.pop(2), asyncio.CancelledError)
    own = [[(result.record_id, result.outcome) for result in found] for found in results if isinstance(found, list)]
    assert own == [[(name, Outcome.RECORDED) for name, _ in items] for items in (given[0], given[1], given[3])]
    # Whoever gives up takes nothing back.
    assert service.log.size() == 7
    with pytest.raises(RuntimeError):
        await writer.write(batch(1))


async def test_a_write_that_fails_fails_for_all_who_shared_it_and_the_next_is_tried(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(service.log)
    with monkeypatch.context() as broken:
        broken.setattr(service.log, "append", lambda _: 1 // 0)
        failed = await asyncio.gather(*(writer.write(batch(1)) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    (result,) = await writer.write(batch(1))
    assert result.outcome is Outcome.RECORDED
    await writer.close()
