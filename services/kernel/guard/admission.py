"""Who calls, for what purpose, and what access says about it: everything that precedes a grant."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from planier.access.v1.access_pb2 import CheckItem
from planier.access.v1.access_pb2 import Subject as SubjectMessage
from planier.access.v1.events_pb2 import Area, Identity
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL, AccessRecord, Actor
from planier.common.v1.guard_pb2 import (
    AUTHENTICATION_CERTIFICATE,
    AUTHENTICATION_CREDENTIAL,
    AUTHENTICATION_TOKEN,
    Operation,
)
from planier.common.v1.release_pb2 import (
    PURPOSE_ADMINISTRATION,
    PURPOSE_CROSSING,
    PURPOSE_OVERSIGHT,
    PURPOSE_SITUATION,
    PURPOSE_TENSION,
    PURPOSE_UNSPECIFIED,
    Purpose,
)

from services.kernel.clock import Clock, Ids
from services.kernel.errors import Problem, Violation, denied, invalid, unauthenticated, unavailable
from services.kernel.guard.decisions import DEFAULT_DENY, granted, refusal_of, state_decision, undecided, verified
from services.kernel.guard.early import LastPermits, key_of
from services.kernel.guard.grant import Grant, Subject
from services.kernel.guard.peers import Attempts
from services.kernel.guard.ports import Checker, Decision
from services.kernel.guard.records import INTERNAL, Ledger, Monotonic, note_moment
from services.kernel.guard.remote import CHECK_SECONDS
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.rpc.call import Invocation, Method
from services.kernel.telemetry import Telemetry

PERMITTED_PURPOSES = frozenset(
    (PURPOSE_SITUATION, PURPOSE_CROSSING, PURPOSE_TENSION, PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)
)
PERMIT_SECONDS = 2.0
# A permit older than this when an answer is ready is asked for again: the record takes its share of the rest.
RENEW_SECONDS = 1.0
MAX_SOURCES = 100
MAX_SOURCE_CHARACTERS = 60
_EDGES = ("west", "south", "east", "north")
_SOURCES = Violation("sources", "bounds", f"at most {MAX_SOURCES} names of at most {MAX_SOURCE_CHARACTERS} characters")


@dataclass(slots=True)
class Admission:
    """A request that was let through, and the record that its access will leave.

    `decided_at` is monotonic and precedes the question to access, so that a permit never lives longer than it should;
    None where the handler decides.
    """

    method: Method
    grant: Grant
    record: AccessRecord
    item: CheckItem | None = None
    decided_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the guard finds in the requests of one type."""

    consultation: bool
    sources: bool
    declarer: tuple[str, ...]
    # Fields that name the place looked at, a box and a polygon, where there are any.
    box: bool
    polygon: bool


