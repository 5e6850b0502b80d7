"""Composition root of audit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import httpx
from planier.audit.v1.audit_pb2 import DESCRIPTOR

from services.audit.cosigning import ANSWER_SECONDS, Cosigning
from services.audit.log import AccessLog
from services.audit.publication import Publication
from services.audit.receipt import ReceiptSigner
from services.audit.service import AuditServicer
from services.audit.settings import AuditSettings
from services.audit.tiles_door import TilesDoor
from services.audit.witnesses import PartyWitness, read_witnesses
from services.audit.writer import LocalRecorder, LogWriter
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.guard.guard import Guard
from services.kernel.guard.ports import Checker
from services.kernel.guard.remote import KeyLoader, RemoteChecker
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.https import HttpsServer, client_context
from services.kernel.keys import read_private_key
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.telemetry import Telemetry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """The service of one process, ready to be served."""

    server: Server
    guard: Guard
    log: AccessLog
    outside: "Outside"
    # In order: what is still to be recorded first, then the log, the network last.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def ready(self) -> None:
        """Opens the tiles' door and begins to ask the witnesses; the log is open by then."""
        await self.outside.start()

    async def close(self) -> None:
        """Records what is still to be recorded, then lets go of everything; once the server is drained."""
        for close in self.closing:
            await close()


async def build(settings: AuditSettings, telemetry: Telemetry) -> Audit:
    """The service as settings say; starts before access does, whose keys it loads when the first token comes.

    Raises:
        LogBroken: the stored tree is not the one that was signed. ValueError: the key file holds another kind of key.
    """
    access = open_channel(settings.access_address, settings.tls, telemetry, server_name="access")
    checker = RemoteChecker(access, telemetry)
    verifier = TokenVerifier({}, SystemClock(), KeyLoader(access))
    try:
        audit = await assemble(settings, telemetry, checker, verifier)
    except BaseException:
        await access.close()
        raise
    return replace(audit, closing=(*audit.closing, checker.close, access.close))


async def assemble(settings: AuditSettings, telemetry: Telemetry, checker: Checker, verifier: TokenVerifier) -> Audit:
    """The server and its guard over an open log; apart from `build` so that who decides is the caller's choice."""
    key = read_private_key(settings.log_key_file)
    log = AccessLog(settings.database_url, origin=settings.log_origin, key=key, instance=settings.instance)
    witnesses = read_witnesses(settings.witnesses_file) if settings.witnesses_file is not None else ()
    await asyncio.to_thread(log.open)
    outside = Outside(settings, log, witnesses, telemetry)
    signer, writer = ReceiptSigner(key), LogWriter(log, fenced=lambda: server.set_serving(False))
    guard = Guard(
        service=settings.service,
        instance=settings.instance,
        checker=checker,
        recorder=LocalRecorder(writer, signer),
        verifier=verifier,
        clock=SystemClock(),
        ids=RandomIds(),
        screen_motive=detector_of,
        telemetry=telemetry,
    )
    servicer = AuditServicer(
        log, writer, signer, key.public_key(), witnesses=witnesses, cosigning=outside.cosigning if witnesses else None
    )
    bindings = [(DESCRIPTOR.services_by_name["AuditService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)

    async def close_log() -> None:
        await asyncio.to_thread(log.close)

    return Audit(server, guard, log, outside, (guard.close, writer.close, outside.stop, close_log))


class Outside:
    """What of the log goes out to others: tiles over HTTPS, and heads to the witnesses."""

    def __init__(
        self, settings: AuditSettings, log: AccessLog, witnesses: Sequence[PartyWitness], telemetry: Telemetry
    ) -> None:
        publication = Publication(log, [witness.cosigner for witness in witnesses])
        self._client = httpx.AsyncClient(
            verify=client_context(settings.tls), timeout=ANSWER_SECONDS, trust_env=False, follow_redirects=False
        )
        self.cosigning = Cosigning(log, publication, witnesses, self._client, telemetry)
        self._tiles: HttpsServer | None = None
        if settings.tiles_listen:
            self._tiles = HttpsServer(TilesDoor(publication), settings.tiles_listen, settings.tls)
        self._rounds: asyncio.Task[None] | None = None
        self._asks = bool(witnesses)
        # Where the tiles are served, once they are; 0 where they are not.
        self.port = 0

    async def start(self) -> None:
        """Listens, and begins the rounds. OSError: the address is taken."""
        if self._tiles is not None:
            self.port = await self._tiles.start()
            logger.info("serving tiles", extra={"port": self.port})
        if self._asks:
            self._rounds = asyncio.create_task(self.cosigning.run())

    async def stop(self) -> None:
        """Ends the rounds and closes the door."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        if self._tiles is not None and self.port:
            await self._tiles.stop()
        await self._client.aclose()
