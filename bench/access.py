"""A decision beside bare Cedar on the same policies, among 10,000 clearances; one Check a call beside a bare echo."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from uuid import UUID

import grpc
import yaml
from cedarpy import Entities, PolicySet, Schema, is_authorized
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.access.v1.access_pb2 import CheckItem, CheckRequest, CheckResponse, Subject
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_CITY_USER, ConventionSigned
from planier.access.v1.events_pb2 import Identity as IdentityMessage
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, PURPOSE_SITUATION, Purpose

from bench.callers import Pace, closed_loop
from bench.harness import Row, medians, row
from bench.peers.echo import METHOD
from bench.read import CALLERS, MESSAGE, SECONDS, echo
from bench.system import System, running
from services.access import deed as deeds
from services.access.agreement import founded
from services.access.clearances import Clearance, Content
from services.access.convention import Convention, Identity, Person, State
from services.access.decisions import Decider
from services.access.policy import Policy
from services.access.view import View, Views
from services.cli.connection import channel
from services.kernel.clock import microseconds
from services.kernel.rpc.tls import TlsFiles, channel_credentials
from services.stack.founding import DEED

PEOPLE = 10_000
ASKED = 3_000
ISSUER = "https://bench.test"
SOURCE = "works"
INSTRUMENT = "city-rules"
_CHECK = "/planier.access.v1.AccessService/Check"


def rows() -> list[Row]:
    """Every figure of this file."""
    return [*decision_rows(), *check_rows()]


def decision_rows() -> list[Row]:
    """CPU time of this process alone, so that other processes do not count."""
    convention = _convention()
    moment = convention.signed_at + timedelta(days=1)
    state = _populated(convention, moment)
    policy = Policy.load()
    people = [Identity(ISSUER, f"person-{number}") for number in range(0, PEOPLE, PEOPLE // ASKED)]
    view = _view(policy, state, moment)
    held = [view.titles(person).holders[0] for person in people]
    ready = [view.entities(holder, "Facts") for holder in held]
    peer = _Bare(moment)
    beside = [view._resources["Facts", instrument] for instrument in ("convention", INSTRUMENT)]  # noqa: SLF001 -- the very entities that we give Cedar
    raw = [json.dumps([holder.entity(), *beside]) for holder in held]

    def unheard() -> float:
        decider = Decider(policy, state)
        items = [_item(person, PURPOSE_SITUATION, moment) for person in people]
        return _each(lambda number: decider.decide(items[number]), len(people))

    def unasked() -> float:
        decider = Decider(policy, state)
        for person in people:  # their titles are known, what they ask next is not
            decider.decide(_item(person, PURPOSE_SITUATION, moment))
        items = [_item(person, PURPOSE_CROSSING, moment) for person in people]
        return _each(lambda number: decider.decide(items[number]), len(people))

    def again() -> float:
        decider = Decider(policy, state)
        items = [_item(person, PURPOSE_SITUATION, moment) for person in people]
        for item in items:
            decider.decide(item)
        return _each(lambda number: decider.decide(items[number]), len(people))

    bare, read_and_decided, fresh, cold, known = medians(
        lambda: _each(lambda number: peer.decide(held[number].name, ready[number]), len(people)),
        lambda: _each(lambda number: peer.decide(held[number].name, peer.read(raw[number])), len(people)),
        unasked,
        unheard,
        again,
    )
    ready_peer, reading_peer = "bare Cedar, entities parsed", "bare Cedar, the person's entities read too"
    return [
        row("decision, 10,000 clearances, a new question", fresh, "µs", ready_peer, bare, "<= 2"),
        row("decision, 10,000 clearances, a new person", cold, "µs", reading_peer, read_and_decided, "<= 2"),
        row("decision, 10,000 clearances, asked before", known, "µs", ready_peer, bare, "<= 2"),
    ]


def check_rows() -> list[Row]:
    """One Check a call, from analytics' place, beside an echo over the same TLS."""
    with running() as system, echo(system) as port:
        bare, checks = medians(lambda: asyncio.run(_echo(system, port)).rate, lambda: asyncio.run(_check(system)).rate)
    plain = f"bare grpc.aio mTLS echo, {CALLERS} callers"
    return [row(f"Check, one per call, {CALLERS} callers", checks, "calls/s", plain, bare, ">= 0.6")]


