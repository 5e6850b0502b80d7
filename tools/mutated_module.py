"""A pytest plugin: one module, named in MUTATED_MODULE, is imported from MUTATED_FILE instead of its own file."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Mutated(MetaPathFinder):
    """Finds the one module elsewhere."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 -- the finder's protocol
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The mutated file's spec for its module, nothing for others."""
        if fullname != os.environ["MUTATED_MODULE"]:
            return None
        return importlib.util.spec_from_file_location(fullname, os.environ["MUTATED_FILE"])


if "MUTATED_MODULE" in os.environ:
    sys.meta_path.insert(0, _Mutated())
