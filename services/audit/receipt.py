"""Receipts: the log's signed word that it holds one record at one index."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from planier.common.v1.release_pb2 import Receipt

from services.kernel.guard.receipts import key_id_of, receipt_text


class ReceiptSigner:
    """Makes receipts with the log key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._key_id = key_id_of(key.public_key())

    def sign(self, record_id: str, index: int, leaf_hash: bytes) -> Receipt:
        """The receipt of a record that is durable and in the tree; call it after the commit only."""
        signature = self._key.sign(receipt_text(record_id, index, leaf_hash))
        return Receipt(record_id=record_id, index=index, leaf_hash=leaf_hash, signature=signature, key_id=self._key_id)


def load_log_key(path: Path) -> Ed25519PrivateKey:
    """The log key from a PEM file (PKCS #8, not encrypted); ValueError where it holds none."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds no Ed25519 private key, PEM")  # noqa: TRY004 -- the file's content is wrong
    return key


def create_log_key(path: Path) -> None:
    """Writes a fresh log key, readable by its owner only; FileExistsError rather than replace one."""
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
