"""What decides, by version: with a state, a request and a policy it fixes every byte of a verdict."""

import hashlib
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from zoneinfo import TZPATH

# Raised whenever the same state, request and policy come to give another verdict, be it by a word.
DECISIONS = 2
ENGINE = f"planier-decisions {DECISIONS}, cedarpy {metadata.version('cedarpy')}"


@cache
def time_zone_data(zone: str) -> str:
    """A zone's name and the SHA-256 of its rules, taken from where `zoneinfo` takes them; "" for no zone."""
    if not zone:
        return ""
    found = next((path for folder in TZPATH if (path := Path(folder, zone)).is_file()), None)
    if found is not None:
        rules = found.read_bytes()
    else:
        package, _, name = f"tzdata.zoneinfo/{zone}".replace("/", ".").rpartition(".")
        rules = resources.files(package).joinpath(name).read_bytes()
    return f"{zone} {hashlib.sha256(rules).hexdigest()}"
