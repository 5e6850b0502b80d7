"""Internal tokens: whatever is not exactly ours, for here, and for now, is nobody's."""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.kernel.clock import RandomIds
from services.kernel.errors import Problem, unavailable
from services.kernel.guard import tokens
from services.kernel.guard.tokens import RENEW_AUDIENCE, TokenIssuer, TokenVerifier, key_id_of
from tests.fixtures.guard import PERSON, StillClock

KEY = Ed25519PrivateKey.generate()
KEY_ID = key_id_of(KEY.public_key())
Keys = Mapping[str, Ed25519PublicKey]


def pair(clock: StillClock) -> tuple[TokenIssuer, TokenVerifier]:
    return TokenIssuer(KEY, clock, RandomIds()), TokenVerifier({KEY_ID: KEY.public_key()}, clock)


def reason(verifier: TokenVerifier, token: str, audience: str = "ingest") -> str:
    with pytest.raises(Problem) as problem:
        verifier.verify(token, audience)
    assert problem.value.code == grpc.StatusCode.UNAUTHENTICATED
    return problem.value.reason


def test_a_token_names_its_person_to_each_service_of_its_audience() -> None:
    issuer, verifier = pair(StillClock())
    token, _ = issuer.access_token(PERSON, ["ingest", "audit"])
    assert verifier.verify(token, "ingest") == verifier.verify(token, "audit") == PERSON


def test_five_minutes_and_not_one_second_more() -> None:
    clock = StillClock()
    issuer, verifier = pair(clock)
    token, end = issuer.access_token(PERSON, ["ingest"])
    assert (end - clock.now()).total_seconds() == 300
    clock.advance(299)
    assert verifier.verify(token, "ingest") == PERSON
    clock.advance(1)
    assert [reason(verifier, token), reason(verifier, token)] == ["TOKEN_EXPIRED", "TOKEN_EXPIRED"]


@pytest.mark.parametrize("warm", [True, False])
def test_an_audience_is_not_another(warm: bool) -> None:
    issuer, verifier = pair(StillClock())
    token, _ = issuer.access_token(PERSON, ["ingest"])
    if warm:
        verifier.verify(token, "ingest")
    assert [reason(verifier, token, one) for one in ("audit", "ingest ", "", RENEW_AUDIENCE)] == ["TOKEN_INVALID"] * 4


def test_a_session_token_only_renews_and_lasts_eight_hours_from_the_login() -> None:
    clock = StillClock()
    issuer, verifier = pair(clock)
    token, end = issuer.session_token(PERSON)
    assert (end - clock.now()).total_seconds() == 8 * 3600
    assert verifier.verify(token, RENEW_AUDIENCE) == PERSON
    assert reason(verifier, token, "access") == "TOKEN_INVALID"
    clock.advance(3600)
    assert issuer.session_token(PERSON, end.replace(hour=12))[1] == end


CLAIMS = {
    "iss": "planier-access",
    "aud": ["ingest"],
    "iat": 1_780_315_200,
    "exp": 1_980_315_200,
    "jti": "j",
    "sid": "s",
    "idp_iss": "i",
    "idp_sub": "u",
    "mfa": True,
    "party": "CITY",
}


def signed(claims: dict[str, Any], key: Any = KEY, algorithm: str = "EdDSA", key_id: str = KEY_ID) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})


def test_the_reference_claims_are_a_token() -> None:
    assert pair(StillClock())[1].verify(signed(CLAIMS), "ingest").subject == "u"


@pytest.mark.parametrize("claim", [*CLAIMS])
def test_every_claim_is_required(claim: str) -> None:
    _, verifier = pair(StillClock())
    assert reason(verifier, signed({name: value for name, value in CLAIMS.items() if name != claim})) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "another"},
        {"aud": "ingest"},
        {"mfa": "yes"},
        {"mfa": 1},
        {"party": None},
        {"exp": 1_980_315_200.5},
        {"exp": True},
        {"idp_sub": ""},
        {"sid": ""},
        {"sid": 5},
        {"idp_iss": ["i"]},
    ],
)
def test_a_claim_of_another_kind_is_another_token(change: dict[str, Any]) -> None:
    _, verifier = pair(StillClock())
    assert reason(verifier, signed(CLAIMS | change)) == "TOKEN_INVALID"


