"""What the command line knows of an installation, and where it keeps sessions and receipts."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from services.kernel.errors import precondition
from services.kernel.rpc.tls import TlsFiles
from services.kernel.territory import Territory

HOME_VARIABLE = "PLANIER_HOME"


@dataclass(frozen=True, slots=True)
class Profile:
    """One installation as its clients see it."""

    home: Path
    addresses: dict[str, str]
    issuer: str
    client_id: str
    certificates: Path
    log_key: Path
    territory: Path
    annex: Path
    layers: Path
    # Where the access log's tiles are served, "https://host:port"; "" where they are not.
    tiles: str = ""

    @classmethod
    def load(cls) -> "Profile":
        """The profile below PLANIER_HOME, or below `var/` of the present folder; Problem where there is none."""
        home = Path(os.environ.get(HOME_VARIABLE, "var"))
        path = home / "stack.json"
        if not path.is_file():
            message = f"no installation at {home}/: start one with `make run`, or set {HOME_VARIABLE}"
            raise precondition("NO_INSTALLATION", message)
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "Profile":
        """The profile in a file."""
        content = json.loads(path.read_text())
        return cls(
            home=path.parent,
            addresses=dict(content["addresses"]),
            issuer=content["issuer"],
            client_id=content["client_id"],
            certificates=Path(content["certificates"]),
            log_key=Path(content["log_key"]),
            territory=Path(content["territory"]),
            annex=Path(content["annex"]),
            layers=Path(content.get("layers", path.parent / "layers")),
            tiles=content.get("tiles", ""),
        )

    @property
    def zone(self) -> ZoneInfo:
        """The territory's time zone: what people type and read is in it."""
        return ZoneInfo(Territory.load(self.territory).time_zone)

    def tls(self, certificate: str) -> TlsFiles:
        """The files of one client certificate."""
        folder = self.certificates
        return TlsFiles(folder / f"{certificate}.pem", folder / f"{certificate}.key", folder / "ca.pem")

    @property
    def client_folder(self) -> Path:
        """Where this user's sessions and receipts are kept."""
        folder = self.home / "client"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
