"""Settings of the ingest service, beside those of every service."""

from pathlib import Path

from pydantic import FilePath

from services.kernel.config import Address, ServiceSettings


class IngestSettings(ServiceSettings):
    """Annex 1 and the territory are files; so is the ledger of erasures, which must outlive the database."""

    access_address: Address
    audit_address: Address
    annex_file: FilePath
    territory_file: FilePath
    # Kept, and backed up, apart from the database: a restored copy of the database forgets again by it.
    erasure_ledger_file: Path