def test_other_keys_and_algorithms_sign_nothing_here() -> None:
    _, verifier = pair(StillClock())
    public = KEY.public_key().public_bytes_raw()
    forged = [
        signed(CLAIMS, Ed25519PrivateKey.generate()),
        signed(CLAIMS, public.hex(), "HS256"),
        jwt.encode(CLAIMS, "", algorithm="none", headers={"kid": KEY_ID}),
        signed(CLAIMS, key_id="unknown"),
        jwt.encode(CLAIMS, KEY, algorithm="EdDSA"),
        "a.b.c",
        "é",
        "x" * 10_000,
    ]
    assert {reason(verifier, token) for token in forged} == {"TOKEN_INVALID"}
    assert reason(verifier, "") == "TOKEN_MISSING"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_token_is_not_the_remembered_one(part: int) -> None:
    issuer, verifier = pair(StillClock())
    token, _ = issuer.access_token(PERSON, ["ingest"])
    verifier.verify(token, "ingest")
    parts = token.split(".")
    parts[part] = ("A" if parts[part][5] != "A" else "B").join((parts[part][:5], parts[part][6:]))
    assert reason(verifier, ".".join(parts)) == "TOKEN_INVALID"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_CACHED", 3)
    issuer, verifier = pair(StillClock())
    for _ in range(10):
        verifier.verify(issuer.access_token(PERSON, ["ingest"])[0], "ingest")
    assert len(verifier._verified) == 3


class Loads:
    """A loader that counts, and answers with `keys` or raises it."""

    def __init__(self, keys: Keys | Problem) -> None:
        self.keys = keys
        self.count = 0

    async def __call__(self) -> Keys:
        self.count += 1
        await asyncio.sleep(0)
        if isinstance(self.keys, Problem):
            raise self.keys
        return self.keys


async def test_keys_may_arrive_late_and_are_asked_for_once() -> None:
    clock = StillClock()
    loads = Loads({KEY_ID: KEY.public_key()})
    verifier = TokenVerifier({}, clock, loads, clock.monotonic)
    token, _ = TokenIssuer(KEY, clock, RandomIds()).access_token(PERSON, ["ingest"])
    assert await asyncio.gather(*(verifier.authenticate(token, "ingest") for _ in range(20))) == [PERSON] * 20
    assert loads.count == 1


async def test_unknown_keys_load_at_most_once_a_second() -> None:
    clock = StillClock()
    loads = Loads({KEY_ID: KEY.public_key()})
    verifier = TokenVerifier({}, clock, loads, clock.monotonic)
    for number in range(30):
        with pytest.raises(Problem, match="TOKEN_INVALID"):
            await verifier.authenticate(signed(CLAIMS, key_id=f"k{number}"), "ingest")
        if number % 10 == 9:
            clock.advance(1)
    assert loads.count == 3


async def test_a_token_without_key_id_loads_nothing() -> None:
    clock = StillClock()
    loads = Loads({})
    verifier = TokenVerifier({}, clock, loads, clock.monotonic)
    for token in ("", "a.b.c", jwt.encode(CLAIMS, KEY, algorithm="EdDSA")):
        with pytest.raises(Problem):
            await verifier.authenticate(token, "ingest")
    assert loads.count == 0


async def test_a_key_that_could_not_be_loaded_is_not_the_callers_fault() -> None:
    clock = StillClock()
    loads = Loads(unavailable("KEYS_UNAVAILABLE", "away"))
    verifier = TokenVerifier({}, clock, loads, clock.monotonic)
    token, _ = TokenIssuer(KEY, clock, RandomIds()).access_token(PERSON, ["ingest"])
    with pytest.raises(Problem, match="KEYS_UNAVAILABLE"):
        await verifier.authenticate(token, "ingest")
    loads.keys = {KEY_ID: KEY.public_key()}
    clock.advance(1)
    assert await verifier.authenticate(token, "ingest") == PERSON


async def test_a_withdrawn_key_takes_its_tokens_along() -> None:
    clock = StillClock()
    other = Ed25519PrivateKey.generate()
    loads = Loads({key_id_of(other.public_key()): other.public_key()})
    verifier = TokenVerifier({KEY_ID: KEY.public_key()}, clock, loads, clock.monotonic)
    old, _ = TokenIssuer(KEY, clock, RandomIds()).access_token(PERSON, ["ingest"])
    new, _ = TokenIssuer(other, clock, RandomIds()).access_token(PERSON, ["ingest"])
    assert await verifier.authenticate(old, "ingest") == PERSON
    assert await verifier.authenticate(new, "ingest") == PERSON
    assert reason(verifier, old) == "TOKEN_INVALID"
