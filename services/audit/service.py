"""The audit servicer: records in, proofs out, replay and verification through the guard."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.audit.v1.audit_pb2 import (
    AddCosignaturesRequest,
    AddCosignaturesResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    GetConsistencyProofRequest,
    GetConsistencyProofResponse,
    GetInclusionProofRequest,
    GetInclusionProofResponse,
    LogFault,
    ProveAccessRequest,
    ProveAccessResponse,
    RecordRequest,
    RecordResponse,
    ReplayRequest,
    ReplayResponse,
    SequenceHole,
    StreamRecordsRequest,
    StreamRecordsResponse,
    VerifyLogRequest,
    VerifyLogResponse,
    WitnessStanding,
)

from services.audit.cosigning import Cosigning
from services.audit.log import AccessLog
from services.audit.note import NoteError
from services.audit.proving import find, prove
from services.audit.publication import Publication
from services.audit.reading import LogReader
from services.audit.recording import Recording, recognise
from services.audit.replay import described
from services.audit.verify import VerifyReport, verify_log
from services.audit.witnesses import PartyWitness
from services.kernel.errors import invalid, not_found
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position
from services.kernel.traces import MOST_TOGETHER

# How long a proof waits for the witnesses before it goes without them.
WITNESSED_WITHIN = 2.0


class AuditServicer:
    """The RPCs of planier.audit.v1.AuditService, over one log."""

    def __init__(
        self,
        log: AccessLog,
        recording: Recording,
        public_key: Ed25519PublicKey,
        reader: LogReader,
        *,
        witnesses: Sequence[PartyWitness] = (),
        cosigning: Cosigning | None = None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._recording = recording
        self._public_key = public_key
        self._witnesses = witnesses
        self._publication = Publication(log, [witness.cosigner for witness in witnesses])
        self._cosigning = cosigning

    async def Record(self, request: RecordRequest, call: Call) -> RecordResponse:
        """Each record's receipt or refusal, in order."""
        answer = RecordResponse()
        await self._recording.record(request.items, _service(call), answer)
        return answer

    def recognise_Record(self, request: RecordRequest) -> bool:
        """Whether a batch surely keeps its contract's rules."""
        return recognise(request.items)

    async def StreamRecords(self, request: StreamRecordsRequest, call: Call) -> StreamRecordsResponse:
        """One batch of a stream, recorded as `Record` records it."""
        answer = StreamRecordsResponse()
        await self._recording.record(request.batch.items, _service(call), answer.batch)
        return answer

    def recognise_StreamRecords(self, request: StreamRecordsRequest) -> bool:
        """The same of a batch of a stream."""
        return recognise(request.batch.items) and len(request.traceparents) <= MOST_TOGETHER

    async def Replay(self, request: ReplayRequest, call: Call) -> AsyncGenerator[ReplayResponse, None]:
        """The records that pass the filter, in order, of the tree as it was before this look's own record."""
        described(request.filter, call.data)
        size, pages = await self._reader.open(call, request.filter, request.from_index, request.limit)
        yield ReplayResponse(tree_size=size)
        async for entries in pages:
            yield ReplayResponse(entries=entries, tree_size=size)

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
        """The newest signed head, what it lacks of cosignatures, and the newest that lacks none."""
        return await asyncio.to_thread(self._checkpoint)

    async def AddCosignatures(self, request: AddCosignaturesRequest, _: Call) -> AddCosignaturesResponse:
        """Keeps what a witness of this log signed elsewhere."""
        try:
            checkpoint, names = await asyncio.to_thread(self._publication.accept, request.checkpoint)
        except NoteError as error:
            raise invalid("COSIGNATURE_INVALID", str(error)) from error
        return AddCosignaturesResponse(tree_size=checkpoint.size, cosigned_by=names)

    async def ProveAccess(self, request: ProveAccessRequest, call: Call) -> ProveAccessResponse:
        """Proof of one access, under a witnessed head if one comes to cover it within 2 s."""
        held = await asyncio.to_thread(find, self._publication, request.record_id)
        call.data.filters["record_id"] = request.record_id
        if held is None:
            raise not_found("RECORD_NOT_FOUND", "the log has no record of that id")
        call.data.count = 1
        await self._until_witnessed(held.index)
        self._reader.require(held.index)
        masked = held.record is not None and (await self._reader.mask(call)).hides(held.record)
        found = await asyncio.to_thread(prove, self._publication, held, content=not masked)
        return ProveAccessResponse(
            index=held.index,
            proof=found.proof.text(),
            leaf_hash=held.leaf_hash,
            not_cosigned_by=found.missing,
            hand_overs=await asyncio.to_thread(self._publication.hand_overs),
            erased=held.record is None,
            masked=masked,
        )

    async def GetInclusionProof(self, request: GetInclusionProofRequest, _: Call) -> GetInclusionProofResponse:
        """Proof that a leaf is in a tree that the log has reached."""
        return await asyncio.to_thread(self._inclusion, request)

    async def GetConsistencyProof(self, request: GetConsistencyProofRequest, _: Call) -> GetConsistencyProofResponse:
        """Proof that a tree extends an earlier one."""
        return await asyncio.to_thread(self._consistency, request)

    async def _until_witnessed(self, index: int) -> None:
        if self._cosigning is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WITNESSED_WITHIN
        while True:
            signed = self._cosigning.signed
            if self._cosigning.witnessed > index:
                return
            try:
                await asyncio.wait_for(signed.wait(), max(0.0, deadline - loop.time()))
            except TimeoutError:
                return

    def _checkpoint(self) -> GetCheckpointResponse:
        published, witnessed = self._publication.newest(), self._publication.witnessed()
        head = published.head.checkpoint
        serving = [witness.cosigner for witness in self._witnesses if witness.url]
        by_file = len(serving) < len(self._witnesses)
        # Where nobody has a server there is no head that anybody has cosigned before.
        offered = (self._publication.cosigned_by(serving) if serving else published) if by_file else None
        return GetCheckpointResponse(
            checkpoint=published.note,
            tree_size=head.size,
            root_hash=head.root,
            verifier_key=self._log.verifier.text(),
            not_cosigned_by=published.missing,
            witnessed_checkpoint=witnessed.note if witnessed is not None else "",
            witnesses=[self._standing(witness) for witness in self._witnesses],
            hand_overs=self._publication.hand_overs(),
            offered_checkpoint=offered.note if offered is not None else "",
        )

    def _standing(self, witness: PartyWitness) -> WitnessStanding:
        return WitnessStanding(
            party=witness.party,
            verifier_key=witness.cosigner.text(),
            cosigned_size=self._publication.cosigned_size(witness.cosigner),
            by_file=not witness.url,
        )

    def _state(self) -> tuple[int, bytes]:
        frontier = self._log.frontier()
        return frontier.size, frontier.root()

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
        self._reader.require(index)
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


def _service(call: Call) -> str:
    """The name of the calling service, of its certificate's identity."""
    return call.invocation.caller.rpartition("/")[2]
