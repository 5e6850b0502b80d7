"""Ed25519 keys of a local installation; in production each is made where it is kept."""

from pathlib import Path

from services.kernel.keys import create_key_pair
from services.stack.layout import WITNESSES

# What each key signs: internal tokens, the access log, the deed for either party, either party's cosignatures.
NAMES = ("token", "log", "city", "prefecture", *WITNESSES)


def create_keys(folder: Path) -> None:
    """Makes <name>.pem (private, mode 0600) and <name>.pub for each name that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        private = folder / f"{name}.pem"
        if not private.exists():
            create_key_pair(private, folder / f"{name}.pub")
