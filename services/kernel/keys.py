"""Ed25519 keys in PEM files, as a deployment hands them to services and clients.

ValueError names the file where it holds another kind of key, or none; OSError where it cannot be read.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file: PKCS 8, not encrypted."""
    content = path.read_bytes()
    try:
        key = load_pem_private_key(content, password=None)
    except (TypeError, ValueError):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds no Ed25519 private key, PEM")  # noqa: TRY004 -- the file's content is wrong
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file: SubjectPublicKeyInfo."""
    content = path.read_bytes()
    try:
        key = load_pem_public_key(content)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds no Ed25519 public key, PEM")  # noqa: TRY004 -- the file's content is wrong
    return key


def create_key_pair(private: Path, public: Path) -> None:
    """Makes a pair: the private file with mode 0600 and last, so that its presence says that the pair is whole."""
    key = Ed25519PrivateKey.generate()
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    fresh = private.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    fresh.rename(private)
