"""A long-lived stream between two of our services: it ends with the server's drain, and is opened anew by itself."""

import asyncio
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1 import access_pb2
from planier.access.v1.access_pb2 import CheckItem

from services.kernel.guard.remote import RemoteChecker
from services.kernel.rpc.server import DRAIN_SECONDS
from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, served
from tests.integration.test_telemetry_batches import SERVICE, Access

ITEM = CheckItem(check_id="1", subject=access_pb2.Subject(), decision_time=Timestamp(seconds=1))


async def test_an_open_stream_does_not_hold_up_a_drain(tmp_path: Path) -> None:
    files, access, telemetry = certificates(tmp_path, SERVER_NAME, CLIENT_NAME), Access(), Telemetry.off()
    access.first_may_go.set()
    async with (
        served(files(SERVER_NAME), SERVICE, access, OpenDoor(), telemetry) as (server, port),
        channel_to(port, files(CLIENT_NAME), telemetry) as channel,
    ):
        checker = RemoteChecker(channel, telemetry)
        await checker.check(ITEM)
        async with asyncio.timeout(DRAIN_SECONDS / 2):
            await server.drain(DRAIN_SECONDS)
        await checker.close()


async def test_what_was_asked_is_answered_before_the_stream_ends(tmp_path: Path) -> None:
    files, access, telemetry = certificates(tmp_path, SERVER_NAME, CLIENT_NAME), Access(), Telemetry.off()
    async with (
        served(files(SERVER_NAME), SERVICE, access, OpenDoor(), telemetry) as (server, port),
        channel_to(port, files(CLIENT_NAME), telemetry) as channel,
    ):
        checker = RemoteChecker(channel, telemetry)
        asked = asyncio.create_task(checker.check(ITEM))
        async with asyncio.timeout(5):
            while not access.sizes:  # noqa: ASYNC110 -- the server's state
                await asyncio.sleep(0.01)
        draining = asyncio.create_task(server.drain(DRAIN_SECONDS))
        await asyncio.sleep(0)
        access.first_may_go.set()
        assert (await asked).verdict.check_id == ITEM.check_id
        await draining
        await checker.close()