class _Bare:
    """Cedar as a program would use it that has nothing but Cedar: parsed policies and schema, one call a decision."""

    def __init__(self, moment: datetime) -> None:
        folder = resources.files("services.access.policy")
        self._policies = PolicySet.from_str(folder.joinpath("convention.cedar").read_text())
        self._schema = Schema.from_str(folder.joinpath("schema.cedarschema").read_text())
        self._context = {
            "purpose": "CROSSING",
            "sources": [SOURCE],
            "multi_factor": True,
            "time": microseconds(moment),
            "within": True,
            "house_rules": [],
        }

    def read(self, raw: str) -> Entities:
        """Entities from their JSON, checked against the schema."""
        return Entities.from_json_str(raw, self._schema)

    def decide(self, name: str, entities: Entities) -> None:
        """One decision; it must be a permit, as ours is."""
        request = {
            "principal": {"type": "Holder", "id": name},
            "action": {"type": "Action", "id": "CONSULT"},
            "resource": {"type": "Facts", "id": INSTRUMENT},
            "context": self._context,
        }
        assert is_authorized(request, self._policies, entities, self._schema).allowed


def _view(policy: Policy, state: State, moment: datetime) -> View:
    found = Views(policy, state).at(moment)
    assert found is not None
    return found[1]


def _each(step: Callable[[int], object], count: int) -> float:
    """Microseconds of CPU a step."""
    start = time.process_time()
    for number in range(count):
        step(number)
    return (time.process_time() - start) / count * 1e6


def _convention() -> Convention:
    """The convention of a local installation, notified yesterday."""
    now = datetime.now(UTC)
    description = yaml.safe_load(DEED.read_text())
    for instrument in description["instruments"]:
        if instrument["instrument_id"] == "convention":
            instrument["notified_at"] = now - timedelta(days=1)
    for holder in description["office_holders"]:
        holder["identity"]["issuer"] = ISSUER
        holder["from"] = now
    keys = {party: Ed25519PrivateKey.generate().public_key() for party in (PARTY_CITY, PARTY_PREFECTURE)}
    deed = deeds.build(description, annex_hash="0" * 64, keys=keys)
    return founded(ConventionSigned(deed=deed), now)


def _populated(convention: Convention, moment: datetime) -> State:
    """Ten thousand City users, each bound to a clearance of everything."""
    clearances: dict[str, Clearance] = {}
    bound: dict[Identity, tuple[str, ...]] = {}
    for number in range(PEOPLE):
        name, identity = str(UUID(int=number)), Identity(ISSUER, f"person-{number}")
        content = Content(
            person=Person("Prénom", f"Nom {number}", f"Service {number % 50}", "Hôtel de Ville"),
            party=PARTY_CITY,
            role=ROLE_CITY_USER,
            purposes=frozenset({PURPOSE_SITUATION, PURPOSE_CROSSING}),
            sources=frozenset(),
            valid_from=moment - timedelta(days=number % 300 + 1),
            valid_until=moment + timedelta(days=number % 300 + 1),
        )
        granted = Identity(ISSUER, "dga")
        clearances[name] = Clearance(name, content, moment, None, granted, proposed=identity, identity=identity)
        bound[identity] = (name,)
    return State(convention=convention, clearances=clearances, bound=bound)


def _item(person: Identity, purpose: Purpose.ValueType, moment: datetime) -> CheckItem:
    item = CheckItem(
        check_id="bench",
        subject=Subject(
            identity=IdentityMessage(issuer=person.issuer, subject=person.subject), session_id="s", multi_factor=True
        ),
        operation=OPERATION_CONSULT,
        resource="facts",
        purpose=purpose,
        sources=[SOURCE],
    )
    item.decision_time.FromDatetime(moment)
    return item


async def _echo(system: System, port: int) -> Pace:
    pki = system.layout.pki
    files = TlsFiles(pki / "workstation.pem", pki / "workstation.key", pki / "ca.pem")
    options = (("grpc.ssl_target_name_override", "analytics"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials(files), options=options) as opened:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = opened.unary_unary(METHOD)
        await call(MESSAGE)
        return await closed_loop(lambda: call(MESSAGE, timeout=10), CALLERS, SECONDS)


async def _check(system: System) -> Pace:
    who = Identity(system.layout.issuer, "duty-officer")

    async with channel(system.profile, "access", "analytics") as opened:
        # Ready to be sent, as the echo's message is: what is measured is the service.
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, CheckResponse]
        check = opened.unary_unary(_CHECK, response_deserializer=CheckResponse.FromString)
        request = CheckRequest(items=[_item(who, PURPOSE_SITUATION, datetime.now(UTC))]).SerializeToString()

        async def step() -> None:
            answer = await check(request, timeout=10)
            assert answer.verdicts[0].permit

        return await closed_loop(step, CALLERS, SECONDS)
