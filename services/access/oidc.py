"""Verifies an ID token once, at login: signature, issuer, audience, times, nonce, factors (art6.secure_access)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from services.access.people import NO_AFFILIATION, Affiliation, Identity
from services.kernel.clock import Clock
from services.kernel.errors import Problem, unauthenticated, unavailable

ALGORITHMS = ("RS256", "ES256")
FRESH_SECONDS = 3600.0
# An unknown key id may be a rotation, or a caller's invention: the issuer is asked again at most this often.
RELOAD_SECONDS = 10.0
LEEWAY_SECONDS = 30
FETCH_SECONDS = 5.0
_REQUIRED = ("iss", "sub", "aud", "exp", "iat")


@dataclass(frozen=True, slots=True)
class Login:
    """Who the identity provider says logs in; names are for matching a clearance, and are kept nowhere."""

    identity: Identity
    given_name: str
    usual_name: str
    affiliation: Affiliation = NO_AFFILIATION


class IssuerKeys:
    """The issuer's public keys by key id, by discovery, kept for an hour."""

    def __init__(self, issuer: str, client: httpx.AsyncClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._client = client
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._loaded_at = float("-inf")

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key, or None where the issuer has none of that id. Raises Problem UNAVAILABLE ISSUER_UNAVAILABLE.

        A token may leave its key unnamed ("") where the issuer has a single one (OpenID Connect Core 1.0, 10.1).
        """
        async with self._lock:
            age = self._monotonic() - self._loaded_at
            if age > FRESH_SECONDS or (key_id not in self._keys and age > RELOAD_SECONDS):
                self._keys = await self._load()
                self._loaded_at = self._monotonic()
            if not key_id and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            return self._keys.get(key_id)

    async def _load(self) -> Mapping[str, jwt.PyJWK]:
        try:
            found = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if found["issuer"] != self._issuer:
                raise _issuer_unavailable()
            keys = await self._get(found["jwks_uri"])
            return {key["kid"]: known for key in keys["keys"] if (known := _signing_key(key)) is not None}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise _issuer_unavailable() from error

    async def _get(self, url: str) -> Any:
        response = await self._client.get(url, timeout=FETCH_SECONDS)
        return response.raise_for_status().json()


class IdTokenVerifier:
    """Turns an ID token into a Login, or refuses it without repeating anything that it holds."""

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        keys: IssuerKeys,
        accepted_amr: frozenset[str],
        accepted_acr: frozenset[str],
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._keys = keys
        self._accepted_amr = accepted_amr
        self._accepted_acr = accepted_acr
        self._clock = clock

    async def verify(self, id_token: str, nonce: str) -> Login:
        """The login, its second factor proved.

        Raises:
            Problem: UNAUTHENTICATED ID_TOKEN_INVALID, ID_TOKEN_EXPIRED or MFA_REQUIRED; UNAVAILABLE ISSUER_UNAVAILABLE.
        """
        claims = await self._claims(id_token)
        now = self._clock.now().timestamp()
        if not now < claims["exp"] + LEEWAY_SECONDS:
            raise unauthenticated("ID_TOKEN_EXPIRED", "the ID token has expired")
        if claims["iat"] > now + LEEWAY_SECONDS or (nonce and claims.get("nonce") != nonce):
            raise _invalid()
        if claims.get("azp", self._client_id) != self._client_id:
            raise _invalid()
        if not self._multi_factor(claims):
            raise unauthenticated("MFA_REQUIRED", "a second factor is required")
        usual = claims.get("usual_name") or claims.get("family_name")
        # ProConnect's names of claims; another issuer may lack them.
        affiliation = Affiliation(*(_text(claims.get(name)) for name in ("siret", "uid", "organizational_unit")))
        return Login(Identity(claims["iss"], claims["sub"]), _text(claims.get("given_name")), _text(usual), affiliation)

    async def _claims(self, id_token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(id_token)
            key = await self._keys.find(str(header.get("kid", "")))
            if key is None or header.get("alg") not in ALGORITHMS:
                raise _invalid()
            # The key's own algorithm must be the header's: no key of one kind verifies the signature of another.
            if key.algorithm_name != header["alg"]:
                raise _invalid()
            claims = jwt.decode(
                id_token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._client_id,
                issuer=self._issuer,
                # Times are judged by the injected clock.
                options={"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError as error:
            raise _invalid() from error
        numbers = all(type(claims[name]) in (int, float) for name in ("exp", "iat"))
        if not numbers or not isinstance(claims["sub"], str) or not claims["sub"]:
            raise _invalid()
        return claims

    def _multi_factor(self, claims: Mapping[str, Any]) -> bool:
        methods, context = claims.get("amr"), claims.get("acr")
        strong = isinstance(methods, list) and any(m in self._accepted_amr for m in methods if isinstance(m, str))
        return strong or (isinstance(context, str) and context in self._accepted_acr)


def _signing_key(key: Any) -> jwt.PyJWK | None:
    """The key, where it is one that signs and that we know how to read; an issuer may publish others beside."""
    if not isinstance(key, dict) or not isinstance(key.get("kid"), str) or key.get("use", "sig") != "sig":
        return None
    try:
        return jwt.PyJWK(key) if key.get("kty") in ("RSA", "EC") else None
    except jwt.PyJWTError:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _invalid() -> Problem:
    return unauthenticated("ID_TOKEN_INVALID", "the ID token is not valid here")


def _issuer_unavailable() -> Problem:
    return unavailable("ISSUER_UNAVAILABLE", "the identity provider could not be reached")
