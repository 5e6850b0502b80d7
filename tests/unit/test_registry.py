"""Annex 1: what it says, and that anything else than a valid one is refused."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.kernel.registry import Choice, Quantity, Registry, RegistryError

ANNEX = Path(__file__).parents[2] / "deploy" / "annex" / "annex-1.json"
REGISTRY = Registry.load(ANNEX)


def test_the_hash_is_that_of_the_file_bytes() -> None:
    assert REGISTRY.hash == hashlib.sha256(ANNEX.read_bytes()).hexdigest()


def test_one_more_space_is_another_annex() -> None:
    assert Registry.parse(ANNEX.read_bytes() + b" ").hash != REGISTRY.hash


def test_the_prefecture_transmits_three_sources_and_the_city_thirteen() -> None:
    assert REGISTRY.sources_of("PREFECTURE") == {"demonstrations", "scheduled-operations", "official-visits"}
    assert len(REGISTRY.sources_of("CITY")) == 13


@pytest.mark.parametrize("name", sorted(REGISTRY.sources_of("PREFECTURE")))
def test_the_prefecture_kinds_hold_no_text_and_never_feed_tension(name: str) -> None:
    source = REGISTRY.sources[name]
    assert (source.free_text, source.feeds_tension, source.instrument_id) == (False, False, "convention")


@pytest.mark.parametrize("name", ["residents-reports", "offences", "infractions"])
def test_sources_that_could_point_at_a_home_are_reduced_to_coarse_cells(name: str) -> None:
    for kind in REGISTRY.sources[name].kinds.values():
        assert kind.precision.h3_resolution is not None
        assert kind.precision.h3_resolution <= 10
        assert kind.minimum_count >= 5


def test_look_ups() -> None:
    kind = REGISTRY.kind("works", "UTILITY_WORKS")
    assert kind is not None
    network = kind.attributes["network"]
    assert isinstance(network, Choice)
    assert "WATER" in network.choices
    lanes = REGISTRY.sources["works"].kinds["ROADWORKS"].attributes["lanes"]
    assert isinstance(lanes, Quantity)
    assert (lanes.minimum, lanes.maximum) == (0, 6)
    assert REGISTRY.kind("works", "CONCERT") is None
    assert REGISTRY.source("nothing") is None


def _kind(document: Any) -> Any:
    return document["sources"][0]["kinds"][0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.pop("version"), "version: missing"),
        (lambda d: d.update(more=1), "unknown members more"),
        (lambda d: d["sources"].append(copy.deepcopy(d["sources"][0])), "used twice"),
        (lambda d: d["sources"][0].update(instrument="city-rules"), "do not go together"),
        (lambda d: d["sources"][0].update(free_text=True), "no free text"),
        (lambda d: d["sources"][0].update(feeds_tension=True), "never feed tension"),
        (lambda d: d["sources"][0].update(nature="guessed"), "nature"),
        (lambda d: d["sources"][0].update(kinds=[]), "at least 1"),
        (lambda d: _kind(d).update(precision={}), "h3_resolution: missing"),
        (lambda d: _kind(d).update(precision={"decimals": 5, "h3_resolution": 9}), "unknown members h3_resolution"),
        (lambda d: _kind(d).update(precision={"decimals": 9}), "from 2 to 6"),
        (lambda d: _kind(d).update(minimum_count=0), "from 1 to"),
        (lambda d: _kind(d).update(retention_days=True), "retention_days"),
        (lambda d: _kind(d).update(organiser="free"), "unknown members organiser"),
        (lambda d: _kind(d)["attributes"][0].update(choices={}), "codes in capitals"),
        (
            lambda d: _kind(d)["attributes"].append(
                {"name": "n", "label": "l", "unit": "u", "minimum": 2, "maximum": 1}
            ),
            "below",
        ),
        (lambda d: _kind(d)["attributes"].append({"name": "organiser", "label": "l", "text": True}), "missing"),
    ],
)
def test_an_invalid_annex_is_refused_with_its_place(spoil: Callable[[Any], object], message: str) -> None:
    document = json.loads(ANNEX.read_bytes())
    spoil(document)
    with pytest.raises(RegistryError, match=message):
        Registry.parse(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"title": "a", "title": "b"}'])
def test_bytes_that_are_no_annex_are_refused(data: bytes) -> None:
    with pytest.raises(RegistryError):
        Registry.parse(data)
