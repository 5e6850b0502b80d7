"""`python -m services.audit.witness.by_file`: a witness without a server, for a party that has none on day one.

Takes a request as a file, answers with the checkpoint and this party's cosignature as a file; the same rules and the
same state as with a server, so that one can follow the other.
"""

import argparse
import sys
from pathlib import Path

from services.audit.witness.domain import CONFLICT
from services.audit.witness.door import Witness
from services.audit.witness.protocol import parse_request
from services.audit.witness.settings import read_logs
from services.audit.witness.state import WitnessState
from services.kernel.clock import SystemClock
from services.kernel.keys import read_private_key


def main() -> int:
    """0 where it cosigned; 1 where the log does not follow from what was cosigned before, which is said."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.witness.by_file", description=__doc__)
    parser.add_argument("request", type=Path, help="as `planier audit witness-request` writes it")
    parser.add_argument("--name", required=True, help="the witness's key name")
    parser.add_argument("--key", type=Path, required=True, help="PEM of the witness's private key")
    parser.add_argument("--logs", type=Path, required=True, help="the logs it knows, one verifier key a line")
    parser.add_argument("--state", required=True, help="its database, such as sqlite:///witness.db")
    options = parser.parse_args()
    logs = read_logs(options.logs)
    state = WitnessState(options.state, logs)
    state.open()
    try:
        body = options.request.read_bytes()
        witness = Witness(options.name, read_private_key(options.key), state, logs, SystemClock())
        answer = witness.add_checkpoint(body)
    finally:
        state.close()
    words = answer.body.decode()
    if answer.status == CONFLICT:
        words = f"this witness has cosigned up to {words.strip()}: ask for a proof from there\n"
    if answer.status != 200:  # noqa: PLR2004 -- the protocol's
        sys.stderr.write(f"not cosigned ({answer.status}): {words}")
        return 1
    sys.stdout.write(parse_request(body).note + words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
