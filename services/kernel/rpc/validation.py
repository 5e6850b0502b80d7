"""Request validation as declared in the contracts (protovalidate), reported as field violations."""

from google.protobuf.message import DecodeError, Message
from protovalidate import Validator
from protovalidate import Violation as RuleViolation

from services.kernel.errors import Violation, invalid

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
    if violations:
        raise invalid(
            "REQUEST_INVALID",
            "the request breaks rules of its contract",
            *(_described(violation) for violation in violations[:MOST_VIOLATIONS]),
        )


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
