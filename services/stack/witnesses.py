"""The two parties' witnesses of a local installation: their files, as each party would keep them."""

import json

from services.audit.cosignature import Cosigner
from services.audit.note import NoteVerifier
from services.audit.settings import LOG_ORIGIN
from services.kernel.keys import read_public_key
from services.stack.layout import WITNESSES, Layout


def name_of(witness: str) -> str:
    """A witness's key name."""
    return f"planier.local/{witness}"


def write_witnesses(layout: Layout) -> None:
    """Writes the log's list of witnesses; the keys are there already."""
    listed = [
        {
            "party": party,
            "verifier_key": Cosigner(name_of(name), read_public_key(layout.keys / f"{name}.pub")).text(),
            "url": f"https://{layout.address(name)}",
        }
        for name, party in WITNESSES.items()
    ]
    layout.witnesses.write_text(json.dumps(listed, indent=2) + "\n")


def write_logs(layout: Layout) -> None:
    """Writes the list of logs that the witnesses know; once, as a witness learns a log's later keys from the log."""
    if not layout.logs_file.exists():
        layout.logs_file.write_text(NoteVerifier(LOG_ORIGIN, read_public_key(layout.keys / "log.pub")).text() + "\n")
