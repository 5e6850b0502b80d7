"""publiccode.yml says what the standard demands, and agrees with the package."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]

# The mandatory keys of the standard, version 0.4 (yml.publiccode.tools), with their closed vocabularies.
DESCRIPTION = {
    "type": "object",
    "required": ["shortDescription", "longDescription", "features"],
    "properties": {
        "shortDescription": {"type": "string", "minLength": 1, "maxLength": 150},
        "longDescription": {"type": "string", "minLength": 150, "maxLength": 10000},
        "features": {"type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 100}},
    },
}
STANDARD: dict[str, Any] = {
    "type": "object",
    "required": [
        "publiccodeYmlVersion",
        "name",
        "url",
        "platforms",
        "categories",
        "developmentStatus",
        "softwareType",
        "description",
        "legal",
        "maintenance",
        "localisation",
    ],
    "properties": {
        "publiccodeYmlVersion": {"enum": ["0.4", "0.4.0"]},
        "url": {"type": "string", "pattern": "^https://"},
        "platforms": {"items": {"enum": ["web", "windows", "mac", "linux", "ios", "android"]}, "minItems": 1},
        "developmentStatus": {"enum": ["concept", "development", "beta", "stable", "obsolete"]},
        "softwareType": {
            "enum": [
                "standalone/mobile",
                "standalone/iot",
                "standalone/desktop",
                "standalone/web",
                "standalone/backend",
                "standalone/other",
                "addon",
                "library",
                "configurationFiles",
            ]
        },
        "description": {"type": "object", "minProperties": 1, "additionalProperties": DESCRIPTION},
        "legal": {"type": "object", "required": ["license"]},
        "maintenance": {
            "type": "object",
            "required": ["type", "contacts"],
            "properties": {
                "type": {"enum": ["internal", "contract", "community", "none"]},
                "contacts": {"minItems": 1, "items": {"required": ["name"]}},
            },
        },
        "localisation": {
            "required": ["localisationReady", "availableLanguages"],
            "properties": {"localisationReady": {"type": "boolean"}},
        },
    },
}


def test_publiccode_is_valid_and_agrees_with_the_package() -> None:
    content = yaml.safe_load((ROOT / "publiccode.yml").read_text())
    content.pop("releaseDate")
    jsonschema.validate(content, STANDARD)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert content["softwareVersion"] == project["version"]
    assert content["legal"]["license"] == project["license"]
    assert content["description"]["en"]["shortDescription"].startswith("Two authorities")
