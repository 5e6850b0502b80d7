"""The audit servicer: records in, proofs out, replay and verification through the guard."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.audit.v1.audit_pb2 import (
    GetCheckpointRequest,
    GetCheckpointResponse,
    GetConsistencyProofRequest,
    GetConsistencyProofResponse,
    GetInclusionProofRequest,
    GetInclusionProofResponse,
    LogFault,
    RecordOutcome,
    RecordRequest,
    RecordResponse,
    RecordResult,
    ReplayEntry,
    ReplayRequest,
    ReplayResponse,
    SequenceHole,
    StreamRecordsRequest,
    StreamRecordsResponse,
    VerifyLogRequest,
    VerifyLogResponse,
)

from services.audit.entry import is_of_service
from services.audit.log import AccessLog, Appended, Outcome
from services.audit.receipt import ReceiptSigner
from services.audit.replay import Span, described, in_messages, read_page
from services.audit.verify import VerifyReport, verify_log
from services.audit.writer import LogWriter
from services.kernel.errors import invalid, not_found
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position

# A message of replay, without its envelope.
MAX_ENTRIES_BYTES = 256 * 1024 - 64
# Above this, receipts are signed off the event loop (20 µs each).
_SIGN_HERE = 8
_OUTCOMES = {
    Outcome.RECORDED: RecordOutcome.RECORD_OUTCOME_RECORDED,
    Outcome.CONFLICT: RecordOutcome.RECORD_OUTCOME_CONFLICT,
    Outcome.INVALID: RecordOutcome.RECORD_OUTCOME_INVALID,
}

_log = logging.getLogger(__name__)


class AuditServicer:
    """The RPCs of planier.audit.v1.AuditService, over one log."""

    def __init__(self, log: AccessLog, writer: LogWriter, signer: ReceiptSigner, public_key: Ed25519PublicKey) -> None:
        self._log = log
        self._writer = writer
        self._signer = signer
        self._public_key = public_key

    async def Record(self, request: RecordRequest, call: Call) -> RecordResponse:
        """Each record's receipt or refusal, in order; concurrent requests share one durable write.

        A service records its own accesses only: a record of another's is INVALID, whoever the log would have believed.
        """
        caller = call.invocation.caller.rpartition("/")[2]
        strange = {place for place, item in enumerate(request.items) if not is_of_service(item.record, caller)}
        if strange:
            _log.error("a service recorded another's access", extra={"caller": caller, "records": len(strange)})
        own = [(item.record_id, item.record) for place, item in enumerate(request.items) if place not in strange]
        written = iter(await self._writer.write(own) if own else ())
        results = [
            Appended(Outcome.INVALID, item.record_id) if place in strange else next(written)
            for place, item in enumerate(request.items)
        ]
        if len(results) <= _SIGN_HERE:
            return self._answer(results)
        return await asyncio.to_thread(self._answer, results)

    async def StreamRecords(self, request: StreamRecordsRequest, call: Call) -> StreamRecordsResponse:
        """One batch of a stream, recorded as `Record` records it."""
        return StreamRecordsResponse(batch=await self.Record(request.batch, call))

    async def Replay(self, request: ReplayRequest, call: Call) -> AsyncGenerator[ReplayResponse, None]:
        """The records that pass the filter, in order, of the tree as it was before this look's own record."""
        # The guard takes the first message before it records the opening, so this size cannot count it.
        size, root = await asyncio.to_thread(self._state)
        first, limit = min(request.from_index, size), min(request.limit, size)
        call.data_position = Position(self._log.origin, size, root)
        call.data.count = min(size - first, limit or size)
        described(request.filter, call.data)
        yield ReplayResponse(tree_size=size)
        sent, wanted = 0, request.filter
        while first < size and (not limit or sent < limit):
            span = Span(first, size, limit - sent if limit else 0)
            entries = await asyncio.to_thread(self._page, request, span)
            if not entries:
                break
            for run in in_messages(entries, MAX_ENTRIES_BYTES):
                sent += len(run)
                call.data.count = sent
                yield ReplayResponse(entries=run, tree_size=size)
            first = entries[-1].index + 1
            if wanted.record_id:
                break

    async def VerifyLog(self, request: VerifyLogRequest, call: Call) -> VerifyLogResponse:  # noqa: ARG002 -- the server calls it so
        """Everything recomputed from the stored bytes, up to the present size."""
        size, _ = await asyncio.to_thread(self._state)
        report = await asyncio.to_thread(self._verify, size)
        call.data_position = Position(self._log.origin, report.tree_size, report.root)
        call.data.count = report.tree_size
        return VerifyLogResponse(
            sound=report.sound,
            tree_size=report.tree_size,
            root_hash=report.root,
            erased=report.erased,
            faults=[LogFault(index=fault.index, fault=fault.fault) for fault in report.faults],
            holes=[SequenceHole(instance=name, missing=count) for name, count in sorted(report.holes.items())],
        )

    async def GetCheckpoint(self, request: GetCheckpointRequest, _: Call) -> GetCheckpointResponse:  # noqa: ARG002 -- the server calls it so
        """The newest signed head."""
        head = await asyncio.to_thread(self._log.head)
        return GetCheckpointResponse(
            checkpoint=head.note,
            tree_size=head.checkpoint.size,
            root_hash=head.checkpoint.root,
            verifier_key=self._log.verifier.text(),
        )

    async def GetInclusionProof(self, request: GetInclusionProofRequest, _: Call) -> GetInclusionProofResponse:
        """Proof that a leaf is in a tree that the log has reached."""
        return await asyncio.to_thread(self._inclusion, request)

    async def GetConsistencyProof(self, request: GetConsistencyProofRequest, _: Call) -> GetConsistencyProofResponse:
        """Proof that a tree extends an earlier one."""
        return await asyncio.to_thread(self._consistency, request)

    def _answer(self, results: Sequence[Appended]) -> RecordResponse:
        return RecordResponse(results=[self._result(result) for result in results])

    def _result(self, result: Appended) -> RecordResult:
        outcome = _OUTCOMES[result.outcome]
        if result.outcome is not Outcome.RECORDED:
            return RecordResult(record_id=result.record_id, outcome=outcome)
        receipt = self._signer.sign(result.record_id, result.log_index, result.leaf_hash)
        return RecordResult(record_id=result.record_id, outcome=outcome, receipt=receipt)

    def _state(self) -> tuple[int, bytes]:
        frontier = self._log.frontier()
        return frontier.size, frontier.root()

    def _page(self, request: ReplayRequest, span: Span) -> list[ReplayEntry]:
        with self._log.reading() as connection:
            return read_page(connection, request.filter, span)

    def _verify(self, size: int) -> VerifyReport:
        with self._log.reading() as connection:
            return verify_log(connection, self._public_key, size)

    def _inclusion(self, request: GetInclusionProofRequest) -> GetInclusionProofResponse:
        size = self._size(request.tree_size)
        if request.WhichOneof("target") == "leaf_hash":
            found = self._log.index_of_leaf(request.leaf_hash)
            if found is None:
                raise not_found("LEAF_NOT_FOUND", "not among the newest leaves: ask by index, as the receipt states it")
            index = found
        else:
            index = request.index
        if index >= size:
            raise not_found("LEAF_NOT_FOUND", "the tree of that size has no such leaf")
        proof = self._log.inclusion_proof(index, size)
        return GetInclusionProofResponse(index=index, tree_size=size, hashes=proof)

    def _consistency(self, request: GetConsistencyProofRequest) -> GetConsistencyProofResponse:
        size = self._size(request.second_size)
        if request.first_size > size:
            raise invalid("SIZES_OUT_OF_ORDER", "the first size is greater than the second")
        proof = self._log.consistency_proof(request.first_size, size)
        return GetConsistencyProofResponse(first_size=request.first_size, second_size=size, hashes=proof)

    def _size(self, asked: int) -> int:
        size = self._log.size()
        if asked > size:
            raise invalid("SIZE_BEYOND_LOG", "the log has not reached that size")
        return asked or size
