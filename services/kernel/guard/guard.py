"""The one way in: nothing reaches a person before the access that releases it is durably recorded (five rules, rule 1).

A RELEASE that reads: authenticate, check, query, record, release. One that writes: authenticate, check, record, write,
acknowledge. A refusal: record, then refuse. INTERNAL and COMMITMENT release no fact to anybody and are not recorded.
"""

import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import Message
from planier.audit.v1.record_pb2 import RECORD_KIND_ATTEMPT, RECORD_KIND_REFUSAL, RECORD_KIND_RELEASE, AccessRecord
from planier.common.v1.guard_pb2 import GUARD_CLASS_COMMITMENT, GUARD_CLASS_INTERNAL, GUARD_CLASS_RELEASE
from planier.common.v1.release_pb2 import Receipt

from services.kernel.clock import Clock, Ids
from services.kernel.errors import Problem, denied, unauthenticated
from services.kernel.guard.admission import Admission, Admitter
from services.kernel.guard.early import EarlyRead, Handler
from services.kernel.guard.options import READS
from services.kernel.guard.peers import Attempts
from services.kernel.guard.ports import Checker, Recorder
from services.kernel.guard.records import Ledger, Monotonic, describe_data
from services.kernel.guard.release import marked, serialised
from services.kernel.guard.streams import Pace, StreamHandler, Streams
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.rpc.call import Call, Invocation
from services.kernel.telemetry import Telemetry

# Reads under way up to which one's query begins while its check is asked for. With more of them the processors have
# enough to do: beginning early would then cost a task and gain nothing.
MOST_EARLY = 4

Describe = Callable[[Any, Call], Awaitable[None] | None]

# The handler's own refusals; what failed for another reason was an attempt and stays one.
_REFUSING = frozenset(
    (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
    )
)
_SPIFFE = "spiffe://planier/"


class Guard:
    """Guards every method of one service process, by the option on each RPC."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        checker: Checker,
        recorder: Recorder,
        verifier: TokenVerifier,
        clock: Clock,
        ids: Ids,
        screen_motive: Callable[[str], str | None],
        telemetry: Telemetry,
        monotonic: Monotonic = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self._ledger = Ledger(recorder, instance, clock, ids, telemetry)
        # Also where the TLS door counts its failed handshakes: `guard.attempts.count(peer, reason)`.
        self.attempts = Attempts(self._ledger, clock, ids)
        self._admitter = Admitter(
            service=service,
            checker=checker,
            ledger=self._ledger,
            verifier=verifier,
            attempts=self.attempts,
            clock=clock,
            ids=ids,
            screen_motive=screen_motive,
            telemetry=telemetry,
            monotonic=monotonic,
        )
        self._reads = 0
        self._streams = Streams(self._admitter, self._ledger, clock, ids, monotonic, pace or Pace())

    async def unary(
        self, invocation: Invocation, request: Message, handler: Handler, describe: Describe | None = None
    ) -> bytes:
        """The serialised answer to one request, its release mark included; one message of a bidirectional stream alike.

        Raises:
            Problem: refused, or not to be had; the refusals of known callers are recorded by then.
        """
        option = invocation.method.option
        if option.guard_class != GUARD_CLASS_RELEASE:
            _let_in(invocation)
            return (await handler(request, Call(invocation))).SerializeToString()
        if option.operation in READS:
            read = EarlyRead(invocation, request, handler)
            self._reads += 1
            try:
                return await self._read(invocation, request, read)
            finally:
                self._reads -= 1
                read.drop()
        admission = await self._admitter.admit(invocation, request)
        return await self._write(invocation, request, handler, describe, admission)

    def stream(self, invocation: Invocation, request: Message, handler: StreamHandler) -> AsyncGenerator[bytes, None]:
        """The serialised answers of a server-streaming method; the first bears the mark. Close it when done with it.

        Raises:
            Problem: when iterated: refused at the opening; or closed, because access says no or cannot be asked.
        """
        if invocation.method.option.guard_class == GUARD_CLASS_RELEASE:
            return self._streams.serve(invocation, request, handler)
        return _serialise_each(invocation, request, handler)

    async def record_own(self, record: AccessRecord) -> Receipt:
        """Numbers and records what this service does by itself, before it does it: an erasure at the end of its time.

        Raises:
            Problem: RECORD_UNAVAILABLE or RECORD_REFUSED: then it must not be done.
        """
        return await self._ledger.write(record)

    async def close(self) -> None:
        """Closes open streams and records what is still to be recorded; nothing is served afterwards."""
        await self._streams.close()
        await self.attempts.close()

    async def _read(self, invocation: Invocation, request: Message, read: EarlyRead) -> bytes:
        begin = read.begin if self._reads <= MOST_EARLY else None
        admission = await self._admitter.admit(invocation, request, begin)
        call = read.call(admission.grant)
        record = admission.record
        try:
            body = serialised(invocation.method, await read.answer(call))
            await self._admitter.renew(admission)
        except Exception as error:
            # Looking for what is not there is a look.
            describe_data(record, call.data, call.data_position, call.disclosure)
            await self._ledger.refuse(record, error)
            raise
        describe_data(record, call.data, call.data_position, call.disclosure)
        record.data.response_digest = hashlib.sha256(body).digest()
        record.kind = RECORD_KIND_RELEASE
        receipt = await self._ledger.write(record)
        await self._admitter.require_fresh(admission)
        return body + marked(invocation.method, receipt, record, call.data_position)

    async def _write(
        self,
        invocation: Invocation,
        request: Message,
        handler: Handler,
        describe: Describe | None,
        admission: Admission,
    ) -> bytes:
        call = Call(invocation, admission.grant)
        record = admission.record
        try:
            if describe is not None and (waiting := describe(request, call)) is not None:
                await waiting
        except Exception as error:
            await self._ledger.refuse(record, error)
            raise
        describe_data(record, call.data, call.data_position, call.disclosure)
        record.kind = RECORD_KIND_ATTEMPT
        receipt = await self._ledger.write(record)
        # A write's permit is used when it begins; its acknowledgement only states what is then done.
        await self._admitter.require_fresh(admission)
        try:
            body = serialised(invocation.method, await handler(request, call))
        except Problem as problem:
            if problem.code not in _REFUSING:
                raise
            following = self._ledger.continuing(record, RECORD_KIND_REFUSAL)
            await self._ledger.refuse(following, problem)
            raise
        return body + marked(invocation.method, receipt, record, call.data_position)


def _let_in(invocation: Invocation) -> None:
    option = invocation.method.option
    if option.guard_class == GUARD_CLASS_INTERNAL:
        name = invocation.caller.removeprefix(_SPIFFE)
        if not invocation.caller.startswith(_SPIFFE) or name not in option.callers:
            raise denied("CALLER_NOT_ALLOWED", "only our own services may call this", "art6.secure_access")
    elif option.guard_class != GUARD_CLASS_COMMITMENT:
        raise denied("CALLER_NOT_ALLOWED", "this method has no guard class", "default.deny")
    elif not invocation.caller:
        raise unauthenticated("CERTIFICATE_MISSING", "a client certificate with an identity is required")


async def _serialise_each(
    invocation: Invocation, request: Message, handler: StreamHandler
) -> AsyncGenerator[bytes, None]:
    _let_in(invocation)
    async with aclosing(handler(request, Call(invocation))) as answers:
        async for answer in answers:
            yield answer.SerializeToString()
