"""Mutation testing of access's domain: how many small changes of its pure modules do its unit tests notice?

A seeded sample over all the modules; each mutant is imported in place of its module by a forked process that runs the
module's tests up to the first failure. Usage: mutate_domain.py [--sample N] [--seed N] [--least PERCENT] [MODULE ...];
prints each with what became of it, and exits with 1 below the least score.
"""

import argparse
import ast
import copy
import importlib
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ACCESS = ROOT / "services" / "access"
LEAST, SAMPLE, SEED, PATIENCE = 90.0, 150, 3, 120
# domain.py, the nouns that it dispatches to and what these decide upon; the tests that should see a change first.
TESTS = {
    "domain": ("domain", "clearance_life", "agreement", "amendments"),
    "agreement": ("agreement", "amendments", "domain"),
    "binding": ("domain", "clearance_life"),
    "clearances": ("clearance_life", "clearance_bounds", "decision_document", "domain"),
    "convention": ("agreement", "amendments", "clearance_life", "domain"),
    "decision_document": ("decision_document",),
    "eligibility": ("list", "engagements"),
    "engagements": ("engagements",),
    "granting": ("clearance_life", "clearance_bounds", "domain"),
    "instruments": ("amendments", "purposes", "agreement"),
    "list_state": ("list",),
    "list_version": ("list",),
    "nominative_list": ("list",),
    "notices": ("amendments", "clearance_bounds"),
    "offices": ("agreement", "clearance_bounds"),
    "purposes": ("purposes",),
    "suspending": ("clearance_life",),
    "term": ("term", "agreement"),
}
# What these do not notice is put before the rest.
REST = ("domain", "clearance_life", "clearance_bounds", "agreement", "amendments", "engagements", "list", "deed",
        "names", "term", "purposes")  # fmt: skip
# Imported before forking: what is slow and not the domain.
WARM = ("cedarpy", "cryptography.hazmat.primitives.asymmetric.ed25519", "planier.access.v1.access_pb2",
        "planier.access.v1.list_events_pb2", "planier.access.v1.engagement_events_pb2", "stdnum.fr.siret", "yaml",
        "sqlalchemy", "services.kernel.store")  # fmt: skip
_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module, the node's place in its tree, and which of that node's changes."""

    module: str
    place: int
    number: int

    def made(self) -> tuple[str, str]:
        """The module's source with the change, and the change in words."""
        tree = ast.parse((ACCESS / f"{self.module}.py").read_text())
        before = list(ast.walk(tree))[self.place]
        after = list(_changes(before))[self.number]
        words = f"{self.module}.py:{getattr(before, 'lineno', 0)} {_told(before)} -> {_told(after)}"
        _Swap(before, after).visit(tree)
        return ast.unparse(ast.fix_missing_locations(tree)), words


def mutants(module: str) -> Iterator[Mutant]:
    """Every change of a module's functions."""
    tree = ast.parse((ACCESS / f"{module}.py").read_text())
    reached = _reached(tree)
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in reached:
            yield from (Mutant(module, place, number) for number, _ in enumerate(_changes(node)))


def _reached(tree: ast.Module) -> set[int]:
    """The nodes of functions' bodies: what annotates, decorates or aliases types is left alone."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    bodies = [node for function in functions for statement in function.body for node in ast.walk(statement)]
    notes = [node.annotation for node in bodies if isinstance(node, ast.AnnAssign)]
    return {id(node) for node in bodies} - {id(node) for note in notes for node in ast.walk(note)}


def _told(node: ast.AST) -> str:
    return repr(ast.unparse(node)[:100])


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    yield from _of_statement(node)
    yield from _of_operation(node)
    yield from _of_value(node)


def _of_statement(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If() | ast.While():
            opposite = copy.copy(node)
            opposite.test = ast.UnaryOp(ast.Not(), node.test)
            yield opposite
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))


def _of_operation(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op]):
            for other in _COMPARED[type(op)]:
                yield ast.Compare(node.left, [other()], node.comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for place in range(len(values)):
                left = values[:place] + values[place + 1 :]
                yield left[0] if len(left) == 1 else ast.BoolOp(op, left)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            yield ast.BinOp(node.left, _COMPUTED[type(op)](), node.right)


def _of_value(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value) if value and " " not in value:  # words for people are not behaviour
            yield ast.Constant(f"{value}~")
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.comprehension(ifs=[_, *_]):
            yield ast.comprehension(node.target, node.iter, [], node.is_async)


class _Swap(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, before: ast.AST, after: ast.AST) -> None:
        self._before, self._after = before, after

    def visit(self, node: ast.AST) -> ast.AST:
        """The other node where it is the one, unchanged elsewhere."""
        return self._after if node is self._before else self.generic_visit(node)


def is_killed(module: str, path: Path) -> bool:
    """Whether a test fails, or does not end, once the module is imported from this file."""
    others = tuple(name for name in REST if name not in TESTS[module])
    return any(_exit_code(module, path, names) != 0 for names in (TESTS[module], others))


def _exit_code(module: str, path: Path, names: tuple[str, ...]) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=_run, args=(module, path, names))
    child.start()
    child.join(PATIENCE)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode


def _run(module: str, path: Path, names: tuple[str, ...]) -> None:
    os.environ.update(MUTATED_MODULE=f"services.access.{module}", MUTATED_FILE=str(path))
    importlib.import_module("tools.mutated_module")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    files = [str(ROOT / "tests" / "unit" / f"test_access_{name}.py") for name in names]
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files]))


def main() -> int:
    """Tries the sample, says what became of each mutant, prints the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--least", type=float, default=LEAST)
    options = parser.parse_args()
    for name in WARM:
        importlib.import_module(name)
    everything = [mutant for module in options.modules for mutant in mutants(module)]
    wanted = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))  # noqa: S311 -- a sample
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        if is_killed("domain", ACCESS / "domain.py"):
            raise RuntimeError("the tests fail without any change")
        for mutant in wanted:
            source, words = mutant.made()
            path = Path(folder, f"{mutant.module}.py")
            path.write_text(source)
            killed = is_killed(mutant.module, path)
            survivors += not killed
            print(f"{'killed  ' if killed else 'SURVIVED'} {words}", flush=True)
    noticed = len(wanted) - survivors
    score = 100 * noticed / len(wanted)
    print(f"{noticed} of {len(wanted)} mutants killed ({len(everything)} in all, seed {options.seed}): {score:.1f} %")
    return 0 if score >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
