"""Ed25519 keys of a local installation; in production each is made where it is kept."""

import os
import secrets
from pathlib import Path

from services.kernel.keys import create_key_pair
from services.stack.layout import WITNESSES

# What each key signs: internal tokens, the access log, the deed for either party, either party's cosignatures.
NAMES = ("token", "log", "city", "prefecture", *WITNESSES)


# What audit and access make pseudonyms under (services/kernel/pseudonyms.py).
PSEUDONYM_KEY = "pseudonym.key"
_SECRET_BYTES = 32


def create_keys(folder: Path) -> None:
    """Makes <name>.pem (private, mode 0600) and <name>.pub for each name that has none yet, and the secret."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        private = folder / f"{name}.pem"
        if not private.exists():
            create_key_pair(private, folder / f"{name}.pub")
    secret = folder / PSEUDONYM_KEY
    if not secret.exists():
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
