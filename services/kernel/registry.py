"""Annex 1 of the convention: which sources and kinds exist, and what each may hold (art2.documents, art3.nature).

The file is signed by its hash in the founding event; a service compares `Registry.hash` with what access commits to and
refuses to start on other bytes, so that a data file can never widen what is permitted. Every look-up is O(1).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Self, TypeVar, get_args

Party = Literal["PREFECTURE", "CITY"]
Nature = Literal["planned", "reported", "discovered"]

CONVENTION: Final = "convention"
CITY_RULES: Final = "city-rules"
# Who transmits under which instrument; the Préfecture's data have no other (art6.purpose).
_INSTRUMENT_PARTY: Final[Mapping[str, Party]] = {CONVENTION: "PREFECTURE", CITY_RULES: "CITY"}
_SOURCE_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_KIND_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MOST_DECIMALS: Final = 6  # 0.1 m: nothing the parties share is known better
_FINEST_CELL: Final = 12  # H3 cells of 300 m2


class RegistryError(ValueError):
    """Annex 1 is not a valid registry; the message says where."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An attribute that takes one code of a closed list; `choices` maps code to French label."""

    name: str
    label: str
    choices: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Quantity:
    """An attribute that takes a number between two bounds, both included."""

    name: str
    label: str
    unit: str
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Precision:
    """The greatest precision of place, applied before storage: decimals of a degree, or the centre of an H3 cell."""

    decimals: int | None = None
    h3_resolution: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fact of one source.

    `minimum_count` is the smallest count that an aggregate may show, `spread_metres` how far around its place a fact of
    this kind is felt, `retention_days` how long it is kept after its last period.
    """

    source: str
    name: str
    label: str
    precision: Precision
    minimum_count: int
    retention_days: int
    spread_metres: int
    attributes: Mapping[str, Choice | Quantity]


@dataclass(frozen=True, slots=True)
class Source:
    """One source: who declares it, under which instrument, and its kinds."""

    name: str
    label: str
    party: Party
    instrument_id: str
    nature: Nature
    free_text: bool
    feeds_tension: bool
    kinds: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Registry:
    """Annex 1, whole; `hash` is the SHA-256, hex, of the file's bytes."""

    title: str
    version: str
    hash: str
    sources: Mapping[str, Source]
    _kinds: Mapping[tuple[str, str], Kind] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The registry in a file; RegistryError where it is not one."""
        return cls.parse(path.read_bytes())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The registry in the bytes of a file; RegistryError where they are not one."""
        try:
            document = json.loads(data, object_pairs_hook=_no_double)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            msg = f"annex 1 is not JSON: {error}"
            raise RegistryError(msg) from None
        root = _Reader("annex 1", document)
        title, version = root.text("title"), root.text("version")
        sources = _index("sources", [_source(reader) for reader in root.items("sources")])
        root.close()
        kinds = {(source.name, kind.name): kind for source in sources.values() for kind in source.kinds.values()}
        return cls(title, version, hashlib.sha256(data).hexdigest(), sources, MappingProxyType(kinds))

    def source(self, name: str) -> Source | None:
        """The source of that name, or None."""
        return self.sources.get(name)

    def kind(self, source: str, kind: str) -> Kind | None:
        """The kind of that source, or None."""
        return self._kinds.get((source, kind))

    def sources_of(self, party: str) -> frozenset[str]:
        """The names of the sources that a party declares."""
        return frozenset(source.name for source in self.sources.values() if source.party == party)


Named = TypeVar("Named", Source, Kind, Choice | Quantity)


class _Reader:
    """Takes the members of one JSON object, each once, with its type; what is left over is an error."""

    def __init__(self, where: str, document: object) -> None:
        if not isinstance(document, dict):
            msg = f"{where}: an object is expected"
            raise RegistryError(msg)
        self.where = where
        self._left = dict(document)

    def value(self, name: str) -> object:
        if name not in self._left:
            msg = f"{self.where}.{name}: missing"
            raise RegistryError(msg)
        return self._left.pop(name)

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self.value(name)
        if not isinstance(value, str) or not value.strip() or (pattern and not pattern.fullmatch(value)):
            msg = f"{self.where}.{name}: not a valid text"
            raise RegistryError(msg)
        return value

    def flag(self, name: str) -> bool:
        value = self.value(name)
        if not isinstance(value, bool):
            msg = f"{self.where}.{name}: true or false is expected"
            raise RegistryError(msg)
        return value

    def number(self, name: str) -> float:
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            msg = f"{self.where}.{name}: a number is expected"
            raise RegistryError(msg)
        return float(value)

    def integer(self, name: str, least: int, most: int) -> int:
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            msg = f"{self.where}.{name}: a whole number from {least} to {most} is expected"
            raise RegistryError(msg)
        return value

    def items(self, name: str, *, least: int = 1) -> list["_Reader"]:
        value = self.value(name)
        if not isinstance(value, list) or len(value) < least:
            msg = f"{self.where}.{name}: a list of at least {least} is expected"
            raise RegistryError(msg)
        return [_Reader(f"{self.where}.{name}[{index}]", item) for index, item in enumerate(value)]

    def has(self, name: str) -> bool:
        return name in self._left

    def names(self) -> tuple[str, ...]:
        return tuple(self._left)

    def close(self) -> None:
        if self._left:
            msg = f"{self.where}: unknown members {', '.join(sorted(self._left))}"
            raise RegistryError(msg)


