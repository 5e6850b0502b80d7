"""The ingest path with no product in it: mTLS gRPC batches -> SQL commit -> JetStream ack -> SQL commit.

Two processes beside the broker: `ingest` answers a batch once it is committed to its own database and published;
`writer` consumes and commits to the second. Usage: python -m bench.peers.pipeline ROLE CONFIG.json (internal).
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import nats
import psycopg
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig
from planier.ingest.v1.ingest_pb2 import DeclareFactsRequest, StreamFactsRequest

from services.kernel.rpc.tls import TlsFiles, server_credentials

METHOD = "/bench.Pipeline/Stream"
CREATE = (
    "CREATE TABLE IF NOT EXISTS ev (id text PRIMARY KEY, source text, kind text, ts {int}, lon {real}, lat {real},"
    " body {blob})"
)
SQLITE = CREATE.format(int="integer", real="real", blob="blob")
POSTGRES = CREATE.format(int="int8", real="float8", blob="bytea")
UNNEST = (
    "INSERT INTO ev SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::int8[], %b::float8[], %b::float8[],"
    " %b::bytea[]) ON CONFLICT DO NOTHING"
)
Write = Callable[[Sequence[tuple[Any, ...]]], None]


def writer_of(url: str) -> Write:
    """Opens the table and returns what commits rows to it; durable as each engine's defaults for that word."""
    if url.startswith("postgresql"):
        postgres = psycopg.connect(url)
        postgres.execute(POSTGRES)
        postgres.execute("CREATE INDEX IF NOT EXISTS i ON ev(ts)")
        # How many there are, for who measures: counting a growing table again and again would slow the peer down.
        postgres.execute("CREATE TABLE IF NOT EXISTS written AS SELECT 0::int8 AS n")
        postgres.commit()

        def commit_postgres(rows: Sequence[tuple[Any, ...]]) -> None:
            postgres.execute(UNNEST, [list(column) for column in zip(*rows, strict=True)])
            postgres.execute("UPDATE written SET n = n + %s", [len(rows)])
            postgres.commit()

        return commit_postgres
    sqlite = sqlite3.connect(url, isolation_level=None, check_same_thread=False)
    sqlite.execute("PRAGMA journal_mode=WAL")
    sqlite.execute("PRAGMA synchronous=FULL")
    sqlite.execute(SQLITE)
    sqlite.execute("CREATE INDEX IF NOT EXISTS i ON ev(ts)")

    def commit_sqlite(rows: Sequence[tuple[Any, ...]]) -> None:
        sqlite.execute("BEGIN IMMEDIATE")
        sqlite.executemany("INSERT OR IGNORE INTO ev VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        sqlite.execute("COMMIT")

    return commit_sqlite


def rows_of(batch: DeclareFactsRequest) -> list[tuple[Any, ...]]:
    """One row a fact."""
    return [
        (
            fact.source_id,
            fact.source,
            fact.kind,
            fact.periods[0].start.seconds,
            fact.geometry.point.longitude,
            fact.geometry.point.latitude,
            fact.SerializeToString(),
        )
        for fact in batch.facts
    ]


async def ingest(config: dict[str, Any]) -> None:
    """Serves until killed."""
    client = await nats.connect(config["nats"])
    stream = client.jetstream(timeout=10)
    await stream.add_stream(StreamConfig(name="EV", subjects=["ev.>"], storage=StorageType.FILE))
    write = writer_of(config["first"])
    lock = asyncio.Lock()

    async def put(raw: bytes) -> bytes:
        batch = StreamFactsRequest.FromString(raw).batch
        for fact in batch.facts:  # the least validation that a door would do
            if not (fact.source_id and -180 <= fact.geometry.point.longitude <= 180):
                raise ValueError("bad fact")
        async with lock:
            await asyncio.to_thread(write, rows_of(batch))
        await stream.publish("ev.a", batch.SerializeToString())
        return len(batch.facts).to_bytes(4, "big")

    async def handle(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(8)

        async def read() -> None:
            async for raw in requests:
                await under_way.put(asyncio.create_task(put(raw)))
            await under_way.put(None)

        reader = asyncio.create_task(read())
        while (task := await under_way.get()) is not None:
            yield await task
        await reader

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(handle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Pipeline", {"Stream": handler}),))
    pki = Path(config["pki"])
    files = TlsFiles(pki / "ingest.pem", pki / "ingest.key", pki / "ca.pem")
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def writer(config: dict[str, Any]) -> None:
    """Consumes until killed."""
    client = await nats.connect(config["nats"])
    options = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=10_000)
    subscription = await client.jetstream(timeout=10).pull_subscribe("ev.>", "w", config=options)
    write = writer_of(config["second"])
    print("up", flush=True)
    while True:
        try:
            messages = await subscription.fetch(16, timeout=1)
        except TimeoutError:
            continue
        if not messages:
            continue
        write([row for message in messages for row in rows_of(DeclareFactsRequest.FromString(message.data))])
        await messages[-1].ack()


if __name__ == "__main__":
    uvloop.install()
    settings = json.loads(Path(sys.argv[2]).read_text())
    asyncio.run({"ingest": ingest, "writer": writer}[sys.argv[1]](settings))