class Admitter:
    """Turns a call into an Admission, or into a recorded refusal."""

    def __init__(
        self,
        *,
        service: str,
        checker: Checker,
        ledger: Ledger,
        verifier: TokenVerifier,
        attempts: Attempts,
        clock: Clock,
        ids: Ids,
        screen_motive: Callable[[str], str | None],
        telemetry: Telemetry,
        monotonic: Monotonic,
    ) -> None:
        self._service = service
        self._checker = checker
        self._ledger = ledger
        self._verifier = verifier
        self._attempts = attempts
        self._clock = clock
        self._ids = ids
        self._screen_motive = screen_motive
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._shapes: dict[str, _Shape] = {}
        self._permits = LastPermits()

    async def admit(
        self, invocation: Invocation, request: Message, begin: Callable[[Grant], None] | None = None
    ) -> Admission:
        """The admission of this request.

        `begin` is called before access is asked, with the grant that its last permit would give again, if there was
        one: a guess, under which nothing may be released or recorded unless the admission's own grant is equal.

        Raises:
            Problem: the caller is unknown (counted by peer), or refused (recorded), or no decision was to be had.
        """
        subject = await self._identify(invocation)
        shape = self._shape(invocation.method)
        record = self._draft(invocation, request, shape, subject)
        try:
            self._screen(request, shape, record)
            if invocation.method.option.authentication == AUTHENTICATION_CREDENTIAL:
                grant = undecided(subject, record, self._clock.now())
                return Admission(invocation.method, grant, record)
            return await self._decide(invocation, subject, record, _area_of(request, shape), begin)
        except Exception as error:
            problem = error if isinstance(error, Problem) else INTERNAL
            raise await self._refused(record, problem) from error

    async def check(self, item: CheckItem) -> Decision:
        """What access decides on the item within 1 s, verified to be about it.

        Raises:
            Problem: UNAVAILABLE CHECK_UNAVAILABLE, whatever went wrong.
        """
        span = self._telemetry.begin("guard.check")
        outcome = "CHECK_UNAVAILABLE"
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                decision = verified(item, await self._checker.check(item))
            outcome = "OK"
        except Exception as error:
            raise unavailable(outcome, "the decision could not be obtained") from error
        finally:
            span.end(outcome, fault=outcome != "OK")
        return decision

    async def renew(self, admission: Admission) -> None:
        """Asks access again where an answer took long to make, so that the permit at its release is a young one.

        The record then states the later decision. What was found under one grant is released under an equal one only.

        Raises:
            Problem: PERMISSION_DENIED, or UNAVAILABLE PERMIT_CHANGED or CHECK_UNAVAILABLE; none is recorded yet.
        """
        item, decided_at = admission.item, admission.decided_at
        if item is None or decided_at is None or self._monotonic() - decided_at <= RENEW_SECONDS:
            return
        again = CheckItem()
        again.CopyFrom(item)
        decided_at, grant, record = self._monotonic(), admission.grant, admission.record
        note_moment(again.decision_time, self._clock.now())
        decision = await self.check(again)
        state_decision(record, again, decision)
        if not decision.verdict.permit:
            raise refusal_of(decision.verdict)
        if granted(grant.subject, record, decision.verdict, grant.decided_at) != grant:
            raise unavailable("PERMIT_CHANGED", "what is permitted changed meanwhile; ask again", DEFAULT_DENY)
        admission.item, admission.decided_at = again, decided_at

    async def require_fresh(self, admission: Admission) -> None:
        """Refuses, and records that it did, an access whose permit lapsed since its record was written.

        Raises:
            Problem: UNAVAILABLE PERMIT_LAPSED: nobody was denied anything, and the same call may pass a moment later.
        """
        decided_at = admission.decided_at
        if decided_at is None or self._monotonic() - decided_at <= PERMIT_SECONDS:
            return
        problem = unavailable("PERMIT_LAPSED", "the permit lapsed before its use; ask again", DEFAULT_DENY)
        raise await self._ledger.write_refusal(
            self._ledger.continuing(admission.record, RECORD_KIND_REFUSAL), problem
        ) from None

    async def _identify(self, invocation: Invocation) -> Subject:
        authentication = invocation.method.option.authentication
        try:
            if authentication == AUTHENTICATION_TOKEN:
                return await self._verifier.authenticate(invocation.token, self._service)
            if authentication in (AUTHENTICATION_CERTIFICATE, AUTHENTICATION_CREDENTIAL) and invocation.caller:
                return Subject(certificate_identity=invocation.caller)
            raise unauthenticated("CERTIFICATE_MISSING", "a client certificate with an identity is required")
        except Problem as problem:
            if problem.code == grpc.StatusCode.UNAUTHENTICATED:
                self._attempts.count(invocation.peer, problem.reason)
            raise

    def _draft(self, invocation: Invocation, request: Any, shape: _Shape, subject: Subject) -> AccessRecord:
        method = invocation.method
        record = AccessRecord()
        record.CopyFrom(_drafts(subject, method.option.operation, method.option.resource, method.path)[0])
        record.record_id = self._ids.new()
        record.trace_id = invocation.trace_id
        record.peer = invocation.peer
        if shape.consultation:
            consultation = request.consultation
            record.purpose = consultation.purpose
            record.motive_code = consultation.motive_code
            record.consultation_id = consultation.consultation_id
        if shape.declarer:
            holder = request
            for name in shape.declarer:
                holder = getattr(holder, name)
            record.actor.agent_reference = holder.agent_reference
        return record

    def _screen(self, request: Any, shape: _Shape, record: AccessRecord) -> None:
        """Judges what the caller states, and lets into the record only what may stand there."""
        if shape.sources and request.sources:
            if len(request.sources) > MAX_SOURCES or any(len(name) > MAX_SOURCE_CHARACTERS for name in request.sources):
                raise invalid("SOURCES_INVALID", "too many sources, or a name too long", _SOURCES)
            record.data.sources.extend(request.sources)
        if not shape.consultation:
            return
        detector = self._screen_motive(request.consultation.motive)
        if detector is None:
            record.motive = request.consultation.motive
        _require_purpose(record.purpose)
        if detector is not None:
            found = Violation("consultation.motive", "personal_data", f"holds personal data ({detector})")
            raise invalid("MOTIVE_PERSONAL_DATA", "the motive holds personal data", found, clause="art3.anonymised")

    async def _decide(
        self,
        invocation: Invocation,
        subject: Subject,
        record: AccessRecord,
        area: Area | None,
        begin: Callable[[Grant], None] | None,
    ) -> Admission:
        decided_at = self._monotonic()
        moment = self._clock.now()
        item = CheckItem()
        item.CopyFrom(_drafts(subject, record.operation, record.resource, record.rpc)[1])
        # The record's own id: the decision and the record that states it are found together.
        item.check_id = record.record_id
        item.purpose = record.purpose
        if record.data.sources:
            item.sources.extend(record.data.sources)
        note_moment(item.decision_time, moment)
        if area is not None:
            item.area.CopyFrom(area)
        if begin is None:
            decision = await self.check(item)
        else:
            key = key_of(subject, record)
            expected = self._permits.get(key)
            if expected is not None:
                begin(granted(subject, record, expected, moment))
            decision = await self.check(item)
            self._permits.learn(key, decision.verdict)
        state_decision(record, item, decision)
        if not decision.verdict.permit:
            raise refusal_of(decision.verdict)
        grant = granted(subject, record, decision.verdict, moment)
        return Admission(invocation.method, grant, record, item, decided_at)

    async def _refused(self, record: AccessRecord, problem: Problem) -> Problem:
        try:
            return await self._ledger.write_refusal(record, problem)
        except Problem:
            if problem.reason == "CHECK_UNAVAILABLE":
                # Nothing was decided, so nothing is told: recorded where that was possible.
                return problem
            raise

    def _shape(self, method: Method) -> _Shape:
        shape = self._shapes.get(method.path)
        if shape is None:
            shape = self._shapes[method.path] = _shape_of(method.request_type.DESCRIPTOR)
        return shape


