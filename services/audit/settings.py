"""Settings of the audit service, beside those of every service."""

from typing import Annotated

from pydantic import Field, FilePath, StringConstraints

from services.kernel.config import Address, OptionalAddress, ServiceSettings

LOG_ORIGIN = "planier.local/access-log"


class AuditSettings(ServiceSettings):
    """The log key signs checkpoints and receipts; who verifies knows the log by it and by its origin."""

    access_address: Address
    # Ed25519 private key, PEM (PKCS #8).
    log_key_file: FilePath
    # First line of a checkpoint and name of its key (c2sp.org/tlog-checkpoint): once in use it never changes.
    log_origin: Annotated[str, StringConstraints(pattern=r"^[^\s+]{1,200}$")] = LOG_ORIGIN
    # Where checkpoints, tiles and entries are served over HTTPS (c2sp.org/tlog-tiles); empty: nowhere.
    tiles_listen: OptionalAddress = ""
    # The parties' witnesses (services/audit/witnesses.py); without a file nothing is ever witnessed.
    witnesses_file: FilePath | None = None
    # 32 random bytes or more: pseudonyms are stable for as long as this file is. Without it, all people of a party
    # look the same to the other.
    pseudonym_key_file: FilePath | None = None
    # Between two turns of the self-check, each of 4,096 records.
    watch_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
