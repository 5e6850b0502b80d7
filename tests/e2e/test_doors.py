"""Whoever is not let in is turned away by every running service, and counted per peer and minute in the access log."""

import asyncio
import json
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from planier.analytics.v1.analytics_pb2 import GetFactRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.release_pb2 import PURPOSE_SITUATION, Consultation

from services.cli.connection import channel
from services.cli.profile import Profile
from services.kernel.clock import RandomIds
from services.kernel.errors import Problem
from services.stack.certificates import issue
from services.stack.layout import SERVICES
from tests.fixtures.knocking import client_context, knock
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e
CLIENT = "cortege"
REFUSED = {"PLAINTEXT": 2, "CERTIFICATE_MISSING": 1, "CERTIFICATE_UNTRUSTED": 3, "TLS_TOO_OLD": 1}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation that nobody else knocks at."""
    running = Stack(tmp_path_factory.mktemp("doors") / "var", ("--no-demo",))
    running.start()
    yield running
    running.stop()


def strangers(trusted: Path, strange: Path) -> dict[str, ssl.SSLContext | None]:
    return {
        "PLAINTEXT": None,
        "CERTIFICATE_MISSING": client_context(trusted),
        "CERTIFICATE_UNTRUSTED": client_context(strange, CLIENT),
        "TLS_TOO_OLD": client_context(trusted, CLIENT, ssl.TLSVersion.TLSv1_2),
    }


async def look_without_token(profile: Profile) -> str:
    look = Consultation(consultation_id=RandomIds().new(), purpose=PURPOSE_SITUATION, motive="essai")
    async with channel(profile, "analytics") as opened:
        with pytest.raises(Problem) as refused:
            await AnalyticsServiceStub(opened).GetFact(GetFactRequest(consultation=look, fact_id="0" * 32), timeout=10)
    return refused.value.reason


def test_strangers_are_turned_away_and_counted_by_peer_and_minute(own: Stack, tmp_path: Path) -> None:
    profile = Profile.read(own.home / "stack.json")
    issue(tmp_path, (CLIENT,))
    ports = {name: int(address.rpartition(":")[2]) for name, address in profile.addresses.items()}
    trusted = client_context(profile.certificates, CLIENT)
    for port in ports.values():
        assert knock(port, trusted) != b""
        for reason, context in strangers(profile.certificates, tmp_path).items():
            assert [knock(port, context) for _ in range(REFUSED[reason])] == [b""] * REFUSED[reason], reason
    assert asyncio.run(look_without_token(profile)) == "TOKEN_MISSING"
    instances = {instance_of(own, name): name for name in ports}

    # What a minute counts is recorded when it is over, or when the service stops.
    own.stop()
    own.start()
    assert own.planier("login", "--as", "auditor").status == 0
    replayed = own.planier("audit", "replay", "--as", "auditor", "--json")
    rows = [row["record"] for row in replayed.content["records"] if row["kind"] == "UNAUTHENTICATED"]
    keys = [(row["instance"], row["peer"], row["data"]["period_start"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {peer for _, peer, _ in keys} == {"ipv4:127.0.0.1"}
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counted[instances[row["instance"]]].update({k: int(v) for k, v in row["unauthenticated"].items()})
    assert counted == {
        name: Counter(REFUSED) + Counter({"TOKEN_MISSING": 1} if name == "analytics" else {}) for name in SERVICES
    }


def instance_of(stack: Stack, service: str) -> str:
    lines = (stack.home / "log" / f"{service}.log").read_text().splitlines()
    return str(json.loads(lines[-1])["instance"])
