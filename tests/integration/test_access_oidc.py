"""A login proves an identity and a second factor, by a token of the configured issuer and of no other."""

import base64
import hmac
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.access.oidc import FRESH_SECONDS, RELOAD_SECONDS, IdTokenVerifier, IssuerKeys
from services.access.people import Affiliation
from services.access.settings import SECOND_FACTORS
from services.kernel.errors import Problem
from tests.fixtures.access import CITY_PERSON, NOW
from tests.fixtures.access_issuer import CLIENT, RSA_KEY, TestIssuer, issuer_running
from tests.fixtures.store import HandClock

SUBJECT = "city-user"


class Stopwatch:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as running:
        yield running


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
async def verifier(issuer: TestIssuer, stopwatch: Stopwatch) -> AsyncIterator[IdTokenVerifier]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield IdTokenVerifier(
            issuer=issuer.url,
            client_id=CLIENT,
            keys=IssuerKeys(issuer.url, client, stopwatch),
            accepted_amr=frozenset(SECOND_FACTORS),
            accepted_acr=frozenset({"eidas2"}),
            clock=HandClock(NOW),
        )


async def refused(verifier: IdTokenVerifier, token: str, nonce: str = "") -> Problem:
    with pytest.raises(Problem) as problem:
        await verifier.verify(token, nonce)
    told = f"{problem.value} {problem.value.violations} {problem.value.metadata}"
    assert SUBJECT not in told
    assert CITY_PERSON.usual_name not in told
    return problem.value


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_of_the_issuer_is_a_login(issuer: TestIssuer, verifier: IdTokenVerifier, algorithm: str) -> None:
    login = await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW, algorithm=algorithm), "")
    assert login.identity == issuer.identity(SUBJECT)
    assert (login.given_name, login.usual_name) == (CITY_PERSON.given_name, CITY_PERSON.usual_name)


async def test_the_usual_name_goes_before_the_family_name(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    token = issuer.id_token(SUBJECT, CITY_PERSON, NOW, usual_name="Mariée")
    assert (await verifier.verify(token, "")).usual_name == "Mariée"


async def test_proconnects_claims_say_where_somebody_works(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    claims: dict[str, Any] = {"siret": "21130055300016", "uid": "agent-7", "organizational_unit": "Voirie"}
    login = await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW, **claims), "")
    assert login.affiliation == Affiliation(siret="21130055300016", uid="agent-7", organisational_unit="Voirie")
    assert (await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW), "")).affiliation == Affiliation()


WRONG: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "another-client"},
    "another issuer": {"iss": "https://other.test"},
    "issued for another party": {"azp": "another-client"},
    "issued in the future": {"iat": int((NOW + timedelta(minutes=2)).timestamp())},
    "a subject that is a number": {"sub": 7},
    "an empty subject": {"sub": ""},
    "an expiry that is a text": {"exp": "soon"},
    "no subject": {"drop": ("sub",)},
    "no expiry": {"drop": ("exp",)},
    "no audience": {"drop": ("aud",)},
    "no issuer": {"drop": ("iss",)},
    "no instant of issue": {"drop": ("iat",)},
    "an algorithm that is not the key's": {"algorithm": "RS512"},
    "a PSS signature": {"algorithm": "PS256"},
    "a key that is not the issuer's": {"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)},
    "an RSA signature under the name of the EC key": {"key_id": "ec-1"},
    "an unknown key": {"key_id": "unknown"},
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_token_that_is_not_for_us_is_refused(issuer: TestIssuer, verifier: IdTokenVerifier, case: str) -> None:
    problem = await refused(verifier, issuer.id_token(SUBJECT, CITY_PERSON, NOW, **WRONG[case]))
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, "ID_TOKEN_INVALID")
    assert problem.clause == "art6.secure_access"


async def test_an_unsigned_token_is_refused(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    claims = jwt.decode(issuer.id_token(SUBJECT, CITY_PERSON, NOW), options={"verify_signature": False})
    token = jwt.encode(claims, "", algorithm="none", headers={"kid": "rsa-1"})
    assert (await refused(verifier, token)).reason == "ID_TOKEN_INVALID"


async def test_the_public_key_is_no_shared_secret(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    secret = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa-1"}').rstrip(b"=")
    signed = header + b"." + issuer.id_token(SUBJECT, CITY_PERSON, NOW).split(".")[1].encode()
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
    assert (await refused(verifier, (signed + b"." + signature).decode())).reason == "ID_TOKEN_INVALID"


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "é.é.é"])
async def test_what_is_no_token_is_refused(verifier: IdTokenVerifier, token: str) -> None:
    assert (await refused(verifier, token)).reason == "ID_TOKEN_INVALID"


