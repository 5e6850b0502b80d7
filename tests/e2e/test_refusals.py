"""Bad input through the real services: a typed error that names what is wrong, a record of it, no other effect."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import ParseDict
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest, QueryMapResponse
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1 import release_pb2
from planier.common.v1.fact_pb2 import Fact
from planier.ingest.v1.ingest_pb2 import DeclareFactsRequest, Declarer, GetHeadRequest, RefusalReason, Verdict
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.cli import session
from services.cli.connection import channel
from services.cli.profile import Profile
from services.kernel import traces
from services.kernel.clock import RandomIds
from services.kernel.errors import Problem
from services.kernel.guard.grant import Subject
from services.kernel.guard.tokens import TokenIssuer
from services.kernel.keys import read_private_key
from services.kernel.rpc import status
from services.kernel.rpc.client import MAX_MESSAGE_BYTES
from tests.e2e.test_path import march
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e
QUERY = "/planier.analytics.v1.AnalyticsService/QueryMap"
BOX = BoundingBox(west=5.3, south=43.2, east=5.5, north=43.4)
PHONE = "06 12 34 56 78"
TIMEOUT = 20


@dataclass(frozen=True, slots=True)
class Before:
    """A clock that was right some time ago."""

    age: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) - self.age


class Client:
    """One caller in a trace of its own, by which its records are found."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.profile = Profile.read(stack.home / "stack.json")
        self.traceparent = traces.fresh(sampled=False)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        before = traces.current.set(self.traceparent)
        try:
            return asyncio.run(work)
        finally:
            traces.current.reset(before)

    def refused(self, work: Coroutine[Any, Any, Any]) -> Problem:
        with pytest.raises(Problem) as refusal:
            self.run(work)
        return refusal.value

    def records(self) -> list[dict[str, Any]]:
        """The records of this trace, as an auditor finds them."""
        sign_in(self.stack, "auditor")
        replayed = self.stack.planier("audit", "replay", "--as", "auditor", "--json")
        assert replayed.status == 0, replayed.output + replayed.errors
        found = [row["record"] for row in replayed.content["records"] if "record" in row]
        return [record for record in found if record.get("trace_id") == traces.trace_id(self.traceparent)]

    async def head(self) -> int:
        """Where ingest's store stands."""
        async with channel(self.profile, "ingest") as opened:
            return int((await IngestServiceStub(opened).GetHead(GetHeadRequest(), timeout=TIMEOUT)).head.position)

    async def map(self, request: QueryMapRequest, token: str | None = None) -> QueryMapResponse:
        if token is None:
            token = (await session.current(self.profile, "duty-officer")).access_token
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with channel(self.profile, "analytics") as opened:
            answer: QueryMapResponse = await AnalyticsServiceStub(opened).QueryMap(
                request, timeout=TIMEOUT, metadata=metadata
            )
            return answer

    async def declare(self, certificate: str, *facts: dict[str, Any]) -> Sequence[Verdict]:
        request = DeclareFactsRequest(
            declarer=Declarer(agent_reference="agent-1"), facts=[ParseDict(fact, Fact()) for fact in facts]
        )
        async with channel(self.profile, "ingest", certificate) as opened:
            answer = await IngestServiceStub(opened).DeclareFacts(request, timeout=TIMEOUT)
            verdicts: Sequence[Verdict] = answer.verdicts
            return verdicts

    async def raw(self, body: bytes, *, timeout: float | None = TIMEOUT) -> None:  # noqa: ASYNC109 -- gRPC's name
        """gRPC's own channel, for what ours refuses to send; Problem as ours would raise it."""
        files = self.profile.tls("workstation")
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        options = [("grpc.ssl_target_name_override", "analytics"), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.secure_channel(self.profile.addresses["analytics"], credentials, options) as opened:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = opened.unary_unary(QUERY)
            try:
                await call(body, timeout=timeout, metadata=((traces.HEADER, self.traceparent),))
            except grpc.aio.AioRpcError as error:
                raise status.decode(error) from error


def sign_in(stack: Stack, person: str) -> None:
    if not (stack.home / "client" / f"session-{person}.json").is_file():
        assert stack.planier("login", "--as", person).status == 0


@pytest.fixture
def client(stack: Stack) -> Client:
    sign_in(stack, "duty-officer")
    return Client(stack)


def question(**consultation: Any) -> QueryMapRequest:
    said = {"purpose": release_pb2.PURPOSE_SITUATION, "motive": "essai", **consultation}
    request = QueryMapRequest(consultation=release_pb2.Consultation(consultation_id=RandomIds().new(), **said), box=BOX)
    request.period.start.FromDatetime(datetime(2031, 5, 1, tzinfo=UTC))
    request.period.end.FromDatetime(datetime(2031, 5, 2, tzinfo=UTC))
    return request


def fields(problem: Problem) -> list[str]:
    return [violation.field for violation in problem.violations]


def everything(problem: Problem) -> str:
    return f"{problem} {problem.violations} {problem.metadata} {problem.clause}"


def test_bytes_that_are_no_message(client: Client) -> None:
    problem = client.refused(client.raw(b"\xff\xff\xff"))
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert problem.metadata["trace_id"] == traces.trace_id(client.traceparent)
    assert client.records() == []


def test_a_message_larger_than_any_is_not_read(client: Client) -> None:
    problem = client.refused(client.raw(bytes(MAX_MESSAGE_BYTES + 1)))
    assert (problem.code, problem.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    assert client.run(client.map(question())).release.receipt.record_id


def test_a_call_without_a_deadline(client: Client) -> None:
    problem = client.refused(client.raw(question().SerializeToString(), timeout=None))
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_MISSING")
    assert client.records() == []


def test_an_area_that_is_not_on_earth(client: Client) -> None:
    request = question()
    request.box.west = -200
    problem = client.refused(client.map(request))
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    assert fields(problem) == ["box.west"]
    assert "200" not in everything(problem)
    assert client.records() == []


PURPOSES: list[tuple[dict[str, Any], grpc.StatusCode, str, list[str], str]] = [
    (
        {"purpose": release_pb2.PURPOSE_UNSPECIFIED},
        grpc.StatusCode.INVALID_ARGUMENT,
        "PURPOSE_MISSING",
        ["consultation.purpose"],
        "art6.purpose",
    ),
    (
        {"motive": f"rappeler le {PHONE}"},
        grpc.StatusCode.INVALID_ARGUMENT,
        "MOTIVE_PERSONAL_DATA",
        ["consultation.motive"],
        "art3.anonymised",
    ),
    *(
        ({"purpose": number}, grpc.StatusCode.PERMISSION_DENIED, "PURPOSE_REFUSED", [], "art6.purpose")
        for name, number in release_pb2.Purpose.items()
        if name.startswith("PURPOSE_REFUSED_")
    ),
]


@pytest.mark.parametrize(
    ("consultation", "code", "reason", "wrong", "clause"), PURPOSES, ids=[f"{p[2]}-{n}" for n, p in enumerate(PURPOSES)]
)
def test_what_the_convention_refuses_is_recorded(
    client: Client, consultation: dict[str, Any], code: grpc.StatusCode, reason: str, wrong: list[str], clause: str
) -> None:
    problem = client.refused(client.map(question(**consultation)))
    assert (problem.code, problem.reason, problem.clause) == (code, reason, clause)
    assert fields(problem) == wrong
    assert PHONE not in everything(problem)
    [record] = client.records()
    assert record["record_id"] == problem.metadata["record_id"]
    assert (record["kind"], record["refusal_reason"]) == ("RECORD_KIND_REFUSAL", reason)
    assert record["decision"]["clauses"] == [clause]
    assert record["actor"]["subject"] == "duty-officer"
    assert PHONE not in str(record)


def issuer_of(client: Client, key: Ed25519PrivateKey | None = None, age: timedelta = timedelta(0)) -> TokenIssuer:
    own = read_private_key(client.stack.home / "keys" / "token.pem")
    issuer = TokenIssuer(key or own, Before(age), RandomIds())
    # A forger names the key that services know.
    issuer._key_id = TokenIssuer(own, Before(age), RandomIds()).key_id
    return issuer


TOKENS: dict[str, tuple[Callable[[Client, Subject], str], str]] = {
    "none": (lambda _, __: "", "TOKEN_MISSING"),
    "no token at all": (lambda _, __: "x" * 40, "TOKEN_INVALID"),
    "expired": (lambda c, s: issuer_of(c, age=timedelta(hours=1)).access_token(s, ["analytics"])[0], "TOKEN_EXPIRED"),
    "for another service": (lambda c, s: issuer_of(c).access_token(s, ["audit", "access"])[0], "TOKEN_INVALID"),
    "for renewal": (lambda c, s: issuer_of(c).session_token(s)[0], "TOKEN_INVALID"),
    "forged": (
        lambda c, s: issuer_of(c, Ed25519PrivateKey.generate()).access_token(s, ["analytics"])[0],
        "TOKEN_INVALID",
    ),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_proves_nothing(client: Client, kind: str) -> None:
    make, reason = TOKENS[kind]
    subject = Subject(issuer=client.profile.issuer, subject="duty-officer", session_id="s", multi_factor=True)
    token = make(client, subject)
    problem = client.refused(client.map(question(), token))
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert problem.clause == "art6.secure_access"
    assert not token or token not in everything(problem)
    # Counted by peer and minute (test_doors), never a record an attempt.
    assert client.records() == []


def test_the_same_token_well_made_is_let_in(client: Client) -> None:
    """Or the refusals above would prove nothing."""
    subject = Subject(issuer=client.profile.issuer, subject="duty-officer", session_id="s", multi_factor=True)
    token, _ = issuer_of(client).access_token(subject, ["analytics"])
    assert client.run(client.map(question(), token)).release.receipt.record_id


FACTS = [
    ({"geometry": {"point": {"longitude": 181, "latitude": 43.3}}}, "INVALID", "geometry.point.longitude", ""),
    ({"geometry": {"point": {"longitude": 2.35, "latitude": 48.85}}}, "OUTSIDE_TERRITORY", "geometry", ""),
    ({"kind": "PARADE"}, "UNKNOWN_KIND", "kind", "art3.nature"),
    ({"source": "rumours"}, "UNKNOWN_SOURCE", "source", "art3.nature"),
    ({"source": "works", "kind": "ROADWORKS", "attributes": []}, "NOT_YOUR_SOURCE", "source", "art4.secure_entry"),
    ({"title": f"appeler {PHONE}"}, "FREE_TEXT_NOT_ALLOWED", "title", "art3.anonymised"),
]


@pytest.mark.parametrize(("change", "reason", "field", "clause"), FACTS, ids=[f"{f[1]}" for f in FACTS])
def test_a_fact_that_may_not_enter(
    client: Client, change: dict[str, Any], reason: str, field: str, clause: str
) -> None:
    before = client.run(client.head())
    [verdict] = client.run(client.declare("cortege", march("REFUSED-1", **change)))
    assert RefusalReason.Name(verdict.reason) == f"REFUSAL_REASON_{reason}"
    assert [violation.field for violation in verdict.violations] == [field]
    assert verdict.clause == clause
    assert PHONE not in str(verdict)
    assert client.run(client.head()) == before
    [record] = client.records()
    assert record["kind"] == "RECORD_KIND_ATTEMPT"
    assert record["actor"]["certificate_identity"] == "spiffe://planier/cortege"
    assert PHONE not in str(record)


def test_a_citys_text_about_a_person(client: Client) -> None:
    before = client.run(client.head())
    fact = march("REFUSED-2", source="works", kind="ROADWORKS", attributes=[], title=f"appeler {PHONE}")
    [verdict] = client.run(client.declare("city-importer", fact))
    assert RefusalReason.Name(verdict.reason) == "REFUSAL_REASON_PERSONAL_DATA"
    assert (verdict.violations[0].field, verdict.clause) == ("title", "art3.anonymised")
    assert PHONE not in str(verdict)
    assert client.run(client.head()) == before


def test_a_certificate_that_declares_nothing(client: Client) -> None:
    before = client.run(client.head())
    problem = client.refused(client.declare("workstation", march("REFUSED-3")))
    assert problem.code == grpc.StatusCode.PERMISSION_DENIED
    assert problem.clause == "art4.secure_entry"
    assert client.run(client.head()) == before
    [record] = client.records()
    assert record["kind"] == "RECORD_KIND_REFUSAL"
    assert problem.clause in record["decision"]["clauses"]
