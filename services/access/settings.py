"""Settings of the access service, beside those of every service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, FilePath, StringConstraints

from services.kernel.config import Address, ServiceSettings

# RFC 8176: the methods that only a second factor produces.
SECOND_FACTORS = ("mfa", "otp", "hwk", "swk", "sc", "fpt", "face", "iris", "vbm", "pop")


class AccessSettings(ServiceSettings):
    """Files hold the keys; the issuer is any OpenID Connect provider."""

    # Every answer is recorded there before it leaves.
    audit_address: Address
    # Annex 1: the deed must name its hash.
    annex_file: FilePath
    # Ed25519 private key, PEM: signs internal tokens.
    token_key_file: FilePath
    # 32 random bytes or more, audit's own file: a person hidden from the other party bears one pseudonym in both.
    pseudonym_key_file: FilePath
    # Ed25519 public keys, PEM, as the deployment was handed them: keys inside a deed prove nothing alone.
    city_key_file: FilePath
    prefecture_key_file: FilePath
    # https, or http on this machine.
    issuer_url: Annotated[
        str, StringConstraints(pattern=r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])[^\s@]+$")
    ]
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    # A login counts as multi-factor when `amr` holds one of these, or `acr` is one of those.
    accepted_amr: frozenset[str] = Field(default=frozenset(SECOND_FACTORS))
    accepted_acr: frozenset[str] = frozenset()

    @property
    def party_key_files(self) -> tuple[Path, Path]:
        """The City's and the Préfecture's."""
        return self.city_key_file, self.prefecture_key_file
