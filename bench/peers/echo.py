"""A bare grpc.aio echo over mTLS: the ceiling of any call. Usage: python -m bench.peers.echo PKI (prints its port)."""

import asyncio
import sys
from pathlib import Path

import grpc
import uvloop

from services.kernel.rpc.tls import TlsFiles, server_credentials

METHOD = "/bench.Echo/Echo"


async def serve(pki: Path) -> None:
    """Serves until killed."""

    async def echo(request: bytes, _: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    files = TlsFiles(pki / "analytics.pem", pki / "analytics.key", pki / "ca.pem")
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve(Path(sys.argv[1])))
