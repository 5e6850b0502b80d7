"""Only the guard makes a Grant: the type refuses others, and the source shows that nobody tries."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.kernel.guard.grant import Grant, Subject

SERVICES = Path(__file__).parents[2] / "services"
GUARD = SERVICES / "kernel" / "guard"


def test_a_grant_without_the_seal_is_refused() -> None:
    with pytest.raises(PermissionError):
        Grant(
            "r",
            Subject(),
            OPERATION_CONSULT,
            "facts",
            PURPOSE_SITUATION,
            "CITY",
            "",
            "",
            "",
            (),
            (),
            datetime.now(UTC),
            object(),
        )


def makers(tree: ast.AST) -> set[str]:
    """What in this source makes a grant, or could: a call of Grant, the seal, a copy with other fields."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "Grant" or (
                called == "replace" and any(one.arg in {"scopes", "seal"} for one in node.keywords)
            ):
                found.add(called)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.update(
                alias.name for alias in node.names if alias.name == "_SEAL" or (alias.name == "Grant" and alias.asname)
            )
        elif isinstance(node, ast.Attribute) and node.attr in {"_SEAL", "seal"}:
            found.add(node.attr)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "Grant(1)",
        "grant.Grant(1)",
        "from services.kernel.guard.grant import Grant as G",
        "from services.kernel.guard.grant import _SEAL",
        "call.grant.seal",
        "dataclasses.replace(call.grant, scopes=())",
    ],
)
def test_the_search_finds_each_way(source: str) -> None:
    assert makers(ast.parse(source))


def test_only_the_guard_makes_a_grant() -> None:
    files = [path for path in SERVICES.rglob("*.py") if GUARD not in path.parents]
    assert files
    assert {str(path.relative_to(SERVICES)) for path in files if makers(ast.parse(path.read_text()))} == set()


def test_the_guard_makes_them_in_one_place() -> None:
    assert [path.name for path in GUARD.glob("*.py") if "Grant" in makers(ast.parse(path.read_text()))] == [
        "decisions.py"
    ]
