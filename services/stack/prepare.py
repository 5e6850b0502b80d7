"""Prepares a folder for a containerised installation: certificates, keys, what broker and witnesses are given.

Usage: python -m services.stack.prepare FOLDER [--broker-host HOST] [--broker-store FOLDER].
"""

import argparse
import os
from pathlib import Path

from services.kernel.bus.broker import BrokerSettings, configuration
from services.kernel.rpc.tls import TlsFiles
from services.stack.certificates import issue
from services.stack.keys import create_keys
from services.stack.layout import CERTIFIED
from services.stack.witnesses import write_logs, write_witnesses

# The user of deploy/Dockerfile.
OWNER = 10001
# Volumes that a service writes to.
WRITTEN = (Path("/ledger"), Path("/witness"))
WITNESS_PORT = 7407


def main() -> None:
    """Fills the folder; what is there is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--broker-host", default="127.0.0.1")
    parser.add_argument("--broker-port", type=int, default=4222)
    parser.add_argument("--broker-store", type=Path, required=True)
    options = parser.parse_args()
    folder: Path = options.folder
    issue(folder / "pki", CERTIFIED)
    create_keys(folder / "keys")
    write_witnesses(folder / "witnesses.json", folder / "keys", lambda name: f"https://{name}:{WITNESS_PORT}")
    write_logs(folder / "witnessed-logs", folder / "keys")
    pki = folder / "pki"
    settings = BrokerSettings(
        port=options.broker_port,
        host=options.broker_host,
        store_folder=options.broker_store,
        tls=TlsFiles(pki / "broker.pem", pki / "broker.key", pki / "ca.pem"),
    )
    (folder / "broker.json").write_text(configuration(settings))
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*"), *WRITTEN, *WRITTEN[1].glob("*")):
            if path.exists():
                os.chown(path, OWNER, OWNER)


if __name__ == "__main__":
    main()
