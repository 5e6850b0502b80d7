"""Request validation as declared in the contracts (protovalidate), reported as field violations."""

from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from protovalidate import Validator
from protovalidate import Violation as RuleViolation

from services.kernel.errors import Violation, invalid
from services.kernel.instants import is_instant

# A thousand facts may all be wrong in the same way; the first ones tell.
MOST_VIOLATIONS = 50


def parse(request_type: type[Message], data: bytes) -> Message:
    """The message in these bytes; Problem MALFORMED where they hold none."""
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise invalid("MALFORMED", "the request is not a message of this method") from None


def validate(validator: Validator, request: Message) -> None:
    """Returns where the request keeps the rules of its contract; Problem REQUEST_INVALID names each field."""
    violations = validator.collect_violations(request)
    found = [_described(violation) for violation in violations[:MOST_VIOLATIONS]] or _no_instants(request)
    if found:
        raise invalid("REQUEST_INVALID", "the request breaks rules of its contract", *found)


def _no_instants(request: Message) -> list[Violation]:
    """Timestamps that no calendar knows, though protobuf carries them; within lists their handler judges them."""
    return [
        Violation(".".join(path), "timestamp.instant", "must be an instant of the years 2 to 9989")
        for path in _timestamps(request.DESCRIPTOR)
        if not _holds_instant(request, path)
    ]


def _holds_instant(request: Message, path: tuple[str, ...]) -> bool:
    """Whether the field is absent, or an instant."""
    holder = request
    for name in path:
        if not holder.HasField(name):
            return True
        holder = getattr(holder, name)
    return isinstance(holder, Timestamp) and is_instant(holder)


@cache
def _timestamps(descriptor: Descriptor) -> tuple[tuple[str, ...], ...]:
    """The paths of a request's timestamps, found once a type."""
    found: list[tuple[str, ...]] = []
    for field in descriptor.fields:
        if field.message_type is None or field.is_repeated:
            continue
        if field.message_type is Timestamp.DESCRIPTOR:
            found.append((field.name,))
        else:
            found += [(field.name, *rest) for rest in _timestamps(field.message_type)]
    return tuple(found)


def _described(violation: RuleViolation) -> Violation:
    return Violation(_path(violation), violation.proto.rule_id, violation.proto.message)


def _path(violation: RuleViolation) -> str:
    """Such as `facts[2].periods[0]`."""
    path = ""
    if violation.proto.field is None:
        return path
    for element in violation.proto.field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            # The key of a map is the caller's text, an index is not.
            path += "[…]" if isinstance(key, str) else f"[{key}]"
    return path
