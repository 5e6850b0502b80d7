"""What analytics needs from its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import FilePath, StringConstraints

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
    territory_file: FilePath
    # People's steps on conflicts: a store that no rebuild gives back. Empty: in the read model's own database.
    steps_url: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+(\+[a-z0-9]+)?://\S+)?$")] = ""
    # Where `planier layer import` puts reference layers.
    layers_folder: Path | None = None
    # The columns of the map in memory: some 90 MB a million facts. Without them SQL answers, the same.
    columns_in_memory: bool = True
