"""Receipts: the log's signed word that it holds one record at one index."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
