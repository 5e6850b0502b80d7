"""What analytics needs from its environment."""

from pathlib import Path
from typing import Literal

from pydantic import FilePath

from services.kernel.config import Address, ServiceSettings


class AnalyticsSettings(ServiceSettings):
    """Ingest is followed, access decides, audit records: all three must be named. Without a bus, ingest is polled.

    Annex 1 gives the smallest counts that may be shown. Without a folder of layers there are no zones to count by.
    """

    service: Literal["analytics"] = "analytics"
    ingest_address: Address
    access_address: Address
    audit_address: Address
    annex_file: FilePath
    # Where `planier layer import` puts reference layers.
    layers_folder: Path | None = None
    # The columns of the map in memory: some 90 MB a million facts. Without them SQL answers, the same.
    columns_in_memory: bool = True
