"""Calls to the services as a client makes them: mTLS, a deadline each, and no answer accepted without its receipt."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
from google.protobuf.json_format import MessageToDict
from planier.common.v1.release_pb2 import ReleaseMark

from services.cli.profile import Profile
from services.kernel.guard.receipts import verify_receipt
from services.kernel.keys import read_public_key
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
        self._key = read_public_key(profile.log_key)
        self._file = profile.client_folder / "receipts.jsonl"

    def keep(self, answer: Released) -> dict[str, Any]:
        """The mark as JSON, once its receipt verifies; an answer without a good one is refused."""
        verify_receipt(answer.release.receipt, self._key)
        mark: dict[str, Any] = MessageToDict(answer.release, preserving_proto_field_name=True)
        with self._file.open("a") as file:
            file.write(json.dumps(mark["receipt"], sort_keys=True) + "\n")
        return mark
