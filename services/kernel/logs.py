"""Logs: one JSON object a line on standard error, with the trace id of the call; never what a request holds."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from services.kernel import traces
from services.kernel.config import ServiceSettings

# Their INFO lines hold the URLs that were asked for.
_TELL_REQUESTS = ("httpx", "httpcore", "urllib3")
_OF_EVERY_RECORD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


class JsonFormatter(logging.Formatter):
    """One line: ts, level, service, instance, logger, message, trace_id, then what `extra` holds.

    Of an exception, its type and where it went through; not its text, which may hold what a request held (a database
    puts the parameters of a statement there).
    """

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._service = service
        self._instance = instance

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "service": self._service,
            "instance": self._instance,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := traces.trace_id(traces.current.get()):
            line["trace_id"] = trace_id
        line.update({key: value for key, value in vars(record).items() if key not in _OF_EVERY_RECORD})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception"] = f"{type(error).__module__}.{type(error).__qualname__}"
            line["stack"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        return json.dumps(line, ensure_ascii=False, default=str)


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at that moment: the door replaces it (services/kernel/rpc/door.py)."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """The present standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Ignored: it is looked up at each record."""


def configure(settings: ServiceSettings) -> None:
    """Makes every logger of this process write JSON lines, and nothing else; warnings too."""
    handler = StandardError()
    handler.setFormatter(JsonFormatter(settings.service, settings.instance))
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in _TELL_REQUESTS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
