"""Where the local stack keeps things, and which ports it takes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("access", "audit", "ingest", "analytics")
CLIENTS = ("cortege", "city-importer", "workstation")
# Of each witness of the access log, the party that runs it.
WITNESSES = {"city-witness": "CITY", "prefecture-witness": "PREFECTURE"}
CERTIFIED = ("broker", *SERVICES, *WITNESSES, *CLIENTS)
# Order of the ports above the base.
PORTS = ("broker", "issuer", *SERVICES, "tiles", *WITNESSES)
CLIENT_ID = "planier"


@dataclass(frozen=True, slots=True)
class Layout:
    """One installation below a folder (`var/`), on consecutive loopback ports from a base."""

    home: Path
    port_base: int
    territory: Path

    def port(self, name: str) -> int:
        """The port of one process."""
        return self.port_base + PORTS.index(name)

    def address(self, name: str) -> str:
        """host:port of one process."""
        return f"127.0.0.1:{self.port(name)}"

    @property
    def pki(self) -> Path:
        """Certificates and their keys."""
        return self.home / "pki"

    @property
    def keys(self) -> Path:
        """Signing keys: tokens, the log, the two parties."""
        return self.home / "keys"

    @property
    def witnesses(self) -> Path:
        """The witnesses that the access log asks, as the parties agreed on them."""
        return self.home / "witnesses.json"

    @property
    def logs_file(self) -> Path:
        """The logs that the witnesses know."""
        return self.home / "witnessed-logs"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.home / "log"

    @property
    def profile(self) -> Path:
        """What a client needs to know of this installation."""
        return self.home / "stack.json"

    @property
    def ready(self) -> Path:
        """Holds the supervisor's pid exactly while everything serves."""
        return self.home / "ready"

    @property
    def issuer(self) -> str:
        """The identity provider's issuer URL."""
        return f"http://{self.address('issuer')}"

    @property
    def annex(self) -> Path:
        """Annex 1, as the founding deed hashes it."""
        return ROOT / "deploy" / "annex" / "annex-1.json"

    @property
    def layers(self) -> Path:
        """Reference layers, as `planier layer import` keeps them."""
        return self.home / "layers"

    def database(self, service: str) -> Path:
        """A service's own SQLite file."""
        return self.home / service / f"{service}.db"

    def write_profile(self) -> None:
        """Writes the client's profile."""
        content: dict[str, Any] = {
            "addresses": {service: self.address(service) for service in SERVICES},
            "broker": self.address("broker"),
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "certificates": str(self.pki),
            "log_key": str(self.keys / "log.pub"),
            "tiles": f"https://{self.address('tiles')}",
            "witnesses": str(self.witnesses),
            "territory": str(self.territory),
            "annex": str(self.annex),
            "layers": str(self.layers),
        }
        self.profile.write_text(json.dumps(content, indent=2) + "\n")
