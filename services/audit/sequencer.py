"""One sequencer at a time: whoever opens the log takes the next epoch, and only the newest epoch may append.

The write lock alone keeps two processes from forking the log; the epoch keeps a process that was thought dead (paused,
cut off, replaced) from going on beside its successor. A process that is fenced never takes the log back by itself.
"""

from sqlalchemy import Connection, func, insert, select

from services.audit.note import NoteError, NoteVerifier
from services.audit.schema import CHECKPOINTS, KEYS, SEQUENCERS


class LogBroken(Exception):  # noqa: N818 -- a state of the store, refused at opening
    """The stored tree is not the one that was signed, or not by this key: nothing may be appended to it."""


class LogFenced(Exception):  # noqa: N818 -- a state, not a fault
    """Another process has opened the log since: this one may append no more."""


def take_over(connection: Connection, instance: str) -> int:
    """The next epoch, from now on the only one that may append; the caller holds the write lock."""
    epoch = int(connection.execute(select(func.coalesce(func.max(SEQUENCERS.c.epoch), 0))).scalar_one()) + 1
    connection.execute(insert(SEQUENCERS).values(epoch=epoch, instance=instance))
    return epoch


def require_key(connection: Connection, verifier: NoteVerifier) -> None:
    """Makes sure that the log's newest key is this one; a log that has none yet takes it as its first.

    Raises:
        LogBroken: it is another.
    """
    newest = connection.execute(select(KEYS.c.verifier_key).order_by(KEYS.c.place.desc()).limit(1)).scalar()
    if newest is None:
        # A log of 0.1.0, which did not say whose it is: its newest checkpoint does.
        note = connection.execute(select(CHECKPOINTS.c.note).order_by(CHECKPOINTS.c.size.desc()).limit(1)).scalar()
        if note is not None and not _signed(note, verifier):
            raise LogBroken("the log was signed by another key")
        first = {"place": 0, "from_size": 0, "verifier_key": verifier.text(), "hand_over": ""}
        connection.execute(insert(KEYS).values(**first))
    elif newest != verifier.text():
        raise LogBroken("the log has another key: a new one must be handed over by the one before")


def _signed(note: str, verifier: NoteVerifier) -> bool:
    try:
        verifier.open(note)
    except NoteError:
        return False
    return True


def add_key(connection: Connection, from_size: int, verifier: NoteVerifier, hand_over: str) -> None:
    """Stores a hand-over; the caller holds the write lock."""
    place = int(connection.execute(select(func.max(KEYS.c.place))).scalar_one()) + 1
    row = {"place": place, "from_size": from_size, "verifier_key": verifier.text(), "hand_over": hand_over}
    connection.execute(insert(KEYS).values(**row))


def hand_overs(connection: Connection) -> list[str]:
    """Every hand-over note, in order."""
    query = select(KEYS.c.hand_over).where(KEYS.c.place > 0).order_by(KEYS.c.place)
    return list(connection.execute(query).scalars())
