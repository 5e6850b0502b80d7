"""Deletes or delays each call of the guard's record step in turn, and shows that a test fails for each.

A mutant goes on as if nothing were missing: a dropped record gets a receipt that looks complete, a delayed one is
written once the answer has left. Usage: mutate_guard.py [--short] [--list]; exits with 1 where a mutant survives.
"""

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUARD = ROOT / "services" / "kernel" / "guard"
# The test that should see it first, so that most mutants die within seconds.
TESTS = {
    "guard": ("unit/test_guard_reads.py", "unit/test_guard_writes.py", "unit/test_guard_records.py"),
    "records": ("unit/test_guard_reads.py", "unit/test_guard_writes.py", "unit/test_guard_peers.py"),
    "admission": ("unit/test_guard_reads.py", "unit/test_guard_refusals.py"),
    "streams": ("unit/test_guard_streams.py", "unit/test_guard_records.py"),
    "peers": ("unit/test_guard_peers.py",),
    "remote": ("integration/test_guard_remote.py",),
}
# For `make test`: module, step and place among its like. The record before a read's answer, before a write, before a
# stream's first message.
SHORT = (("guard", "write", 1), ("guard", "write", 2), ("streams", "write", 0))
PATIENCE = 120

# What each call is replaced with where it is dropped; `record` and `problem` stand for its own arguments.
_RECORDING = {"write": 0, "send": 0, "record": 0}
_REFUSING = {"write_refusal", "refuse"}
_SILENT = {
    "describe_data", "state_decision", "tally", "require_fresh", "require_open", "_finish", "_write_closing", "_renew",
}  # fmt: skip
_HELPERS = """

def _mutant_receipt(record):
    from planier.common.v1.release_pb2 import Receipt as _Receipt
    return _Receipt(record_id=record.record_id, leaf_hash=bytes(32), signature=b"x", key_id="0")


async def _mutant_nothing(*_):
    return None


async def _mutant_send(record):
    return _mutant_receipt(record)


def _mutant_later(work, then):
    import asyncio as _asyncio

    async def _later():
        for _ in range(50):
            await _asyncio.sleep(0)
        try:
            await work
        except Exception:
            pass

    _asyncio.ensure_future(_later())
    return then
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module: which call, at which line, DROPPED or DELAYED."""

    module: str
    step: str
    line: int
    column: int
    change: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} {self.step} {self.change}"

    def source(self) -> str:
        """The module's text with the change."""
        tree = ast.parse((GUARD / f"{self.module}.py").read_text())
        changed = _Change(self).visit(tree)
        return ast.unparse(ast.fix_missing_locations(changed)) + _HELPERS


class _Change(ast.NodeTransformer):
    """Replaces the one call that a mutant is about, its `await` included."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def visit_Await(self, node: ast.Await) -> ast.AST:
        if isinstance(node.value, ast.Call) and self._is_it(node.value):
            return self._replacement(node.value, awaited=True)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self._replacement(node, awaited=False) if self._is_it(node) else self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        # A method handed on without being called here.
        return ast.Name("_mutant_send", ast.Load()) if self._is_it(node) else self.generic_visit(node)

    def _is_it(self, node: ast.expr) -> bool:
        return _name(node) == self._mutant.step and (node.lineno, node.col_offset) == (
            self._mutant.line,
            self._mutant.column,
        )

    def _replacement(self, call: ast.Call, *, awaited: bool) -> ast.expr:
        step = self._mutant.step
        then = ast.unparse(call.args[0]) if call.args else "None"
        if step in _RECORDING:
            then = f"_mutant_receipt({then})"
        elif step == "write_refusal":
            then = ast.unparse(call.args[1])
        elif step == "is_receipt_of":
            then = "True"
        elif step != "number":
            then = "None" if awaited or step not in {"_finish", "_write_closing", "_renew"} else "_mutant_nothing()"
        if self._mutant.change == "DELAYED":
            then = f"_mutant_later({ast.unparse(call)}, {then})"
        return ast.parse(then, mode="eval").body


def mutants(*, short: bool) -> Iterator[Mutant]:
    """Every change, module by module; with `short`, those of SHORT only."""
    for module in TESTS:
        tree = ast.parse((GUARD / f"{module}.py").read_text())
        awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        seen = Counter[str]()
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call | ast.Attribute)]
        for node in sorted(nodes, key=lambda found: (found.lineno, found.col_offset)):
            if id(node) in called:
                continue
            step = _name(node)
            handed_on = isinstance(node, ast.Attribute)
            if step not in ({"send"} if handed_on else {*_RECORDING, *_REFUSING, *_SILENT, "is_receipt_of", "number"}):
                continue
            place = seen[step]
            seen[step] += 1
            if short and (module, step, place) not in SHORT:
                continue
            yield Mutant(module, step, node.lineno, node.col_offset, "DROPPED")
            if id(node) in awaited and (step in _RECORDING or step in _REFUSING):
                yield Mutant(module, step, node.lineno, node.col_offset, "DELAYED")


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_killed(mutant: Mutant, folder: Path) -> bool:
    """Whether a test fails once the module is replaced; a run that cannot even collect its tests does not count."""
    path = folder / f"{mutant.module}.py"
    path.write_text(mutant.source())
    tests = [str(ROOT / "tests" / name) for name in TESTS[mutant.module]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tools.mutated_module", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "MUTATED_MODULE": f"services.kernel.guard.{mutant.module}", "MUTATED_FILE": str(path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant}: the tests did not run\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def main() -> int:
    """Tries every mutant and names the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    wanted = list(mutants(short=options.short))
    if options.list:
        print("\n".join(str(mutant) for mutant in wanted))
        return 0
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        for mutant in wanted:
            killed = is_killed(mutant, Path(folder))
            print(f"{'killed  ' if killed else 'SURVIVED'} {mutant}", flush=True)
            survivors += [] if killed else [mutant]
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} mutants of the record step are seen by a test")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
