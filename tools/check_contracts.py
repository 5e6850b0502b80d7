"""Lints the contracts and compares them with the last released set, with buf. Usage: check_contracts.py [--release]."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.generate_protos import ROOT, write_image

RELEASED = ROOT / "protos" / "released.binpb"


def buf() -> str:
    """The installed buf: the one npm put here, or the one that BUF names."""
    return os.environ.get("BUF") or str(ROOT / "node_modules" / ".bin" / "buf")


def run(*arguments: str) -> bool:
    """Whether buf found nothing; it prints what it finds."""
    command = [buf(), *arguments, "--path", "planier", "--config", str(ROOT / "buf.yaml")]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Checks; with --release, makes today's contracts the set that later ones must not break."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true")
    release = parser.parse_args().release
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        write_image(image)
        sound = run("lint", str(image))
        if RELEASED.exists():
            sound = run("breaking", str(image), "--against", str(RELEASED)) and sound
        if sound and release:
            shutil.copyfile(image, RELEASED)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
