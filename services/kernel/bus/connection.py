"""One lasting connection of a service to the bus, opened when first needed and again whenever it is closed."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client

from services.kernel.bus.base import BusUnavailable
from services.kernel.bus.broker import inbox_prefix
from services.kernel.rpc.tls import TlsFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How a service reaches the bus; seconds. Without `tls`: narrow tests on the loopback only."""

    url: str
    service: str
    tls: TlsFiles | None
    server_name: str = "localhost"
    connect_timeout: float = 2.0
    reconnect_wait: float = 0.25
    request_timeout: float = 5.0


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


class Connection:
    """Gives a connected NATS client or raises BusUnavailable; never blocks a service's start on the bus.

    Attempts to connect are unlimited, in the background, `reconnect_wait` apart; each reads the certificate files
    again. A client that lost its connection is not used again: whoever holds it sees that it is not connected.
    """

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self._client: Client | None = None
        self._opening: asyncio.Task[Client] | None = None
        self._disconnections = 0
        self._closing = False

    @property
    def disconnections(self) -> int:
        """How often a connection was lost; when it changes, whatever was under way may be lost."""
        return self._disconnections

    async def client(self) -> Client:
        """The connected client. Raises BusUnavailable, at once when attempts to connect are already under way."""
        if self._client is None or self._client.is_closed:
            self._client = await self._opened()
        if not self._client.is_connected:
            raise BusUnavailable("the bus is not connected")
        return self._client

    async def _opened(self) -> Client:
        patience = 0.0
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            patience = self.settings.connect_timeout
        opening = self._opening
        await asyncio.wait((opening,), timeout=patience)
        if not opening.done():
            raise BusUnavailable("the bus cannot be reached yet")
        if self._opening is opening:
            self._opening = None
        return opening.result()

    async def _open(self) -> Client:
        while True:
            client = Client()
            try:
                await client.connect(self.settings.url, **await self._options())
            except (OSError, nats.errors.Error) as error:
                # Repeats at each attempt, hence not a warning.
                logger.info("bus cannot be reached: %s", type(error).__name__)
                await client.close()
                await asyncio.sleep(self.settings.reconnect_wait)
            except BaseException:
                await client.close()
                raise
            else:
                logger.info("bus connected")
                return client

    async def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "name": self.settings.service,
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
            # nats-py's own reconnection leaks a transport per failed handshake and gives up on some errors.
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": self.settings.reconnect_wait,
            "connect_timeout": self.settings.connect_timeout,
            "ping_interval": 10,
            "inbox_prefix": inbox_prefix(self.settings.service),
        }
        if self.settings.tls is not None:
            options["tls"] = await asyncio.to_thread(_tls_context, self.settings.tls)
            options["tls_hostname"] = self.settings.server_name
            options["tls_handshake_first"] = True
        return options

    async def close(self) -> None:
        """Closes the connection; a later `client()` opens another one."""
        self._closing = True
        try:
            opening, self._opening = self._opening, None
            if opening is not None:
                opening.cancel()
                # It may have connected without anybody having asked since.
                for opened in await asyncio.gather(opening, return_exceptions=True):
                    if isinstance(opened, Client):
                        await opened.close()
            client, self._client = self._client, None
            if client is not None:
                await client.close()
        finally:
            self._closing = False

    async def _on_error(self, error: Exception) -> None:
        logger.debug("bus error", exc_info=error)

    async def _on_closed(self) -> None:
        self._disconnections += 1
        if not self._closing:
            logger.warning("bus disconnected")
