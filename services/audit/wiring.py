"""Composition root of audit."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from planier.audit.v1.audit_pb2 import DESCRIPTOR

from services.audit.log import AccessLog
from services.audit.receipt import ReceiptSigner
from services.audit.service import AuditServicer
from services.audit.settings import AuditSettings
from services.audit.writer import LocalRecorder, LogWriter
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.guard.guard import Guard
from services.kernel.guard.ports import Checker
from services.kernel.guard.remote import KeyLoader, RemoteChecker
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.keys import read_private_key
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Audit:
    """The service of one process, ready to be served."""

    server: Server
    guard: Guard
    log: AccessLog
    # In order: what is still to be recorded first, then the log, the network last.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def ready(self) -> None:
        """Serves as soon as it listens: its log is open by then."""

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
    return Audit(audit.server, audit.guard, audit.log, (*audit.closing, checker.close, access.close))


async def assemble(settings: AuditSettings, telemetry: Telemetry, checker: Checker, verifier: TokenVerifier) -> Audit:
    """The server and its guard over an open log; apart from `build` so that who decides is the caller's choice."""
    key = read_private_key(settings.log_key_file)
    log = AccessLog(settings.database_url, origin=settings.log_origin, key=key)
    await asyncio.to_thread(log.open)
    signer, writer = ReceiptSigner(key), LogWriter(log)
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
    servicer = AuditServicer(log, writer, signer, key.public_key())
    bindings = [(DESCRIPTOR.services_by_name["AuditService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)

    async def close_log() -> None:
        await asyncio.to_thread(log.close)

    return Audit(server, guard, log, (guard.close, writer.close, close_log))