def _shape_of(descriptor: Any) -> _Shape:
    fields = descriptor.fields_by_name
    sources = fields.get("sources")
    declarer: tuple[str, ...] = ("declarer",) if "declarer" in fields else ()
    batch = fields.get("batch")
    if batch is not None and batch.message_type is not None and "declarer" in batch.message_type.fields_by_name:
        declarer = ("batch", "declarer")
    return _Shape(
        consultation="consultation" in fields,
        sources=sources is not None and sources.is_repeated and sources.type == FieldDescriptor.TYPE_STRING,
        declarer=declarer,
        box=_has("box", fields, _EDGES),
        polygon=_has("polygon", fields, ("rings",)),
    )


def _has(name: str, fields: Any, parts: tuple[str, ...]) -> bool:
    """Whether there is a field of that name whose message has these fields."""
    field = fields.get(name)
    return (
        field is not None
        and field.message_type is not None
        and all(part in field.message_type.fields_by_name for part in parts)
    )


def _area_of(request: Any, shape: _Shape) -> Area | None:
    """The box that the look stays in, of a polygon the one around it; None where the request names no place."""
    if shape.box and request.HasField("box"):
        box = request.box
        return Area(**{edge: getattr(box, edge) for edge in _EDGES})
    if shape.polygon and request.HasField("polygon"):
        points = [point for ring in request.polygon.rings for point in ring.points]
        if points:
            longitudes, latitudes = [p.longitude for p in points], [p.latitude for p in points]
            return Area(west=min(longitudes), south=min(latitudes), east=max(longitudes), north=max(latitudes))
    return None


def _require_purpose(purpose: Purpose.ValueType) -> None:
    if purpose == PURPOSE_UNSPECIFIED:
        missing = Violation("consultation.purpose", "required", "a purpose of the convention is required")
        raise invalid("PURPOSE_MISSING", "every request states its purpose", missing, clause="art6.purpose")
    if purpose not in PERMITTED_PURPOSES:
        raise denied("PURPOSE_REFUSED", "this purpose is not one of the convention's", "art6.purpose")


@lru_cache(maxsize=1_000)
def _drafts(
    subject: Subject, operation: Operation.ValueType, resource: str, rpc: str
) -> tuple[AccessRecord, CheckItem]:
    """What the records and the checks of one caller's requests of one kind have in common; for whoever copies it."""
    record = AccessRecord(
        actor=Actor(
            issuer=subject.issuer,
            subject=subject.subject,
            certificate_identity=subject.certificate_identity,
            session_id=subject.session_id,
            party=subject.party,
        ),
        operation=operation,
        resource=resource,
        rpc=rpc,
    )
    return record, CheckItem(subject=_subject(subject), operation=operation, resource=resource, rpc=rpc)


def _subject(subject: Subject) -> SubjectMessage:
    if not subject.subject:
        return SubjectMessage(certificate_identity=subject.certificate_identity)
    return SubjectMessage(
        identity=Identity(issuer=subject.issuer, subject=subject.subject),
        session_id=subject.session_id,
        multi_factor=subject.multi_factor,
    )
