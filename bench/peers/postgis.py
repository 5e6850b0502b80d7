"""A PostgreSQL with PostGIS of this run's own, where Debian's packages are installed; no wheel carries PostGIS.

`apt-get install postgresql-15 postgresql-15-postgis-3` (or the machine's own version) is all that it needs.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PACKAGES = "postgresql-15 postgresql-15-postgis-3"
# As in the runs whose figures the goals were set by.
_SETTINGS = ("shared_buffers=1GB", "work_mem=64MB", "max_parallel_workers_per_gather=0", "jit=off")


def programs() -> Path | None:
    """Where PostgreSQL's programs are, of the newest version that has PostGIS; None where there is none."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        extension = Path("/usr/share/postgresql") / folder.parent.name / "extension" / "postgis.control"
        if extension.is_file() and (folder / "initdb").is_file():
            return folder
    return None


@contextmanager
def running(folder: Path) -> Iterator[psycopg.Connection]:
    """A connection to a fresh database with PostGIS; the server is stopped and its files deleted at the end."""
    # PostgreSQL does not run as root.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="planier-postgis-"))
    if user:
        shutil.chown(home, user)
    data = home / "data"

    def call(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=home, stdout=subprocess.DEVNULL)

    try:
        call(str(folder / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync")
        options = " ".join(f"-c {setting}" for setting in _SETTINGS)
        options += f" -c listen_addresses= -c unix_socket_directories={home}"
        call(str(folder / "pg_ctl"), "-D", str(data), "-w", "-l", str(home / "log"), "-o", options, "start")
        try:
            with psycopg.connect(f"host={home} user=postgres dbname=postgres", autocommit=True) as connection:
                connection.execute("CREATE EXTENSION postgis")
                yield connection
        finally:
            call(str(folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
