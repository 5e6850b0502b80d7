"""Signing in through the identity provider, and the tokens that this user holds."""

import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from planier.access.v1.access_pb2 import BindingState, LoginRequest, RenewTokenRequest
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.common.v1.release_pb2 import PURPOSE_UNSPECIFIED, Consultation, Purpose

from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.profile import Profile
from services.cli.words import name_of, value_of
from services.kernel.clock import RandomIds
from services.kernel.errors import unauthenticated, unavailable

if TYPE_CHECKING:
    import httpx

REDIRECT = "http://127.0.0.1/signed-in"
SCOPE = "openid profile"


@dataclass(frozen=True, slots=True)
class Session:
    """One person's tokens."""

    subject: str
    access_token: str
    session_token: str
    expires_at: datetime
    binding: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call under this session carries."""
        return (("authorization", f"Bearer {self.access_token}"),)


async def sign_in(profile: Profile, subject: str) -> Session:
    """Signs in with the local identity provider as one of its people, and with access; keeps the session."""
    nonce = secrets.token_urlsafe(16)
    token = await _id_token(profile, subject, nonce)
    async with channel(profile, "access") as opened:
        answer = await AccessServiceStub(opened).Login(LoginRequest(id_token=token, nonce=nonce), timeout=DEADLINE)
    Receipts(profile).keep(answer)
    session = Session(
        subject=subject,
        access_token=answer.access_token,
        session_token=answer.session_token,
        expires_at=answer.expires_at.ToDatetime(UTC),
        binding=name_of(BindingState, answer.binding),
    )
    _store(profile, session)
    return session


async def current(profile: Profile, subject: str = "") -> Session:
    """The session of a person (of the last who signed in), renewed where its token is about to lapse."""
    path = profile.client_folder / (f"session-{subject}.json" if subject else "session.json")
    if not path.is_file():
        raise unauthenticated("NOT_SIGNED_IN", "sign in first: planier login --as ROLE")
    session = _read(path)
    if session.expires_at - datetime.now(UTC) > timedelta(seconds=30):
        return session
    async with channel(profile, "access") as opened:
        request = RenewTokenRequest(session_token=session.session_token)
        answer = await AccessServiceStub(opened).RenewToken(request, timeout=DEADLINE)
    Receipts(profile).keep(answer)
    renewed = Session(
        subject=session.subject,
        access_token=answer.access_token,
        session_token=session.session_token,
        expires_at=answer.expires_at.ToDatetime(UTC),
        binding=session.binding,
    )
    _store(profile, renewed)
    return renewed


def consultation(purpose: str, motive: str) -> Consultation:
    """A fresh consultation; `purpose` is a name of the closed vocabulary such as SITUATION, "" to leave it out."""
    chosen = value_of(Purpose, purpose, "--purpose") if purpose else PURPOSE_UNSPECIFIED
    return Consultation(consultation_id=RandomIds().new(), purpose=chosen, motive=motive)


async def _id_token(profile: Profile, subject: str, nonce: str) -> str:
    """The authorisation code flow, without a browser: the local provider's form takes the subject."""
    import httpx

    try:
        async with httpx.AsyncClient(base_url=profile.issuer, timeout=DEADLINE, trust_env=False) as client:
            return await _exchanged(client, profile.client_id, subject, nonce)
    except (httpx.HTTPError, ValueError, KeyError):
        raise unavailable("ISSUER_UNAVAILABLE", "the identity provider cannot be reached or does not answer") from None


async def _exchanged(client: "httpx.AsyncClient", client_id: str, subject: str, nonce: str) -> str:
    query = {
        "client_id": client_id,
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": SCOPE,
        "nonce": nonce,
        "state": secrets.token_urlsafe(16),
    }
    answer = await client.post("/oauth2/authorize", params=query, data={"sub": subject})
    redirected = parse_qs(urlsplit(answer.headers.get("location", "")).query)
    if redirected.get("state") != [query["state"]] or "code" not in redirected:
        raise unauthenticated("SIGN_IN_REFUSED", "the identity provider gave no code")
    form = {"grant_type": "authorization_code", "code": redirected["code"][0], "redirect_uri": REDIRECT}
    answer = await client.post("/oauth2/token", data=form, auth=(client_id, "local"))
    answer.raise_for_status()
    return str(answer.json()["id_token"])


def _store(profile: Profile, session: Session) -> None:
    content = {
        "subject": session.subject,
        "access_token": session.access_token,
        "session_token": session.session_token,
        "expires_at": session.expires_at.isoformat(),
        "binding": session.binding,
    }
    for name in (f"session-{session.subject}.json", "session.json"):
        path = profile.client_folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file)


def _read(path: Path) -> Session:
    try:
        content = json.loads(path.read_text())
        return Session(**{**content, "expires_at": datetime.fromisoformat(content["expires_at"])})
    except (ValueError, TypeError, KeyError):
        message = "the session that was kept cannot be read; sign in again: planier login --as ROLE"
        raise unauthenticated("NOT_SIGNED_IN", message) from None
