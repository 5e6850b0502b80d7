"""The witnesses that a log needs, as the parties agreed on them: one file, one witness a party.

JSON: [{"party": "CITY", "verifier_key": "name+hash+key", "url": "https://host:port"}]; `url` is empty for a party that
runs no server and cosigns by file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from services.audit.cosignature import Cosigner
from services.audit.note import NoteError
from services.kernel.config import CannotStart


@dataclass(frozen=True, slots=True)
class PartyWitness:
    """One party's witness; `url` without a slash at its end, "" where there is no server."""

    party: str
    cosigner: Cosigner
    url: str


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    party: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z_]{0,39}$")]
    verifier_key: str
    url: Annotated[str, StringConstraints(pattern=r"^(https://[^\s/?#]+(/[^\s?#]*)?)?$")] = ""


_LIST = TypeAdapter(list[_Listed])


def read_witnesses(path: Path) -> tuple[PartyWitness, ...]:
    """The witnesses of a file; CannotStart where it is not one, or names a party or a witness twice."""
    try:
        listed = _LIST.validate_python(json.loads(path.read_text()))
        found = tuple(
            PartyWitness(item.party, Cosigner.parse(item.verifier_key), item.url.rstrip("/")) for item in listed
        )
    except (ValidationError, NoteError, json.JSONDecodeError) as error:
        raise CannotStart(f"{path} is not a list of witnesses: {type(error).__name__}") from error
    if len({item.party for item in found}) != len(found) or len({item.cosigner.name for item in found}) != len(found):
        raise CannotStart(f"{path} names a party or a witness twice")
    return found
