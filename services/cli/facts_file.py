"""Files of facts: JSON Lines and delimited protobuf as `planier demo` writes them; GeoJSON."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import yaml
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed
from planier.common.v1.fact_pb2 import Fact, FactStatus, Geometry, LngLat, Polygon

from services.kernel.errors import Problem, Violation, invalid

Position = list[float]


def read_facts(path: Path, mapping: Path | None = None) -> Iterator[Fact]:
    """The facts of a file in order, in constant memory but for GeoJSON; Problem FILE_UNREADABLE names the place."""
    if mapping is not None:
        yield from _mapped(json.loads(path.read_bytes()), yaml.safe_load(mapping.read_text()))
    elif path.suffix == ".geojson":
        yield from _described(json.loads(path.read_bytes()))
    elif path.suffix == ".facts":
        yield from _delimited(path)
    else:
        with path.open() as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield Parse(line, Fact())
                except ParseError:
                    raise _unreadable(f"line {number}", "is not a Fact in JSON") from None


def write_facts(path: Path, facts: Iterable[Fact]) -> int:
    """Writes facts as delimited protobuf (.facts) or JSON Lines; returns how many."""
    count = 0
    with path.open("wb") as file:
        for fact in facts:
            if path.suffix == ".facts":
                serialize_length_prefixed(fact, cast("BytesIO", file))
            else:
                line = MessageToJson(fact, indent=None, preserving_proto_field_name=True, ensure_ascii=False)
                file.write(line.encode() + b"\n")
            count += 1
    return count


def _delimited(path: Path) -> Iterator[Fact]:
    number = 0
    with path.open("rb") as file:
        while True:
            number += 1
            try:
                # The stubs promise a message where the end of the file gives None.
                fact = cast("Fact | None", parse_length_prefixed(Fact, cast("BytesIO", file)))
            except Exception:  # noqa: BLE001 -- DecodeError, ValueError or IndexError by where the file is cut
                raise _unreadable(f"record {number}", "is not a Fact") from None
            if fact is None:
                return
            yield fact


def _mapped(collection: dict[str, Any], mapping: dict[str, Any]) -> Iterator[Fact]:
    """Every feature as a fact: what cannot be read is left out of it, so that ingest gives it its own verdict."""
    for index, feature in enumerate(collection["features"], 1):
        properties = feature["properties"]
        fact = Fact(source=mapping["source"], kind=mapping["kind"], revision=1)
        fact.source_id = mapping["source_id"].format(index=index, **properties)
        fact.status = FactStatus.Value(f"FACT_STATUS_{mapping['status']}")
        fact.title = str(properties[mapping["title"]]) if "title" in mapping else ""
        _add_period(fact, properties, mapping["period"])
        for name, rule in mapping.get("attributes", {}).items():
            fact.attributes.add(name=name, choice=rule["values"][properties[rule["property"]]])
        if feature["geometry"]:
            fact.geometry.CopyFrom(_geometry(feature["geometry"]))
        yield fact


def _described(collection: dict[str, Any]) -> Iterator[Fact]:
    """Features that say themselves what they are: `source`, `kind`, `start` and `end` or `periods`, in ISO 8601.

    Optional: `id`, `title`, `status`, `attributes`. What is not said in these words needs a mapping.
    """
    for index, feature in enumerate(collection["features"], 1):
        properties = feature["properties"] or {}
        try:
            fact = Fact(source=properties["source"], kind=properties["kind"], revision=1)
            fact.source_id = str(properties.get("id", feature.get("id", index)))
            fact.title = properties.get("title", "")
            fact.status = FactStatus.Value(f"FACT_STATUS_{properties.get('status', 'DECLARED')}")
            for start, end in properties.get("periods") or [(properties["start"], properties["end"])]:
                period = fact.periods.add()
                period.start.FromDatetime(datetime.fromisoformat(start))
                period.end.FromDatetime(datetime.fromisoformat(end))
            for name, choice in properties.get("attributes", {}).items():
                fact.attributes.add(name=name, choice=choice)
        except (KeyError, TypeError, ValueError):
            words = "does not say its source, kind, start and end; read it through a mapping (--mapping)"
            raise _unreadable(f"feature {index}", words) from None
        if feature["geometry"]:
            fact.geometry.CopyFrom(_geometry(feature["geometry"]))
        yield fact


def _add_period(fact: Fact, properties: dict[str, Any], rule: dict[str, Any]) -> None:
    zone = ZoneInfo(rule["time_zone"])
    period = fact.periods.add()
    for name, moment in (("start", period.start), ("end", period.end)):
        text = properties[rule[name]]
        if "format" in rule:
            # The file's times are local wall-clock times without an offset.
            moment.FromDatetime(datetime.strptime(text, rule["format"]).replace(tzinfo=zone))
        else:
            read = datetime.fromisoformat(text)
            moment.FromDatetime(read if read.tzinfo else read.replace(tzinfo=zone))


def _geometry(geometry: dict[str, Any]) -> Geometry:
    """A GeoJSON geometry (RFC 7946) without its heights; a shape that facts cannot have gives an empty geometry."""
    coordinates = geometry["coordinates"]
    match geometry["type"]:
        case "Point":
            return Geometry(point=_point(coordinates))
        case "LineString":
            line = Geometry()
            line.line.points.extend(_point(position) for position in coordinates)
            return line
        case "Polygon":
            return Geometry(polygon=_polygon(coordinates))
        case "MultiPolygon" if len(coordinates) == 1:
            return Geometry(polygon=_polygon(coordinates[0]))
        case "MultiPolygon":
            several = Geometry()
            several.multi_polygon.polygons.extend(_polygon(rings) for rings in coordinates)
            return several
    return Geometry()


def _polygon(rings: list[list[Position]]) -> Polygon:
    polygon = Polygon()
    for ring in rings:
        polygon.rings.add().points.extend(_point(position) for position in ring)
    return polygon


def _point(position: Position) -> LngLat:
    return LngLat(longitude=position[0], latitude=position[1])


def _unreadable(place: str, description: str) -> Problem:
    return invalid("FILE_UNREADABLE", "the file cannot be read", Violation(place, "file", description))
