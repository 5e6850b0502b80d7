"""Stable names in place of people: what one party sees of the other's, in the log and in the lists of access.

HMAC-SHA256 under a secret, so that nobody without it can try names against a pseudonym; the first 80 bits in base32
(RFC 4648, lower case) after the party. The same person bears the same one wherever the secret is the same.
"""

import base64
import hmac
from hashlib import sha256

_CONTEXT = b"planier-pseudonym/v1\n"
_BYTES = 10
NOBODY = "UNKNOWN"


class Pseudonyms:
    """Stable names for people under one secret of at least 32 bytes; None gives everybody of a party the same one."""

    def __init__(self, secret: bytes | None) -> None:
        if secret is not None and len(secret) < sha256().digest_size:
            raise ValueError("the pseudonym secret has at least 32 bytes")
        self._secret = secret

    def of(self, party: str, issuer: str, subject: str) -> str:
        """The pseudonym of a person."""
        return f"{party or NOBODY}-{self._code(party, issuer, subject)}"

    def of_thing(self, kind: str, name: str) -> str:
        """The pseudonym of what leads to a person: a session, a clearance, an agent's number."""
        return f"{kind}-{self._code(kind, name)}" if name else ""

    def _code(self, *parts: str) -> str:
        if self._secret is None:
            return "x" * 16
        # Lengths first: no two lists of parts share an input.
        content = _CONTEXT + b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        digest = hmac.digest(self._secret, content, "sha256")[:_BYTES]
        return base64.b32encode(digest).decode().lower()
