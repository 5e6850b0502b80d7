# ruff: noqa: ARG002 -- the methods have the shape that the server calls
"""Ingest waits for the signed annex over real mTLS, and goes no further with another one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from planier.access.v1.access_pb2 import DESCRIPTOR, GetCommitmentsRequest, GetCommitmentsResponse
from planier.access.v1.access_pb2_grpc import AccessServiceStub

from services.kernel import annex
from services.kernel.annex import AnnexMismatchError, await_signed
from services.kernel.rpc.call import Call
from services.kernel.telemetry import Telemetry
from tests.fixtures.ingest import REGISTRY
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, served

SERVICE = DESCRIPTOR.services_by_name["AccessService"]


class Commitments:
    """Commits to the annexes of a list, one a call, then to the last one."""

    def __init__(self, *annexes: str) -> None:
        self.annexes = list(annexes)
        self.asked = 0

    async def GetCommitments(self, request: GetCommitmentsRequest, call: Call) -> GetCommitmentsResponse:
        self.asked += 1
        return GetCommitmentsResponse(annex_hash=self.annexes.pop(0) if len(self.annexes) > 1 else self.annexes[0])


async def _unused(request: object, call: Call) -> None:
    raise NotImplementedError


async def _unused_stream(request: object, call: Call) -> AsyncIterator[None]:
    nothing: tuple[None, ...] = ()
    for each in nothing:
        yield each


for _method in SERVICE.methods:
    if not hasattr(Commitments, _method.name):
        setattr(Commitments, _method.name, _unused_stream if _method.server_streaming else _unused)


async def wait_for(commitments: Commitments, folder: Path) -> None:
    files = certificates(folder, SERVER_NAME, CLIENT_NAME)
    telemetry = Telemetry.off()
    async with (
        served(files(SERVER_NAME), SERVICE, commitments, OpenDoor(), telemetry) as (_, port),
        channel_to(port, files(CLIENT_NAME), telemetry) as channel,
        asyncio.timeout(20),
    ):
        await await_signed(AccessServiceStub(channel), REGISTRY)


async def test_waits_until_a_convention_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annex, "PAUSE_SECONDS", 0.01)
    commitments = Commitments("", "", REGISTRY.hash)
    await wait_for(commitments, tmp_path)
    assert commitments.asked == 3


async def test_another_annex_ends_it(tmp_path: Path) -> None:
    with pytest.raises(AnnexMismatchError, match=REGISTRY.hash):
        await wait_for(Commitments("0" * 64), tmp_path)


async def test_waits_for_an_access_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annex, "PAUSE_SECONDS", 0.01)
    files = certificates(tmp_path, SERVER_NAME, CLIENT_NAME)
    telemetry = Telemetry.off()
    async with served(files(SERVER_NAME), SERVICE, Commitments(REGISTRY.hash), OpenDoor(), telemetry) as (server, port):
        await server.drain(0)
        async with channel_to(port, files(CLIENT_NAME), telemetry) as channel:
            waiting = asyncio.create_task(await_signed(AccessServiceStub(channel), REGISTRY))
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
