"""The two parties' witnesses of a local installation: their files, as each party would keep them."""

import json
from collections.abc import Callable
from pathlib import Path

from services.audit.cosignature import Cosigner
from services.audit.note import NoteVerifier
from services.audit.settings import LOG_ORIGIN
from services.kernel.keys import read_public_key
from services.stack.layout import WITNESSES


def name_of(witness: str) -> str:
    """A witness's key name."""
    return f"planier.local/{witness}"


def write_witnesses(path: Path, keys: Path, url: Callable[[str], str]) -> None:
    """Writes the log's list of witnesses, each at its `url`; the keys are in their folder already."""
    listed = [
        {
            "party": party,
            "verifier_key": Cosigner(name_of(name), read_public_key(keys / f"{name}.pub")).text(),
            "url": url(name),
        }
        for name, party in WITNESSES.items()
    ]
    path.write_text(json.dumps(listed, indent=2) + "\n")


def write_logs(path: Path, keys: Path) -> None:
    """Writes the list of logs that the witnesses know; once, as a witness learns a log's later keys from the log."""
    if not path.exists():
        path.write_text(NoteVerifier(LOG_ORIGIN, read_public_key(keys / "log.pub")).text() + "\n")
