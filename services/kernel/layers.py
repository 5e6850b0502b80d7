"""Reference layers: the zones that a city counts by (quartiers, arrondissements), imported from GeoJSON.

A layer is public reference data, not facts. It lies in a folder of the deployment, like the territory's file: whoever
administers the installation imports it, nobody through a service. Each import is kept under the SHA-256 of its bytes
and dated in an index that only grows, so that a question as of a past moment is answered in the zones of that moment.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import shapely
from shapely.geometry.base import BaseGeometry

MOST_ZONES: Final = 5_000
LARGEST: Final = 64 * 1024 * 1024
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_INDEX: Final = "layers.jsonl"
_CRS84: Final = ("CRS84", "EPSG::4326", "EPSG:4326")
_AREAS: Final = ("Polygon", "MultiPolygon")


class LayerError(ValueError):
    """The file is not a layer of zones; the message says where."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone: its code, unique in the layer, the name that people know, and its shape in WGS 84."""

    code: str
    name: str
    shape: BaseGeometry


@dataclass(frozen=True, slots=True)
class Layer:
    """One version of a layer; zones by code."""

    name: str
    hash: str
    imported_at: datetime
    zones: tuple[Zone, ...]


def zones_of(document: object, code: str, label: str) -> tuple[Zone, ...]:
    """The zones of a GeoJSON FeatureCollection, by two of its properties; features of one code are one zone.

    Raises LayerError: another coordinate system, a feature that is no valid area, without code or name, or too many.
    """
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        raise LayerError("a GeoJSON FeatureCollection is expected")
    system = document.get("crs", {}).get("properties", {}).get("name", "CRS84")
    if not str(system).endswith(_CRS84):
        raise LayerError("coordinates must be WGS 84 degrees (RFC 7946)")
    parts: dict[str, list[BaseGeometry]] = {}
    names: dict[str, str] = {}
    for index, feature in enumerate(document.get("features") or ()):
        where = f"features[{index}]"
        properties = (feature.get("properties") if isinstance(feature, dict) else None) or {}
        key, name = _text(properties, code, where), _text(properties, label, where)
        if names.setdefault(key, name) != name:
            raise LayerError(f"{where}: one code has two names")
        parts.setdefault(key, []).append(_area(feature.get("geometry"), where))
    if not 0 < len(parts) <= MOST_ZONES:
        raise LayerError(f"between 1 and {MOST_ZONES} zones are expected")
    merged = ((key, shapely.union_all(shapes) if len(shapes) > 1 else shapes[0]) for key, shapes in parts.items())
    return tuple(Zone(key, names[key], shape) for key, shape in sorted(merged, key=lambda pair: pair[0]))


class LayerFolder:
    """The layers of one installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[tuple[str, str], tuple[Zone, ...]] = {}

    def keep(self, name: str, zones: Sequence[Zone], at: datetime) -> Layer:
        """Makes these zones the layer's newest version; the same bytes as the newest are not imported twice."""
        if not _NAME.fullmatch(name):
            raise LayerError("a layer's name has small letters, digits and hyphens")
        data = _normalised(zones)
        digest = hashlib.sha256(data).hexdigest()
        newest = self.find(name)
        if newest is not None and newest.hash == digest:
            return newest
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._folder / f"{digest}.geojson", data)
        entry = {"name": name, "hash": digest, "imported_at": at.astimezone(UTC).isoformat()}
        with (self._folder / _INDEX).open("a") as index:
            index.write(json.dumps(entry, sort_keys=True) + "\n")
            index.flush()
            os.fsync(index.fileno())
        return Layer(name, digest, at, tuple(zones))

    def names(self) -> tuple[str, ...]:
        """Every layer that was ever imported."""
        return tuple(sorted({entry["name"] for entry in self._entries()}))

    def find(self, name: str, at: datetime | None = None) -> Layer | None:
        """The layer as it was in use at an instant, now where none is given; None where there was none.

        Raises LayerError: its file was altered.
        """
        entry = None
        for candidate in self._entries():
            if candidate["name"] == name and (at is None or datetime.fromisoformat(candidate["imported_at"]) <= at):
                entry = candidate
        if entry is None:
            return None
        zones = self._zones(name, entry["hash"])
        return Layer(name, entry["hash"], datetime.fromisoformat(entry["imported_at"]), zones)

    def _zones(self, name: str, digest: str) -> tuple[Zone, ...]:
        known = self._read.get((name, digest))
        if known is None:
            data = (self._folder / f"{digest}.geojson").read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise LayerError("a layer's file is not the one that was imported")
            known = self._read[name, digest] = zones_of(json.loads(data), "code", "name")
        return known

    def _entries(self) -> Iterable[dict[str, str]]:
        index = self._folder / _INDEX
        return [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []


def read_geojson(path: Path) -> Any:
    """The document in a file. Raises LayerError: too large, or not JSON."""
    if path.stat().st_size > LARGEST:
        raise LayerError(f"{path.name}: larger than {LARGEST // 1024 // 1024} MiB")
    try:
        return json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise LayerError(f"{path.name}: not JSON") from None


def _text(properties: dict[str, Any], name: str, where: str) -> str:
    value = properties.get(name)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not 0 < len(text) <= 140:  # noqa: PLR2004 -- as long as a fact's title
        raise LayerError(f"{where}: property {name} is missing or not a text")
    return text


def _area(geometry: object, where: str) -> BaseGeometry:
    if not isinstance(geometry, dict) or geometry.get("type") not in _AREAS:
        raise LayerError(f"{where}: a Polygon or MultiPolygon is expected")
    try:
        shape = shapely.from_geojson(json.dumps(geometry))
    except shapely.errors.ShapelyError:
        raise LayerError(f"{where}: not a geometry") from None
    west, south, east, north = shape.bounds if not shape.is_empty else (999.0,) * 4
    if west < -180 or east > 180 or south < -90 or north > 90:  # noqa: PLR2004 -- degrees
        raise LayerError(f"{where}: coordinates must be degrees, longitude first")
    if not shape.is_valid:
        raise LayerError(f"{where}: rings must not cross themselves or each other")
    return shapely.force_2d(shape)


def _normalised(zones: Sequence[Zone]) -> bytes:
    """The same bytes for the same zones, however the file that they came from was written."""
    features = [
        {
            "type": "Feature",
            "properties": {"code": zone.code, "name": zone.name},
            "geometry": json.loads(shapely.to_geojson(zone.shape)),
        }
        for zone in zones
    ]
    document = {"type": "FeatureCollection", "features": features}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
