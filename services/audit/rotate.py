"""`python -m services.audit.rotate`: hands the log over to a new key; the service then starts with that key.

Whoever runs the log meanwhile is fenced. Writes the hand-over, signed by both keys, for witnesses and auditors.
"""

import argparse
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.database import exclusive
from services.audit.hand_over import sign_hand_over
from services.audit.log import AccessLog
from services.audit.note import NoteVerifier
from services.audit.sequencer import LogFenced, add_key, take_over
from services.audit.settings import LOG_ORIGIN
from services.kernel.keys import read_private_key


def rotate(url: str, origin: str, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> str:
    """Stores the hand-over from `old`, the log's present key, to `new`, and returns its note.

    Raises:
        LogBroken: the log has another key, or is not the one that was signed. NoteError: both keys are the same.
        LogFenced: records were appended by another process meanwhile; try again.
    """
    log = AccessLog(url, origin=origin, key=old, instance="rotate")
    log.open()
    try:
        head = log.head().checkpoint
        note = sign_hand_over(head, old, new)
        with exclusive(log.engine) as connection:
            if log.frontier().size != head.size:
                raise LogFenced("the log grew meanwhile: another process opened it")
            add_key(connection, head.size, NoteVerifier(origin, new.public_key()), note)
            take_over(connection, "rotate")
    finally:
        log.close()
    return note


def main() -> None:
    """Reads the arguments, rotates, writes the note; exits with 1 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.rotate", description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--origin", default=LOG_ORIGIN)
    parser.add_argument("--old-key", type=Path, required=True, help="PEM of the present private key")
    parser.add_argument("--new-key", type=Path, required=True, help="PEM of the new private key")
    options = parser.parse_args()
    old, new = read_private_key(options.old_key), read_private_key(options.new_key)
    sys.stdout.write(rotate(options.database_url, options.origin, old, new))


if __name__ == "__main__":
    main()
