"""Real connections that fail at the door are counted with their peer and reason, in a process of their own."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from services.kernel.rpc.door import UNKNOWN, HandshakeLog
from tests.fixtures.knocking import client_context, knock
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, certificates

# The door stands on the process's standard error: what it reads must be a process's own.
PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from planier.ingest.v1 import ingest_pb2
from services.kernel.clock import SystemClock
from services.kernel.rpc.door import TLS_TOO_OLD, Door
from services.kernel.telemetry import Telemetry
from tests.fixtures.knocking import client_context, knock
from tests.fixtures.rpc import OpenDoor, certificates, channel_to, served
from tests.fixtures.rpc_ingest import WireServicer, batch
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

async def main():
    files = certificates(Path(sys.argv[1]), "ingest", "cortege")
    door = Door.open(SystemClock(), Telemetry.off())
    service = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"]
    async with served(files("ingest"), service, WireServicer(), OpenDoor(), Telemetry.off()) as (_, port):
        await door.take_back(TLS_TOO_OLD)  # the server's own question, whose line may come late
        async with channel_to(port, files("cortege"), Telemetry.off()) as channel:
            await IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=10)
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    os.write(2, b"another library's line\\n")
    print("python's line", file=sys.stderr)
    door.close()
    print(json.dumps([[peer, reason, count] for (peer, _, reason), count in door.counts.drain().items()]))

asyncio.run(main())
"""


def test_each_failure_is_counted_by_peer_and_reason(tmp_path: Path) -> None:
    trusted, strange = tmp_path / "trusted", tmp_path / "strange"
    certificates(strange, CLIENT_NAME)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(trusted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        knock(port, None)
        knock(port, None)
        knock(port, client_context(trusted))
        knock(port, client_context(strange, CLIENT_NAME))
        knock(port, client_context(trusted, SERVER_NAME, ssl.TLSVersion.TLSv1_2))
        out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert sorted(json.loads(out)) == [
        ["ipv4:127.0.0.1", "CERTIFICATE_MISSING", 1],
        ["ipv4:127.0.0.1", "CERTIFICATE_UNTRUSTED", 1],
        ["ipv4:127.0.0.1", "PLAINTEXT", 2],
        ["ipv4:127.0.0.1", "TLS_TOO_OLD", 1],
    ]
    assert "another library's line\n" in err
    assert "python's line\n" in err
    assert "andshake failed" not in err


@pytest.mark.parametrize(
    ("word", "reason"), [("WRONG_VERSION_NUMBER", "PLAINTEXT"), ("SOMETHING_NEW", "HANDSHAKE_FAILED")]
)
def test_without_the_trace_the_peer_is_unknown(word: str, reason: str) -> None:
    seen: list[tuple[str, str]] = []
    log = HandshakeLog(lambda *refusal: seen.append(refusal))
    line = f"I1123 22:21:53.761505   12370 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: \
error:100000f7:SSL routines:OPENSSL_internal:{word}: Invalid certificate verification context"
    assert log.is_ours(line.encode())
    assert seen == [(UNKNOWN, reason)]


def test_lines_of_others_pass() -> None:
    log = HandshakeLog(lambda *_: pytest.fail("nothing failed"))
    assert log.is_ours(b"I1123 22:21:53.761505   12370 trace.cc:91] gRPC Tracers: handshaker")
    for line in (b"", b"=== a heading", b'{"message": "ours"}', b"E1123 22:21:53.761505   12370 other.cc:1] text"):
        assert not log.is_ours(line)
