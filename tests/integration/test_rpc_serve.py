"""The life of a serving process: it serves once ready, finishes what is under way when asked to stop, ends cleanly."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, certificates, channel_to
from tests.fixtures.rpc_ingest import batch

PROGRAM = """
import asyncio, sys
from planier.ingest.v1 import ingest_pb2
from services.kernel import logs
from services.kernel.clock import SystemClock
from services.kernel.config import ServiceSettings, load
from services.kernel.rpc.door import Door
from services.kernel.rpc.server import Server, serve
from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import OpenDoor
from tests.fixtures.rpc_ingest import WireServicer

class Attempts:
    def count(self, peer, reason, times=1):
        print("counted", peer, reason, times, flush=True)

async def main():
    settings = load(ServiceSettings)
    logs.configure(settings)
    telemetry = Telemetry.start(settings)
    door = Door.open(SystemClock(), telemetry)
    servicer = WireServicer()
    servicer.gate.clear()
    async def ready():
        await asyncio.to_thread(sys.stdin.readline)
    async def release():
        await servicer.first.wait()
        print("entered", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        servicer.gate.set()
    releasing = asyncio.create_task(release())
    service = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"]
    server = Server(settings=settings, bindings=[(service, servicer)], guard=OpenDoor(), telemetry=telemetry)
    await serve(server, ready=ready(), door=door, attempts=Attempts())

asyncio.run(main())
"""


async def test_a_process_serves_when_ready_and_finishes_before_it_ends(tmp_path: Path) -> None:
    files = certificates(tmp_path, SERVER_NAME, CLIENT_NAME)
    tls = files(SERVER_NAME)
    process = subprocess.Popen(  # noqa: ASYNC220 -- starting it does not take long
        [sys.executable, "-c", PROGRAM],
        env={
            "PATH": "",
            "PLANIER_SERVICE": SERVER_NAME,
            "PLANIER_CERTIFICATE_FILE": str(tls.certificate),
            "PLANIER_KEY_FILE": str(tls.key),
            "PLANIER_CA_FILE": str(tls.ca),
            "PLANIER_DATABASE_URL": "sqlite://",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        listening = await next_message(process.stderr)
        assert listening["message"] == "listening"
        assert listening["service"] == SERVER_NAME
        async with channel_to(listening["port"], files(CLIENT_NAME), Telemetry.off()) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            question = health_pb2.HealthCheckRequest()
            before = await health.Check(question, timeout=10)
            assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
            process.stdin.write("ready\n")
            process.stdin.flush()
            assert (await next_message(process.stderr))["message"] == "serving"
            _, writer = await asyncio.open_connection("127.0.0.1", listening["port"])
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await writer.drain()
            call = asyncio.ensure_future(IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=20))
            assert await asyncio.to_thread(process.stdout.readline) == "entered\n"
            process.send_signal(signal.SIGTERM)
            assert (await next_message(process.stderr))["message"] == "draining"
            process.stdin.write("release\n")
            process.stdin.flush()
            assert (await call).verdicts[0].fact_id == "A"
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
        assert (process.returncode, err) == (0, "")
        assert out == "counted ipv4:127.0.0.1 PLAINTEXT 1\n"
        writer.close()
    finally:
        process.kill()
        process.wait()


async def next_message(lines: Any) -> dict[str, Any]:
    """The next line that is one of ours; gRPC announces its trace on a line of its own."""
    for _ in range(20):
        line = await asyncio.to_thread(lines.readline)
        if line.startswith("{"):
            message: dict[str, Any] = json.loads(line)
            return message
        assert line, "the process ended"
    raise AssertionError("no message of ours")