def _no_double(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RegistryError("annex 1: a member is written twice")
    return members


def _index(where: str, items: list[Named]) -> Mapping[str, Named]:
    names = {item.name: item for item in items}
    if len(names) != len(items):
        msg = f"{where}: a name is used twice"
        raise RegistryError(msg)
    return MappingProxyType(names)


def _source(reader: _Reader) -> Source:
    name = reader.text("name", _SOURCE_NAME)
    instrument = reader.text("instrument")
    party = reader.text("party")
    if _INSTRUMENT_PARTY.get(instrument) != party:
        msg = f"{reader.where}: instrument and party do not go together"
        raise RegistryError(msg)
    nature = reader.text("nature")
    if nature not in get_args(Nature):
        msg = f"{reader.where}.nature: one of {', '.join(get_args(Nature))} is expected"
        raise RegistryError(msg)
    free_text, feeds_tension = reader.flag("free_text"), reader.flag("feeds_tension")
    if instrument == CONVENTION and (free_text or feeds_tension):
        # Neither text that could name somebody (art3.anonymised) nor statistics on opinions.
        msg = f"{reader.where}: the Préfecture's kinds hold no free text and never feed tension zones"
        raise RegistryError(msg)
    kinds = _index(f"{reader.where}.kinds", [_kind(name, item) for item in reader.items("kinds")])
    label = reader.text("label")
    reader.close()
    return Source(
        name, label, _INSTRUMENT_PARTY[instrument], instrument, _nature(nature), free_text, feeds_tension, kinds
    )


def _nature(value: str) -> Nature:
    natures: dict[str, Nature] = {"planned": "planned", "reported": "reported", "discovered": "discovered"}
    return natures[value]


def _kind(source: str, reader: _Reader) -> Kind:
    attributes = _index(
        f"{reader.where}.attributes", [_attribute(item) for item in reader.items("attributes", least=0)]
    )
    kind = Kind(
        source=source,
        name=reader.text("name", _KIND_NAME),
        label=reader.text("label"),
        precision=_precision(_Reader(f"{reader.where}.precision", reader.value("precision"))),
        minimum_count=reader.integer("minimum_count", 1, 1000),
        retention_days=reader.integer("retention_days", 1, 40 * 366),
        spread_metres=reader.integer("spread_metres", 0, 5000),
        attributes=attributes,
    )
    reader.close()
    return kind


def _precision(reader: _Reader) -> Precision:
    if reader.has("decimals"):
        precision = Precision(decimals=reader.integer("decimals", 2, _MOST_DECIMALS))
    else:
        precision = Precision(h3_resolution=reader.integer("h3_resolution", 5, _FINEST_CELL))
    reader.close()
    return precision


def _attribute(reader: _Reader) -> Choice | Quantity:
    name, label = reader.text("name", _ATTRIBUTE_NAME), reader.text("label")
    attribute: Choice | Quantity
    if reader.has("choices"):
        choices = _Reader(f"{reader.where}.choices", reader.value("choices"))
        codes = {code: choices.text(code) for code in choices.names()}
        if not codes or not all(_KIND_NAME.fullmatch(code) for code in codes):
            msg = f"{reader.where}.choices: codes in capitals are expected"
            raise RegistryError(msg)
        attribute = Choice(name, label, MappingProxyType(codes))
    else:
        attribute = Quantity(name, label, reader.text("unit"), reader.number("minimum"), reader.number("maximum"))
        if not attribute.minimum < attribute.maximum:
            msg = f"{reader.where}: minimum must be below maximum"
            raise RegistryError(msg)
    reader.close()
    return attribute
