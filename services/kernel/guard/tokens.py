"""Internal tokens: signed by access for five minutes, bound to a session and an audience, verified by each service."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.kernel.clock import Clock, Ids
from services.kernel.errors import Problem, unauthenticated
from services.kernel.guard.grant import Subject
from services.kernel.guard.receipts import key_id_of
from services.kernel.guard.remote import KeyLoader

__all__ = ["RENEW_AUDIENCE", "KeyLoader", "TokenIssuer", "TokenVerifier", "key_id_of"]

ISSUER = "planier-access"
RENEW_AUDIENCE = "access:renew"
ACCESS_LIFETIME = timedelta(minutes=5)
SESSION_LIFETIME = timedelta(hours=8)
RELOAD_SECONDS = 1.0
MAX_TOKEN_CHARACTERS = 8192
MAX_CACHED = 10_000
_CLAIMS = {
    "iss": str,
    "exp": int,
    "iat": int,
    "jti": str,
    "sid": str,
    "idp_iss": str,
    "idp_sub": str,
    "mfa": bool,
    "party": str,
}


class TokenIssuer:
    """Signs tokens for persons whose login access has verified."""

    def __init__(self, key: Ed25519PrivateKey, clock: Clock, ids: Ids) -> None:
        self._key = key
        self._key_id = key_id_of(key.public_key())
        self._clock = clock
        self._ids = ids

    @property
    def key_id(self) -> str:
        """The id under which services find the public key."""
        return self._key_id

    def access_token(self, subject: Subject, audience: Sequence[str]) -> tuple[str, datetime]:
        """A token for these services and its end, five minutes from now."""
        return self._sign(subject, list(audience), ACCESS_LIFETIME)

    def session_token(self, subject: Subject, issued_at: datetime | None = None) -> tuple[str, datetime]:
        """A token for RenewToken only and its end, eight hours after the login (`issued_at`, by default now)."""
        return self._sign(subject, [RENEW_AUDIENCE], SESSION_LIFETIME, issued_at)

    def _sign(
        self, subject: Subject, audience: list[str], lifetime: timedelta, issued_at: datetime | None = None
    ) -> tuple[str, datetime]:
        issued = (issued_at or self._clock.now()).replace(microsecond=0)
        expires = issued + lifetime
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "iat": int(issued.timestamp()),
            "exp": int(expires.timestamp()),
            "jti": self._ids.new(),
            "sid": subject.session_id,
            "idp_iss": subject.issuer,
            "idp_sub": subject.subject,
            "mfa": subject.multi_factor,
            "party": subject.party,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._key_id}), expires


@dataclass(frozen=True, slots=True)
class _Verified:
    subject: Subject
    audience: frozenset[str]
    expires: float


class TokenVerifier:
    """Verifies internal tokens with the issuers' public keys, remembering the verified ones until they expire."""

    def __init__(
        self,
        keys: Mapping[str, Ed25519PublicKey],
        clock: Clock,
        load: Callable[[], Awaitable[Mapping[str, Ed25519PublicKey]]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._load = load
        self._monotonic = monotonic
        self._loading = asyncio.Lock()
        self._loaded_at = float("-inf")
        self._load_fault: Problem | None = None
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def authenticate(self, token: str, audience: str) -> Subject:
        """`verify`, after loading the keys again where the token names an unknown one (at most once a second).

        Raises:
            Problem: those of `verify`; UNAVAILABLE where the key is unknown and the keys could not be loaded.
        """
        if self._load is not None and token not in self._verified:
            key_id = _key_id(token)
            if key_id and key_id not in self._keys:
                await self._reload(key_id)
                if self._load_fault is not None and key_id not in self._keys:
                    raise self._load_fault
        return self.verify(token, audience)

    def verify(self, token: str, audience: str) -> Subject:
        """The person whom the token names.

        Raises:
            Problem: UNAUTHENTICATED with reason TOKEN_MISSING, TOKEN_EXPIRED or TOKEN_INVALID.
        """
        if not token:
            raise unauthenticated("TOKEN_MISSING", "a bearer token is required")
        known = self._verified.get(token)
        if known is None:
            known = self._read(token)
            self._verified[token] = known
            if len(self._verified) > MAX_CACHED:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(token)
        if self._clock.now().timestamp() >= known.expires:
            del self._verified[token]
            raise unauthenticated("TOKEN_EXPIRED", "the token has expired")
        if audience not in known.audience:
            raise _invalid()
        return known.subject

    def _read(self, token: str) -> _Verified:
        key = self._keys.get(_key_id(token))
        if key is None:
            raise _invalid()
        try:
            # Times are judged by the injected clock, the audience by the caller's, both in `verify`.
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                issuer=ISSUER,
                options={
                    "require": [*_CLAIMS, "aud"],
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise _invalid() from error
        return _verified(claims)

    async def _reload(self, key_id: str) -> None:
        async with self._loading:
            # Whoever waited may find the key loaded; whoever asks too soon is answered from what is known.
            if key_id in self._keys or self._load is None or self._monotonic() - self._loaded_at < RELOAD_SECONDS:
                return
            self._loaded_at = self._monotonic()
            try:
                keys = dict(await self._load())
            except Problem as problem:
                self._load_fault = problem
                return
            self._load_fault = None
            if keys != self._keys:
                self._keys = keys
                self._verified.clear()


def _key_id(token: str) -> str:
    if len(token) > MAX_TOKEN_CHARACTERS:
        return ""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        return ""
    return key_id if isinstance(key_id, str) else ""


def _verified(claims: dict[str, Any]) -> _Verified:
    audience = claims["aud"]
    # type() and not isinstance(): a bool is an int, and a claim of another type is another token.
    if any(type(claims[name]) is not kind for name, kind in _CLAIMS.items()) or not isinstance(audience, list):
        raise _invalid()
    if not (claims["idp_iss"] and claims["idp_sub"] and claims["sid"]):
        raise _invalid()
    subject = Subject(
        issuer=claims["idp_iss"],
        subject=claims["idp_sub"],
        session_id=claims["sid"],
        multi_factor=claims["mfa"],
        party=claims["party"],
    )
    return _Verified(subject, frozenset(audience), claims["exp"])


def _invalid() -> Problem:
    return unauthenticated("TOKEN_INVALID", "the token is not valid here")
