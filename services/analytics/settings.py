"""What analytics needs from its environment."""

from typing import Literal

from pydantic import FilePath

from services.kernel.config import Address, ServiceSettings


class AnalyticsSettings(ServiceSettings):
    """Ingest is followed, access decides, audit records: all three must be named. Without a bus, ingest is polled."""

    service: Literal["analytics"] = "analytics"
    ingest_address: Address
    access_address: Address
    audit_address: Address
    annex_file: FilePath
    territory_file: FilePath
