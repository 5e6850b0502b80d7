"""The broker's configuration: who may do what, and what makes an acknowledgement durable."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.kernel.bus.base import TOPICS
from services.kernel.bus.broker import BrokerSettings, configuration, locate_server, write_configuration
from services.kernel.rpc.tls import TlsFiles

FILES = TlsFiles(Path("broker.pem"), Path("broker.key"), Path("ca.pem"))


def written(tls: TlsFiles | None = FILES) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(configuration(BrokerSettings(4222, Path("store"), tls)))
    return content


def permissions(service: str) -> dict[str, list[str]]:
    users = {user["user"]: user["permissions"] for user in written()["accounts"]["PLANIER"]["users"]}
    granted = users[f"spiffe://planier/{service}"]
    return {verb: rule["allow"] for verb, rule in granted.items()}


def test_an_acknowledged_message_is_on_disk() -> None:
    assert written()["jetstream"]["sync_interval"] == "always"


def test_nobody_connects_without_a_certificate_or_from_elsewhere() -> None:
    content = written()
    assert content["listen"] == "127.0.0.1:4222"
    assert content["tls"]["verify_and_map"] is True
    assert content["tls"]["min_version"] == "1.3"


def test_each_hears_only_its_own_replies() -> None:
    for topic in TOPICS:
        for name in (topic.owner, *topic.readers):
            assert permissions(name)["subscribe"] == [f"_INBOX.{name}.>"]


def test_a_reader_consumes_and_nothing_else() -> None:
    assert permissions("analytics")["publish"] == [
        f"$JS.API.CONSUMER.{verb}.INGEST.>" for verb in ("CREATE", "MSG.NEXT", "DELETE")
    ]


def test_an_owner_has_only_its_own_stream() -> None:
    granted = permissions("ingest")["publish"]
    assert "planier.ingest.events" in granted
    assert all(".INGEST" in subject for subject in granted if subject.startswith("$JS"))


def test_storage_is_private(tmp_path: Path) -> None:
    write_configuration(tmp_path / "nats.conf", BrokerSettings(4222, tmp_path / "js", FILES))
    assert (tmp_path / "js").stat().st_mode & 0o077 == 0


def test_the_server_is_the_wheels_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PLANIER_NATS_SERVER", raising=False)
    assert locate_server().name == "nats-server"
    monkeypatch.setenv("PLANIER_NATS_SERVER", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        locate_server()
