"""Writes docs/politique.md, the access policy in French, from its Cedar. Usage: render_policy.py [--check]."""

import sys

from services.access.policy import Policy
from services.access.policy.rendering import rendering
from tools.generate_protos import ROOT

OUT = ROOT / "docs" / "politique.md"


def rendered() -> str:
    """The rendering of this checkout's policy."""
    return rendering(*Policy.load_with_text())


def main() -> int:
    """Writes the file; with --check, only says whether it is in step."""
    if "--check" in sys.argv:
        return 0 if OUT.read_text() == rendered() else 1
    OUT.write_text(rendered())
    return 0


if __name__ == "__main__":
    sys.exit(main())
