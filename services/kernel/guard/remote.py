"""Check and Record over gRPC: whatever is asked at the same time shares one message, each item keeps its own verdict.

A message costs hundreds of microseconds, an item in it under 1 µs.
"""

import asyncio
from collections.abc import Sequence

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.access.v1.access_pb2 import (
    CheckItem,
    GetCommitmentsRequest,
    StreamChecksRequest,
    StreamChecksResponse,
)
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.audit.v1.audit_pb2 import (
    RECORD_OUTCOME_CONFLICT,
    RECORD_OUTCOME_INVALID,
    RECORD_OUTCOME_RECORDED,
    RecordItem,
    RecordResult,
    StreamRecordsRequest,
    StreamRecordsResponse,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt

from services.kernel.batching import Batcher
from services.kernel.errors import Problem, unavailable
from services.kernel.guard.ports import Decision
from services.kernel.guard.receipts import is_receipt_of
from services.kernel.guard.records import record_unavailable
from services.kernel.rpc.exchange import Exchange
from services.kernel.telemetry import Telemetry

CHECK_SECONDS = 1.0
RECORD_SECONDS = 5.0
# Of the 5 s, so that a message lost on the way leaves time to send the same bytes again.
RECORD_ATTEMPT_SECONDS = 2.0
RETRY_PAUSE_SECONDS = 0.05
# 120 of the largest stay under gRPC's 4 MiB a message: a large record never spoils its neighbours.
MAX_RECORD_BYTES = 32_768
MAX_RECORDS = 120
MAX_CHECKS = 500


class RemoteChecker:
    """Checks with the access service: all concurrent items in one message, an answer within 1 s or none."""

    def __init__(self, channel: grpc.aio.Channel, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or Telemetry.off()
        self._exchange: Exchange[StreamChecksResponse] = Exchange(
            "/planier.access.v1.AccessService/StreamChecks", AccessServiceStub(channel).StreamChecks, self._telemetry
        )
        self._batcher: Batcher[CheckItem, Decision] = Batcher(self._send, max_items=MAX_CHECKS)

    async def check(self, item: CheckItem) -> Decision:
        """The decision of access on the item; anything else is CHECK_UNAVAILABLE."""
        try:
            # Whoever waits behind a batch that is late has the guard's own second (Admitter.check).
            return await self._batcher.submit(item)
        except Exception as error:
            raise unavailable("CHECK_UNAVAILABLE", "the decision could not be obtained") from error

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._batcher.close()
        self._exchange.close()

    async def _send(self, items: Sequence[CheckItem]) -> Sequence[Decision | Exception]:
        self._telemetry.measure("planier.batch.size", len(items), method="Check")
        request = StreamChecksRequest()
        request.batch.items.extend(items)
        response = (await self._exchange.ask(request, CHECK_SECONDS)).batch
        verdicts = {verdict.check_id: verdict for verdict in response.verdicts}
        if len(verdicts) != len(response.verdicts):
            return [LookupError("access answered one item twice")] * len(items)
        rests_on = (response.state, response.policy_hash, response.engine, response.time_zone_data)
        found = [verdicts.get(item.check_id) for item in items]
        return [
            LookupError("access left this item without a verdict") if one is None else Decision(one, *rests_on)
            for one in found
        ]


class RemoteRecorder:
    """Records with the audit service: one message carries all concurrent records; 5 s, the same bytes tried again."""

    def __init__(self, channel: grpc.aio.Channel, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or Telemetry.off()
        self._exchange: Exchange[StreamRecordsResponse] = Exchange(
            "/planier.audit.v1.AuditService/StreamRecords", AuditServiceStub(channel).StreamRecords, self._telemetry
        )
        self._batcher: Batcher[RecordItem, Receipt] = Batcher(self._send, max_items=MAX_RECORDS)

    async def record(self, record: AccessRecord) -> Receipt:
        """The log's receipt; serialised once, so that every attempt carries the same bytes under the same id."""
        item = RecordItem(record_id=record.record_id, record=record.SerializeToString(deterministic=True))
        if len(item.record) > MAX_RECORD_BYTES:
            raise record_unavailable()
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                return await self._until_known(item)
        except Exception as error:
            if isinstance(error, Problem) and error.reason == "RECORD_REFUSED":
                raise
            raise record_unavailable() from error

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._batcher.close()
        self._exchange.close()

    async def _until_known(self, item: RecordItem) -> Receipt:
        pause = RETRY_PAUSE_SECONDS
        # Ends with the caller's deadline or after RECORD_SECONDS; the log is idempotent by id and bytes.
        while True:
            try:
                return await self._batcher.submit(item)
            except Exception as error:
                if not _may_pass(error):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _send(self, items: Sequence[RecordItem]) -> Sequence[Receipt | Exception]:
        self._telemetry.measure("planier.batch.size", len(items), method="Record")
        request = StreamRecordsRequest()
        request.batch.items.extend(items)
        response = (await self._exchange.ask(request, RECORD_ATTEMPT_SECONDS)).batch
        if len(response.results) != len(items):
            return [LookupError("audit answered another number of records") for _ in items]
        return [_receipt(item, result) for item, result in zip(items, response.results, strict=True)]


class KeyLoader:
    """Loads the public keys of token issuers from access; a service may thus start before access does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = AccessServiceStub(channel)

    async def __call__(self) -> dict[str, Ed25519PublicKey]:
        """The keys in force, by key id.

        Raises:
            Problem: UNAVAILABLE KEYS_UNAVAILABLE.
        """
        try:
            response = await self._stub.GetCommitments(GetCommitmentsRequest(), timeout=CHECK_SECONDS)
            return {key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key) for key in response.token_keys}
        except Exception as error:
            raise unavailable("KEYS_UNAVAILABLE", "the token keys could not be loaded") from error


def _receipt(item: RecordItem, result: RecordResult) -> Receipt | Exception:
    if result.outcome in (RECORD_OUTCOME_CONFLICT, RECORD_OUTCOME_INVALID):
        return Problem(grpc.StatusCode.INTERNAL, "RECORD_REFUSED", "the access log refused the record")
    if (
        result.outcome != RECORD_OUTCOME_RECORDED
        or result.record_id != item.record_id
        or not result.HasField("receipt")
    ):
        return LookupError("audit answered without this record's receipt")
    if not is_receipt_of(result.receipt, item.record_id):
        return LookupError("audit answered with another record's receipt")
    return result.receipt


def _may_pass(error: Exception) -> bool:
    """Whether the same bytes may be taken a moment later: the log was unreachable, or too slow to answer."""
    passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if isinstance(error, Problem):
        return error.code in passing
    return isinstance(error, grpc.RpcError) and isinstance(error, grpc.aio.AioRpcError) and error.code() in passing