async def test_an_expired_token_is_refused(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    token = issuer.id_token(SUBJECT, CITY_PERSON, NOW - timedelta(minutes=6))
    assert (await refused(verifier, token)).reason == "ID_TOKEN_EXPIRED"


@pytest.mark.parametrize("stated", [{}, {"nonce": "another"}])
async def test_a_nonce_that_was_given_must_come_back(
    issuer: TestIssuer, verifier: IdTokenVerifier, stated: dict[str, Any]
) -> None:
    token = issuer.id_token(SUBJECT, CITY_PERSON, NOW, **stated)
    assert (await refused(verifier, token, nonce="mine")).reason == "ID_TOKEN_INVALID"


async def test_the_nonce_that_was_given_is_accepted(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    login = await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW, nonce="mine"), "mine")
    assert login.identity.subject == SUBJECT


@pytest.mark.parametrize(
    "claims", [{"amr": ["pwd"]}, {"amr": []}, {"amr": "mfa"}, {"amr": [["otp"]]}, {"drop": ("amr",)}, {"amr": None}]
)
async def test_one_factor_is_not_enough(issuer: TestIssuer, verifier: IdTokenVerifier, claims: dict[str, Any]) -> None:
    token = issuer.id_token(SUBJECT, CITY_PERSON, NOW, **claims)
    problem = await refused(verifier, token)
    assert (problem.reason, problem.clause) == ("MFA_REQUIRED", "art6.secure_access")


async def test_an_accepted_context_class_is_a_second_factor(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    login = await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW, drop=("amr",), acr="eidas2"), "")
    assert login.identity.subject == SUBJECT
    weak = issuer.id_token(SUBJECT, CITY_PERSON, NOW, drop=("amr",), acr="eidas1")
    assert (await refused(verifier, weak)).reason == "MFA_REQUIRED"


async def test_an_issuer_that_cannot_be_reached_is_unavailable(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    issuer.broken = True
    problem = await refused(verifier, issuer.id_token(SUBJECT, CITY_PERSON, NOW))
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE")


async def test_a_discovery_document_of_another_issuer_is_not_believed(
    issuer: TestIssuer, verifier: IdTokenVerifier
) -> None:
    issuer.named = "https://other.test"
    problem = await refused(verifier, issuer.id_token(SUBJECT, CITY_PERSON, NOW))
    assert problem.reason == "ISSUER_UNAVAILABLE"


async def test_keys_are_fetched_once_and_again_at_a_rotation(
    issuer: TestIssuer, verifier: IdTokenVerifier, stopwatch: Stopwatch
) -> None:
    old = issuer.id_token(SUBJECT, CITY_PERSON, NOW)
    await verifier.verify(old, "")
    await verifier.verify(old, "")
    assert issuer.fetched == 1
    issuer.rotate("rsa-2")
    new = issuer.id_token(SUBJECT, CITY_PERSON, NOW, key_id="rsa-2")
    await refused(verifier, new)
    stopwatch.seconds += RELOAD_SECONDS + 1
    await verifier.verify(new, "")
    assert issuer.fetched == 2
    await refused(verifier, old)


async def test_keys_do_not_outlive_an_hour(issuer: TestIssuer, verifier: IdTokenVerifier, stopwatch: Stopwatch) -> None:
    token = issuer.id_token(SUBJECT, CITY_PERSON, NOW)
    await verifier.verify(token, "")
    issuer.rotate("rsa-2")
    stopwatch.seconds += FRESH_SECONDS + 1
    assert (await refused(verifier, token)).reason == "ID_TOKEN_INVALID"


async def test_keys_of_other_uses_and_kinds_are_passed_over(issuer: TestIssuer, verifier: IdTokenVerifier) -> None:
    issuer.keys[:0] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "wide", "crv": "P-521"},
        {**issuer.keys[0], "kid": "for-encryption", "use": "enc"},
        {"kty": "RSA"},
    ]
    login = await verifier.verify(issuer.id_token(SUBJECT, CITY_PERSON, NOW), "")
    assert login.identity.subject == SUBJECT
    encryption = issuer.id_token(SUBJECT, CITY_PERSON, NOW, key_id="for-encryption")
    assert (await refused(verifier, encryption)).reason == "ID_TOKEN_INVALID"
