"""Ed25519 keys of a local installation; in production each is made where it is kept."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

# What each key signs: internal tokens, the access log, and the deed for either party.
NAMES = ("token", "log", "city", "prefecture")


def create_keys(folder: Path) -> None:
    """Makes <name>.pem (PKCS 8, mode 0600) and <name>.pub (PEM) for each name that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        private = folder / f"{name}.pem"
        if private.exists():
            continue
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
        # The private key last: its presence says that the pair is whole.
        fresh = private.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        fresh.rename(private)
