"""What the command line knows of an installation, and where it keeps sessions and receipts."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from services.kernel.rpc.tls import TlsFiles

HOME_VARIABLE = "PLANIER_HOME"


class NoInstallation(Exception):  # noqa: N818 -- what was not found
    """No profile where one was looked for."""


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

    @classmethod
    def load(cls) -> "Profile":
        """The profile below PLANIER_HOME, or below `var/` of the present folder; NoInstallation where there is none."""
        home = Path(os.environ.get(HOME_VARIABLE, "var"))
        path = home / "stack.json"
        if not path.is_file():
            raise NoInstallation(f"no installation at {home}/: start one with `make run`, or set {HOME_VARIABLE}")
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
        )

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
