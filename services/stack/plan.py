"""The processes of the local stack as data, in the order in which they can start."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import yaml

from services.cli.profile import Profile
from services.cli.status import health
from services.kernel.bus.broker import BrokerSettings, command, write_configuration
from services.kernel.rpc.tls import TlsFiles
from services.stack.keys import PSEUDONYM_KEY
from services.stack.layout import CLIENT_ID, ROOT, Layout
from services.stack.supervisor import Process
from services.stack.witnesses import name_of, write_logs, write_witnesses

PEOPLE = ROOT / "deploy" / "local" / "people.yaml"


def broker(layout: Layout) -> Process:
    """nats-server with JetStream, mTLS, and permissions per service."""
    configuration = layout.home / "broker.json"
    files = _tls(layout, "broker")
    settings = BrokerSettings(port=layout.port("broker"), store_folder=layout.home / "jetstream", tls=files)
    write_configuration(configuration, settings)
    return Process("broker", command(configuration), serves=lambda: _listens(layout.port("broker")))


def issuer(layout: Layout) -> Process:
    """The local identity provider with the people of deploy/local/people.yaml."""
    port = str(layout.port("issuer"))
    people = [f"--user-claims={json.dumps(claims(name, person))}" for name, person in _people().items()]
    return Process(
        "issuer",
        (sys.executable, "-m", "oidc_provider_mock", "--port", port, "--token-max-age", "3600", *people),
        serves=lambda: _answers(f"{layout.issuer}/.well-known/openid-configuration"),
    )


def service(layout: Layout, name: str, extra: Mapping[str, str] | None = None) -> Process:
    """One of the four services."""
    database = layout.database(name)
    database.parent.mkdir(parents=True, exist_ok=True)
    files = _tls(layout, name)
    environment = {
        "SERVICE": name,
        "LISTEN": layout.address(name),
        "CERTIFICATE_FILE": str(files.certificate),
        "KEY_FILE": str(files.key),
        "CA_FILE": str(files.ca),
        "DATABASE_URL": f"sqlite:///{database}",
        **SETTINGS[name](layout),
        **(extra or {}),
    }
    prefixed = {f"PLANIER_{key}": value for key, value in environment.items()}
    return Process(name, (sys.executable, "-m", f"services.{name}"), prefixed, serves=lambda: _serves(name, layout))


def witness(layout: Layout, name: str, extra: Mapping[str, str] | None = None) -> Process:
    """One party's witness of the access log."""
    folder = layout.home / name
    folder.mkdir(parents=True, exist_ok=True)
    write_logs(layout.logs_file, layout.keys)
    files = _tls(layout, name)
    environment = {
        "LISTEN": layout.address(name),
        "CERTIFICATE_FILE": str(files.certificate),
        "KEY_FILE": str(files.key),
        "CA_FILE": str(files.ca),
        "DATABASE_URL": f"sqlite:///{folder / 'witness.db'}",
        "WITNESS_NAME": name_of(name),
        "WITNESS_KEY_FILE": str(layout.keys / f"{name}.pem"),
        "LOGS_FILE": str(layout.logs_file),
        **(extra or {}),
    }
    prefixed = {f"PLANIER_{key}": value for key, value in environment.items()}
    command = (sys.executable, "-m", "services.audit.witness")
    return Process(name, command, prefixed, serves=lambda: _listens(layout.port(name)))


def _access(layout: Layout) -> dict[str, str]:
    return {
        "AUDIT_ADDRESS": layout.address("audit"),
        "ANNEX_FILE": str(layout.annex),
        "TOKEN_KEY_FILE": str(layout.keys / "token.pem"),
        "PSEUDONYM_KEY_FILE": str(layout.keys / PSEUDONYM_KEY),
        "CITY_KEY_FILE": str(layout.keys / "city.pub"),
        "PREFECTURE_KEY_FILE": str(layout.keys / "prefecture.pub"),
        "ISSUER_URL": layout.issuer,
        "CLIENT_ID": CLIENT_ID,
    }


def _audit(layout: Layout) -> dict[str, str]:
    write_witnesses(layout.witnesses, layout.keys, lambda name: f"https://{layout.address(name)}")
    return {
        "ACCESS_ADDRESS": layout.address("access"),
        "LOG_KEY_FILE": str(layout.keys / "log.pem"),
        "PSEUDONYM_KEY_FILE": str(layout.keys / PSEUDONYM_KEY),
        "TILES_LISTEN": layout.address("tiles"),
        "WITNESSES_FILE": str(layout.witnesses),
    }


def _ingest(layout: Layout) -> dict[str, str]:
    return {
        "ACCESS_ADDRESS": layout.address("access"),
        "AUDIT_ADDRESS": layout.address("audit"),
        "NATS_URL": f"tls://{layout.address('broker')}",
        "ANNEX_FILE": str(layout.annex),
        "TERRITORY_FILE": str(layout.territory),
        "ERASURE_LEDGER_FILE": str(layout.home / "ingest" / "erasures.log"),
    }


def _analytics(layout: Layout) -> dict[str, str]:
    return {
        "ACCESS_ADDRESS": layout.address("access"),
        "AUDIT_ADDRESS": layout.address("audit"),
        "INGEST_ADDRESS": layout.address("ingest"),
        "NATS_URL": f"tls://{layout.address('broker')}",
        "ANNEX_FILE": str(layout.annex),
        "TERRITORY_FILE": str(layout.territory),
        "STEPS_URL": f"sqlite:///{layout.home / 'analytics' / 'steps.db'}",
        "LAYERS_FOLDER": str(layout.layers),
    }


SETTINGS: Mapping[str, Callable[[Layout], dict[str, str]]] = {
    "access": _access,
    "audit": _audit,
    "ingest": _ingest,
    "analytics": _analytics,
}


def claims(subject: str, person: Mapping[str, str]) -> dict[str, Any]:
    """What the provider says of a person, as ProConnect would."""
    return {
        "sub": subject,
        "given_name": person["given_name"],
        "usual_name": person["usual_name"],
        "family_name": person["usual_name"],
        "amr": ["pwd", "mfa"],
    }


def _people() -> dict[str, dict[str, str]]:
    people: dict[str, dict[str, str]] = yaml.safe_load(PEOPLE.read_text())
    return people


def _tls(layout: Layout, name: str) -> TlsFiles:
    return TlsFiles(layout.pki / f"{name}.pem", layout.pki / f"{name}.key", layout.pki / "ca.pem")


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _serves(name: str, layout: Layout) -> bool:
    profile = Profile.read(layout.profile)
    return asyncio.run(health(profile, name)) == "SERVING"
