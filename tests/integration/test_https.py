"""The small HTTPS door: TLS 1.3 alone, a certificate that changes without a restart, answers that say nothing more."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from services.kernel import https
from services.kernel.https import HttpRequest, HttpResponse, HttpsServer, client_context
from services.kernel.rpc.tls import TlsFiles
from services.stack.certificates import issue


@dataclass
class Door:
    files: TlsFiles
    client: TlsFiles
    port: int


async def answer(request: HttpRequest) -> HttpResponse:
    if request.path == "/fails":
        raise RuntimeError("a secret")
    return HttpResponse(200, request.body)


def files_of(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(https, "_ROTATION_SECONDS", 0.02)
    issue(tmp_path, ["audit", "workstation"])
    files = files_of(tmp_path, "audit")
    server = HttpsServer(answer, "127.0.0.1:0", files, 100)
    port = await server.start()
    yield Door(files, files_of(tmp_path, "workstation"), port)
    await server.stop()


async def shown(door: Door) -> int:
    """The serial number of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=client_context(door.client))
    content = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(content).serial_number


async def test_a_renewed_certificate_is_shown_without_a_restart(door: Door, tmp_path: Path) -> None:
    before = await shown(door)
    # Half-way through a change: what is in use stays in use.
    door.files.certificate.unlink()
    await asyncio.sleep(0.1)
    assert await shown(door) == before
    issue(tmp_path, ["audit"])
    async with asyncio.timeout(20):
        while await shown(door) == before:  # noqa: ASYNC110 -- the door says it in no other way
            await asyncio.sleep(0.02)


async def test_tls_1_2_does_not_get_in(door: Door) -> None:
    context = client_context(door.client)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("127.0.0.1", door.port, ssl=context)


async def test_what_goes_wrong_inside_stays_inside(door: Door) -> None:
    async with httpx.AsyncClient(verify=client_context(door.client), trust_env=False) as client:
        url = f"https://127.0.0.1:{door.port}"
        failed = await client.get(f"{url}/fails")
        assert (failed.status_code, failed.content) == (500, b"")
        assert "server" not in failed.headers
        assert (await client.post(url, content=b"x" * 100)).content == b"x" * 100
        assert (await client.post(url, content=b"x" * 101)).status_code == 413
