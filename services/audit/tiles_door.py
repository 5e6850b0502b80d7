"""The log over HTTPS: C2SP tlog-tiles, read-only. Whatever is served here commits to records and tells nothing of them.

Beside what tlog-tiles names: `checkpoint.witnessed`, the newest that every witness has cosigned, and `hand-overs`, the
changes of the log's key. `checkpoint` is the newest of all; the header `planier-not-cosigned-by` names who has not
signed it yet.
"""

import asyncio
import json
import logging

from services.audit.publication import Corrupt, Publication, Published
from services.audit.tiles import TileError, parse_path
from services.kernel.https import HttpRequest, HttpResponse

MISSING = "planier-not-cosigned-by"
_TEXT = ("content-type", "text/plain; charset=utf-8")
_BYTES = ("content-type", "application/octet-stream")
_MUTABLE = ("cache-control", "no-cache, max-age=0")
_FOREVER = ("cache-control", "public, max-age=31536000, immutable")

_log = logging.getLogger(__name__)


class TilesDoor:
    """Answers GET and HEAD below the log's prefix, which is the root of this door."""

    def __init__(self, publication: Publication) -> None:
        self._publication = publication

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """The resource, or 404; 405 for any other method; 500 where what is stored is not what the tree holds."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(405, headers=(_TEXT, ("allow", "GET, HEAD")))
        return await asyncio.to_thread(self._answer, request.path)

    def _answer(self, path: str) -> HttpResponse:
        match path:
            case "/checkpoint":
                return _note(self._publication.newest())
            case "/checkpoint.witnessed":
                published = self._publication.witnessed()
                return HttpResponse(404) if published is None else _note(published)
            case "/hand-overs":
                notes = json.dumps(self._publication.hand_overs(), ensure_ascii=False)
                return HttpResponse(200, notes.encode(), (("content-type", "application/json"), _MUTABLE))
        try:
            content = self._publication.tile(parse_path(path.removeprefix("/")))
        except TileError:
            return HttpResponse(404)
        except Corrupt:
            _log.critical("the access log is corrupt: this part is not served", extra={"path": path})
            return HttpResponse(500)
        return HttpResponse(200, content, (_BYTES, _FOREVER))


def _note(published: Published) -> HttpResponse:
    missing = ((MISSING, ", ".join(published.missing)),) if published.missing else ()
    return HttpResponse(200, published.note.encode(), (_TEXT, _MUTABLE, *missing))
