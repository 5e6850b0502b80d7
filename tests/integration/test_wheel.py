"""The wheel that the image installs holds every module and contract, and nothing of the tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_built_wheel_is_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("planier-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "services").rglob("*.py")}
    policies = {str(path.relative_to(ROOT)) for path in (ROOT / "services" / "access" / "policy").glob("*.cedar*")}
    contracts = {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*_pb2.py")}
    assert modules | policies | contracts <= names
    assert policies
    assert not any(name.startswith(("tests/", "bench/")) for name in names)
