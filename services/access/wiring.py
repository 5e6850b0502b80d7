"""Composition root of access."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

import httpx
from planier.access.v1.access_pb2 import DESCRIPTOR
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE

from services.access.checker import Checks, LocalChecker
from services.access.deed import raw_public_key
from services.access.oidc import IdTokenVerifier, IssuerKeys
from services.access.overdue import OverdueWatch
from services.access.policy import Policy
from services.access.register import Register
from services.access.service import AccessServicer, Founding
from services.access.settings import AccessSettings
from services.access.snapshot import StateCache
from services.kernel.clock import Clock, Ids, RandomIds, SystemClock
from services.kernel.config import CannotStart
from services.kernel.guard.guard import Guard
from services.kernel.guard.ports import Recorder
from services.kernel.guard.remote import RemoteRecorder
from services.kernel.guard.tokens import TokenIssuer, TokenVerifier
from services.kernel.keys import read_private_key, read_public_key
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.store.base import EventStore
from services.kernel.store.opening import open_store
from services.kernel.telemetry import Telemetry


class AnnexMismatchError(CannotStart):
    """The annex of this deployment is not the one that the parties signed: the service does not start."""


@dataclass(frozen=True, slots=True)
class Core:
    """What decides and writes, without server or network."""

    cache: StateCache
    register: Register
    checks: Checks
    policy: Policy


@dataclass(frozen=True, slots=True)
class Access:
    """The service of one process, ready to be served."""

    server: Server
    guard: Guard
    watch: OverdueWatch
    # In order: what is still to be recorded first, then the network, the store last.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def ready(self) -> None:
        """Serves as soon as it listens: its state is its own store."""
        self.watch.start()

    async def close(self) -> None:
        """Records what is still to be recorded, then lets go of everything; once the server is drained."""
        for close in self.closing:
            await close()


def core_of(store: EventStore, ids: Ids) -> Core:
    """The core over a store."""
    policy = Policy.load()
    cache = StateCache(store, policy)
    return Core(cache, Register(store, cache, ids), Checks(cache), policy)


def founding_of(settings: AccessSettings) -> Founding:
    """What the deployment was handed. Raises OSError or ValueError where a file is not what it should be."""
    keys = (raw_public_key(read_public_key(path)) for path in settings.party_key_files)
    annex_hash = hashlib.sha256(settings.annex_file.read_bytes()).hexdigest()
    return Founding(dict(zip((PARTY_CITY, PARTY_PREFECTURE), keys, strict=True)), annex_hash)


def require_signed_annex(cache: StateCache, founding: Founding, now: datetime) -> None:
    """Raises AnnexMismatchError where a convention is in force that names another annex 1 (art2.documents)."""
    convention = cache.current().state.convention
    if convention is not None and convention.terms(now).annex_hash != founding.annex_hash:
        raise AnnexMismatchError("annex 1 is not the one that the convention in force names")


async def build(settings: AccessSettings, telemetry: Telemetry) -> Access:
    """The service as settings say."""
    clock, ids = SystemClock(), RandomIds()
    store = await asyncio.to_thread(open_store, settings.database_url, clock=clock)
    core = core_of(store, ids)
    founding = founding_of(settings)
    await asyncio.to_thread(require_signed_annex, core.cache, founding, clock.now())
    audit = open_channel(settings.audit_address, settings.tls, telemetry, server_name="audit")
    recorder = RemoteRecorder(audit, telemetry)

    async def close_store() -> None:
        await asyncio.to_thread(store.close)

    access = assemble(settings, telemetry, store, core, founding, recorder, clock, ids)
    return replace(access, closing=(*access.closing, recorder.close, audit.close, close_store))


def assemble(
    settings: AccessSettings,
    telemetry: Telemetry,
    store: EventStore,
    core: Core,
    founding: Founding,
    recorder: Recorder,
    clock: Clock,
    ids: Ids,
) -> Access:
    """The server and its guard over a core; apart from `build` so that the recorder is the caller's choice."""
    key = read_private_key(settings.token_key_file)
    issuer = TokenIssuer(key, clock, ids)
    token_keys = {issuer.key_id: key.public_key()}
    tokens = TokenVerifier(token_keys, clock)
    http = httpx.AsyncClient()
    checker = LocalChecker(core.checks)
    servicer = AccessServicer(
        store=store,
        cache=core.cache,
        register=core.register,
        checks=core.checks,
        policy=core.policy,
        logins=_logins(settings, http, clock),
        issuer=issuer,
        sessions=tokens,
        token_keys=token_keys,
        founding=founding,
        pseudonyms=Pseudonyms(settings.pseudonym_key_file.read_bytes()),
        clock=clock,
    )
    guard = Guard(
        service=settings.service,
        instance=settings.instance,
        checker=checker,
        recorder=recorder,
        verifier=tokens,
        clock=clock,
        ids=ids,
        screen_motive=detector_of,
        telemetry=telemetry,
    )
    bindings = [(DESCRIPTOR.services_by_name["AccessService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)
    watch = OverdueWatch(core.cache, clock, telemetry)
    return Access(server, guard, watch, (guard.close, watch.close, checker.close, http.aclose))


def _logins(settings: AccessSettings, http: httpx.AsyncClient, clock: Clock) -> IdTokenVerifier:
    return IdTokenVerifier(
        issuer=settings.issuer_url,
        client_id=settings.client_id,
        keys=IssuerKeys(settings.issuer_url, http),
        accepted_amr=settings.accepted_amr,
        accepted_acr=settings.accepted_acr,
        clock=clock,
    )
