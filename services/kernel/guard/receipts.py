"""The log's signed receipt: what it is signed over, and how a client verifies the one in its answer."""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.common.v1.release_pb2 import Receipt


class ReceiptError(Exception):
    """An answer came without proof that it was recorded: a client must not use it."""


def key_id_of(key: Ed25519PublicKey) -> str:
    """RFC 4648 hex of the first 4 bytes of SHA-256(public key); names log keys and token keys alike."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:4].hex()


def receipt_text(record_id: str, index: int, leaf_hash: bytes) -> bytes:
    """The bytes that the log key signs (release.proto, Receipt)."""
    leaf = base64.b64encode(leaf_hash).decode()
    return f"planier-receipt/v1\n{record_id}\n{index}\n{leaf}\n".encode()


def verify_receipt(receipt: Receipt, key: Ed25519PublicKey) -> None:
    """Accepts only a complete receipt signed by this log key.

    Raises:
        ReceiptError: absent, incomplete, of another key, or with a signature that does not verify.
    """
    if not is_receipt_of(receipt, receipt.record_id):
        raise ReceiptError("the answer bears no complete receipt")
    if receipt.key_id != key_id_of(key):
        raise ReceiptError("the receipt names another log key")
    try:
        key.verify(receipt.signature, receipt_text(receipt.record_id, receipt.index, receipt.leaf_hash))
    except InvalidSignature as error:
        raise ReceiptError("the receipt's signature does not verify") from error


def is_receipt_of(receipt: Receipt, record_id: str) -> bool:
    """Whether this is a complete receipt of that record, its signature not verified."""
    return (
        bool(record_id)
        and receipt.record_id == record_id
        and len(receipt.leaf_hash) == hashlib.sha256().digest_size
        and bool(receipt.signature)
    )
