"""Whether a question is answered on the event loop, where it may neither take long nor wait."""

from sqlalchemy import Connection

# Rows of the columns that a question on the event loop may look at: about a millisecond.
MOST_ROWS_HERE = 50_000
_MARK = "planier_near"


class TooWide(Exception):  # noqa: N818 -- what the question is; a thread answers it
    """The question would keep the event loop from everybody else."""


def mark(connection: Connection) -> None:
    """Says that what runs on this connection runs on the event loop."""
    connection.info[_MARK] = True


def is_near(connection: Connection) -> bool:
    """Whether the question runs on the event loop."""
    return _MARK in connection.info


def require_few(connection: Connection, rows: int) -> None:
    """Raises TooWide for so many rows on the event loop."""
    if rows > MOST_ROWS_HERE and is_near(connection):
        raise TooWide
