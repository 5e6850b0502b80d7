"""Who gets in: TLS 1.3 with a certificate of our authority, before and after the certificates rotate."""

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from planier.ingest.v1 import ingest_pb2 as pb
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.kernel.errors import Problem
from services.kernel.rpc.tls import TlsFiles, server_credentials
from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, served
from tests.fixtures.rpc_ingest import WireServicer, batch

SERVICE = pb.DESCRIPTOR.services_by_name["IngestService"]
OFF = Telemetry.off()


async def answered(port: int, files: TlsFiles) -> bool:
    async with channel_to(port, files, OFF) as channel:
        results = await asyncio.gather(
            IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=5), return_exceptions=True
        )
    if isinstance(results[0], Problem):
        assert results[0].code is grpc.StatusCode.UNAVAILABLE
        return False
    return True


async def handshake(port: int, files: TlsFiles, version: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME)
    agreed: str | None = writer.get_extra_info("ssl_object").version()
    writer.close()
    return agreed


async def test_tls_1_3_only(tmp_path: Path) -> None:
    files = certificates(tmp_path, SERVER_NAME, CLIENT_NAME)
    async with served(files(SERVER_NAME), SERVICE, WireServicer(), OpenDoor(), OFF) as (_, port):
        assert await handshake(port, files(CLIENT_NAME), ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(port, files(CLIENT_NAME), ssl.TLSVersion.TLSv1_2)


async def test_no_call_without_a_certificate_of_our_authority(tmp_path: Path) -> None:
    files = certificates(tmp_path / "ours", SERVER_NAME, CLIENT_NAME)
    strange = certificates(tmp_path / "strange", CLIENT_NAME)(CLIENT_NAME)
    guard = OpenDoor()
    async with served(files(SERVER_NAME), SERVICE, WireServicer(), guard, OFF) as (_, port):
        address, call = f"127.0.0.1:{port}", f"/{SERVICE.full_name}/DeclareFacts"
        named = [("grpc.ssl_target_name_override", SERVER_NAME)]
        bare = grpc.ssl_channel_credentials(files(CLIENT_NAME).ca.read_bytes())
        for channel in (grpc.aio.insecure_channel(address), grpc.aio.secure_channel(address, bare, named)):
            async with channel:
                method: Any = channel.unary_unary(call)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await method(batch("A").SerializeToString(), timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        # Trusts the server, bears a certificate of another authority.
        impostor = TlsFiles(strange.certificate, strange.key, files(CLIENT_NAME).ca)
        assert not await answered(port, impostor)
        # Bears a good certificate, does not trust the server.
        distrustful = TlsFiles(files(CLIENT_NAME).certificate, files(CLIENT_NAME).key, strange.ca)
        assert not await answered(port, distrustful)
        assert guard.invocations == []
        assert await answered(port, files(CLIENT_NAME))


async def test_a_server_that_bears_another_name_is_not_believed(tmp_path: Path) -> None:
    files = certificates(tmp_path, "audit", CLIENT_NAME)
    async with served(files("audit"), SERVICE, WireServicer(), OpenDoor(), OFF) as (_, port):
        assert not await answered(port, files(CLIENT_NAME))


async def test_new_connections_use_new_certificates_and_a_half_rotation_changes_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    used = certificates(old, SERVER_NAME, CLIENT_NAME)
    fresh = certificates(new, SERVER_NAME, CLIENT_NAME)
    async with served(used(SERVER_NAME), SERVICE, WireServicer(), OpenDoor(), OFF) as (_, port):
        assert await answered(port, used(CLIENT_NAME))
        # Clients of the old authority go on while key and certificate do not fit each other.
        shutil.copy(new / f"{SERVER_NAME}.key", old / f"{SERVER_NAME}.key")
        keep = tmp_path / "keep"
        shutil.copytree(old, keep)
        kept = TlsFiles(keep / f"{CLIENT_NAME}.pem", keep / f"{CLIENT_NAME}.key", keep / "ca.pem")
        assert await answered(port, kept)
        for name in (f"{SERVER_NAME}.pem", "ca.pem"):
            shutil.copy(new / name, old / name)
        assert await answered(port, fresh(CLIENT_NAME))
        assert not await answered(port, kept)


def test_a_key_of_another_certificate_does_not_start(tmp_path: Path) -> None:
    files = certificates(tmp_path, SERVER_NAME, CLIENT_NAME)
    mixed = TlsFiles(files(SERVER_NAME).certificate, files(CLIENT_NAME).key, files(SERVER_NAME).ca)
    with pytest.raises(ValueError, match="does not belong"):
        server_credentials(mixed)
