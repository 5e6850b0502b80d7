"""Settings of a witness."""

from pathlib import Path
from typing import Annotated

from pydantic import FilePath, StringConstraints

from services.audit.note import NoteError, NoteVerifier
from services.kernel.config import CannotStart, ServiceSettings


class WitnessSettings(ServiceSettings):
    """Whose witness it is, and which logs it knows."""

    service: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")] = "witness"
    # Its key name in cosignatures: a URL without scheme, by convention.
    witness_name: Annotated[str, StringConstraints(pattern=r"^[^\s+]{1,200}$")]
    # Ed25519 private key, PEM (PKCS #8).
    witness_key_file: FilePath
    # One C2SP verifier key a line, one log a key; blank lines and those that begin with # are skipped.
    logs_file: FilePath


def read_logs(path: Path) -> dict[str, NoteVerifier]:
    """The logs of a file, by origin, which is the name of a log's key; CannotStart where the file is not one."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    try:
        found = [NoteVerifier.parse(line) for line in lines if line and not line.startswith("#")]
    except NoteError as error:
        raise CannotStart(f"{path}: {error}") from error
    logs = {verifier.name: verifier for verifier in found}
    if not logs or len(logs) != len(found):
        raise CannotStart(f"{path}: one verifier key for each log, and one log at least")
    return logs
