"""A witness over HTTPS: `POST /add-checkpoint`, `GET /<origin hash>/checkpoint` (tlog-witness), and `POST /hand-over`.

The last is ours: tlog-witness leaves open how a witness learns a log's next key. `sign-subtree` is optional and absent.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.cosignature import Cosigner, cosign
from services.audit.hand_over import open_hand_over
from services.audit.note import NoteError, split_note
from services.audit.witness.domain import BAD_REQUEST, CONFLICT, Head, Refusal, decide, decide_hand_over
from services.audit.witness.protocol import ADD_CHECKPOINT, HAND_OVER, SIZE_TYPE, decode_text, parse_request
from services.audit.witness.state import Log, WitnessState
from services.kernel.clock import Clock
from services.kernel.https import HttpRequest, HttpResponse

_TEXT = ("content-type", "text/plain; charset=utf-8")

_log = logging.getLogger(__name__)


class Witness:
    """One witness: its name, its key, the logs it knows."""

    def __init__(
        self, name: str, key: Ed25519PrivateKey, state: WitnessState, origins: Collection[str], clock: Clock
    ) -> None:
        self.cosigner = Cosigner(name, key.public_key())
        self._key = key
        self._state = state
        self._clock = clock
        # By what the monitoring path holds.
        self._origins = {sha256(origin.encode()).hexdigest(): origin for origin in origins}

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """The protocol's answer; what changes state is durable before it is given."""
        posts: dict[str, Callable[[bytes], HttpResponse]] = {
            f"/{ADD_CHECKPOINT}": self.add_checkpoint,
            f"/{HAND_OVER}": self.hand_over,
        }
        post = posts.get(request.path)
        if post is not None:
            if request.method != "POST":
                return HttpResponse(405, headers=(_TEXT, ("allow", "POST")))
            return await asyncio.to_thread(post, request.body)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(404)
        return await asyncio.to_thread(self._monitor, request.path)

    def add_checkpoint(self, body: bytes) -> HttpResponse:
        """A cosignature line, or the refusal that tlog-witness prescribes."""
        try:
            request = parse_request(body)
            origin = request.checkpoint().origin
        except NoteError as error:
            return _refused(Refusal(BAD_REQUEST, str(error)))
        with self._state.changing() as connection:
            known = self._state.read(connection, origin)
            now = int(self._clock.now().timestamp())
            try:
                checkpoint = decide(request, known.keys, known.latest)
            except Refusal as refusal:
                if refusal.signed:
                    self._state.keep_evidence(connection, now, refusal.status, (request.note, known.note))
                return _refused(refusal, known)
            text, signatures = split_note(request.note)
            line = cosign(text, self.cosigner.name, self._key, now).line()
            own = {verifier.key_id for verifier in known.keys.of_size(checkpoint.size)} if known.keys else set()
            logs = "".join(found.line() for found in signatures if found.name == origin and found.key_id in own)
            self._state.keep(connection, origin, Head(checkpoint.size, checkpoint.root), f"{text}\n{logs}{line}")
        return HttpResponse(200, line.encode())

    def hand_over(self, body: bytes) -> HttpResponse:
        """200 once the log's next key is known, also where it was before."""
        try:
            note = decode_text(body)
            hand_over = open_hand_over(note)
        except NoteError as error:
            return _refused(Refusal(BAD_REQUEST, str(error)))
        origin = hand_over.head.origin
        with self._state.changing() as connection:
            known = self._state.read(connection, origin)
            if note in known.hand_overs:
                return HttpResponse(200)
            try:
                decide_hand_over(hand_over, known.keys, known.latest)
            except Refusal as refusal:
                if refusal.signed:
                    now = int(self._clock.now().timestamp())
                    self._state.keep_evidence(connection, now, refusal.status, (note, known.note))
                return _refused(refusal, known)
            self._state.keep_hand_over(connection, origin, len(known.hand_overs), note)
        _log.warning("a log has handed over to a new key", extra={"origin": origin, "key": hand_over.new.text()})
        return HttpResponse(200)

    def _monitor(self, path: str) -> HttpResponse:
        origin = self._origins.get(path.removeprefix("/").removesuffix("/checkpoint"))
        note = self._state.checkpoint(origin) if origin is not None and path.endswith("/checkpoint") else None
        if note is None:
            return HttpResponse(404)
        return HttpResponse(200, note.encode(), (_TEXT, ("cache-control", "no-cache")))


def _refused(refusal: Refusal, known: Log | None = None) -> HttpResponse:
    if refusal.signed:
        _log.critical("a log signed what contradicts its past", extra={"status": refusal.status})
    if refusal.status == CONFLICT and known is not None:
        return HttpResponse(CONFLICT, f"{known.latest.size}\n".encode(), (("content-type", SIZE_TYPE),))
    return HttpResponse(refusal.status, f"{refusal}\n".encode())
