"""Generates the Python of every contract beside its .proto, and the descriptor image that buf reads.

The rules' own contract (buf/validate/validate.proto) is taken as a descriptor from the installed protovalidate, so
that rules and engine are always of one version. Usage: generate_protos.py [--check | --image FILE].
"""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
RULES = "buf/validate/validate.proto"


def rules_descriptor(folder: Path) -> Path:
    """Writes the descriptor set of the validation rules into `folder` and returns its path."""
    rules = descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    path = folder / "validate.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[rules]).SerializeToString())
    return path


def contracts() -> list[str]:
    """Every contract of ours, as protoc names it."""
    return sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "planier").rglob("*.proto"))


def protoc(*arguments: str) -> None:
    """Runs the pinned compiler with the plugins of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN}", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE)


def generate(out: Path) -> None:
    """Writes all generated Python below `out`."""
    with tempfile.TemporaryDirectory() as folder:
        rules = rules_descriptor(Path(folder))
        common = [f"--descriptor_set_in={rules}", f"--python_out={out}", f"--mypy_out=quiet:{out}"]
        protoc(*common, *contracts(), RULES)
        services = [name for name in contracts() if "\nservice " in (PROTOS / name).read_text()]
        protoc(
            f"--descriptor_set_in={rules}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out=quiet,only_async:{out}",
            *services,
        )


def write_image(target: Path) -> None:
    """Writes the contracts with their imports and comments as one descriptor set."""
    with tempfile.TemporaryDirectory() as folder:
        rules = rules_descriptor(Path(folder))
        protoc(
            f"--descriptor_set_in={rules}",
            f"--descriptor_set_out={target}",
            "--include_imports",
            "--include_source_info",
            *contracts(),
        )


def drift() -> list[str]:
    """Generated files that differ from what the contracts give now."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        fresh = {str(path.relative_to(out)) for path in out.rglob("*_pb2*")}
        committed = {
            str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*_pb2*.py*") if "__pycache__" not in str(path)
        }
        changed = {name for name in fresh & committed if not filecmp.cmp(out / name, PROTOS / name, shallow=False)}
        return sorted(fresh ^ committed | changed)


def main() -> int:
    """Generates, or checks that what is committed is what would be generated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    if options.image:
        write_image(options.image)
        return 0
    if not options.check:
        generate(PROTOS)
        return 0
    stale = drift()
    for name in stale:
        print(f"protos/{name} is not what its contract gives: run `make proto`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
