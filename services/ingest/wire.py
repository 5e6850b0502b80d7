"""Protobuf's wire format where messages are joined instead of copied (https://protobuf.dev/programming-guides/encoding)."""

from functools import lru_cache
from typing import Final

from google.protobuf.message import Message

_MORE: Final = 0x80
_LENGTH_DELIMITED: Final = 2


def tag(message: type[Message], field: str) -> bytes:
    """The tag of a length-delimited field whose number is below 16."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED])


@lru_cache(maxsize=4_096)
def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have their highest bit set."""
    written = bytearray()
    while value >= _MORE:
        written.append(value % _MORE | _MORE)
        value //= _MORE
    written.append(value)
    return bytes(written)
