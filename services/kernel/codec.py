"""How a payload becomes the bytes that a store keeps; the place where encryption comes in."""

from typing import Protocol

IDENTITY = "identity"


class Codec(Protocol):
    """Turns payloads into stored bytes and back; commitments and the chain are over the stored bytes."""

    def encode(self, payload: bytes) -> tuple[str, bytes]:
        """The id of the key used and the bytes to store."""
        ...

    def decode(self, key_id: str, stored: bytes) -> bytes:
        """The payload again; raises `KeyUnknown` for a key that this codec never had or has destroyed."""
        ...


class KeyUnknown(LookupError):  # noqa: N818 -- a state of the key, the caller decides whether it is an error
    """The bytes were stored under a key that is not here."""


class IdentityCodec:
    """Stores payloads as they are, under the key id "identity"."""

    def encode(self, payload: bytes) -> tuple[str, bytes]:
        """The payload itself."""
        return IDENTITY, payload

    def decode(self, key_id: str, stored: bytes) -> bytes:
        """The bytes themselves."""
        if key_id != IDENTITY:
            raise KeyUnknown("the payload was stored under a key")
        return stored
