"""Calls to the services as a client makes them: mTLS, a deadline each, and no answer accepted without its receipt."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import MessageToDict
from planier.common.v1.release_pb2 import ReleaseMark

from services.cli.profile import Profile
from services.kernel.guard.receipts import verify_receipt
from services.kernel.rpc.client import open_channel
from services.kernel.telemetry import Telemetry

WORKSTATION = "workstation"
DEADLINE = 30.0


class Released(Protocol):
    """Any answer that passed the guard."""

    @property
    def release(self) -> ReleaseMark:
        """The mark that the guard put on it."""
        ...


@asynccontextmanager
async def channel(profile: Profile, service: str, certificate: str = WORKSTATION) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to one service, under one of the installation's client certificates."""
    telemetry = Telemetry.off()
    opened = open_channel(profile.addresses[service], profile.tls(certificate), telemetry, server_name=service)
    try:
        yield opened
    finally:
        await opened.close()


class Receipts:
    """Checks the log's receipt on each answer and keeps it, so that its holder can later prove what was served."""

    def __init__(self, profile: Profile) -> None:
        key = load_pem_public_key(profile.log_key.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise TypeError("the log's key is not an Ed25519 key")
        self._key = key
        self._file = profile.client_folder / "receipts.jsonl"

    def keep(self, answer: Released) -> dict[str, Any]:
        """The mark as JSON, once its receipt verifies; an answer without a good one is refused."""
        verify_receipt(answer.release.receipt, self._key)
        mark: dict[str, Any] = MessageToDict(answer.release, preserving_proto_field_name=True)
        with self._file.open("a") as file:
            file.write(json.dumps(mark["receipt"], sort_keys=True) + "\n")
        return mark
