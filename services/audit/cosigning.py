"""Asks the witnesses to cosign the newest head, again and again; whoever reads the log waits for none of it.

One round submits one head to every witness at once, because a head counts as witnessed only under all of them. A
witness that is away, late or refuses costs its cosignature and nothing else (invariant 5: witnesses never stop us).
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from services.audit.cosignature import Cosigner
from services.audit.log import AccessLog, SignedHead
from services.audit.note import NoteError, Signature, decode_count
from services.audit.publication import Publication
from services.audit.witness.domain import CONFLICT, FORBIDDEN, UNPROCESSABLE
from services.audit.witness.protocol import ADD_CHECKPOINT, HAND_OVER, MAX_BODY, AddCheckpoint
from services.audit.witnesses import PartyWitness
from services.kernel.telemetry import Telemetry

# Between two rounds: so much work for the witnesses, and so long at most until an access is witnessed.
ROUND_SECONDS = 0.3
# After a round that a witness did not sign; doubled up to the second bound.
_BACKOFF = (0.5, 15.0)
ANSWER_SECONDS = 3.0
# From then on a witness that has not signed is an alarm, not a delay.
PATIENCE_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Distrusted(Exception):  # noqa: N818 -- what a witness said
    """A witness says that this log contradicts what it cosigned: nothing that passes by itself."""


@dataclass(slots=True)
class _Standing:
    """How far one witness is: the size it cosigned last, since when a larger one waits, what it was told of keys."""

    witness: PartyWitness
    size: int = 0
    waiting_since: float | None = None
    alarmed: bool = False
    retry_at: float = 0.0
    pause: float = 0.0
    refused: bool = False


class Cosigning:
    """The rounds of one log; run `run` as a task."""

    def __init__(
        self,
        log: AccessLog,
        publication: Publication,
        witnesses: Sequence[PartyWitness],
        client: httpx.AsyncClient,
        telemetry: Telemetry,
    ) -> None:
        self._log = log
        self._publication = publication
        self._client = client
        self._telemetry = telemetry
        self._standings = [_Standing(witness) for witness in witnesses]
        # The size of the largest tree that all have cosigned, as far as this process knows.
        self.witnessed = 0
        self._signed = asyncio.Event()

    async def run(self) -> None:
        """Rounds until cancelled."""
        loop, begun = asyncio.get_running_loop(), False
        while True:
            began = loop.time()
            try:
                if not begun:
                    await self._begin()
                    begun = True
                await self.round()
            except Exception:  # noqa: BLE001 -- and so whatever it is
                # The next round tries again: nobody else would notice that there is none.
                _log.exception("no head could be offered to the witnesses")
            await asyncio.sleep(max(0.0, began + ROUND_SECONDS - loop.time()))

    async def _begin(self) -> None:
        for standing in self._standings:
            standing.size = await asyncio.to_thread(self._publication.cosigned_size, standing.witness.cosigner)
        await self._learn()

    @property
    def signed(self) -> asyncio.Event:
        """Set after the next round in which a cosignature comes in; ask for it before looking what there is."""
        return self._signed

    async def round(self) -> None:
        """Offers the newest head to every witness that has not cosigned it, once."""
        now = asyncio.get_running_loop().time()
        size = await asyncio.to_thread(self._log.size)
        for standing in self._standings:
            if standing.size < size and standing.waiting_since is None:
                standing.waiting_since = now
        asked = [s for s in self._standings if s.size < size and s.witness.url and s.retry_at <= now]
        if asked:
            await self._ask(asked)
        if await asyncio.to_thread(self._read_files):
            await self._learn()
        self._tell(asyncio.get_running_loop().time())

    async def _ask(self, asked: Sequence[_Standing]) -> None:
        head = await asyncio.to_thread(self._log.head)
        answers = await asyncio.gather(*(self._offer(standing, head) for standing in asked))
        found = [(s.witness.cosigner, line) for s, line in zip(asked, answers, strict=True) if line is not None]
        if not found:
            return
        await asyncio.to_thread(self._publication.add, head, found)
        for standing, line in zip(asked, answers, strict=True):
            if line is not None:
                _stands(standing, head.checkpoint.size)
        await self._learn()

    async def _learn(self) -> None:
        """What all have cosigned by now; whoever waits for it looks again."""
        published = await asyncio.to_thread(self._publication.witnessed)
        self.witnessed = 0 if published is None else published.head.checkpoint.size
        signed, self._signed = self._signed, asyncio.Event()
        signed.set()

    async def _offer(self, standing: _Standing, head: SignedHead) -> Signature | None:
        """The witness's line on this head; None where it gave none, which is logged."""
        try:
            return await self._submit(standing, head)
        except Distrusted as error:
            if not standing.refused:
                standing.refused = True
                _log.critical("a witness says that the log was rewritten", extra=_named(standing, str(error)))
        except (httpx.HTTPError, NoteError) as error:
            words = str(error) if isinstance(error, NoteError) else type(error).__name__
            _log.warning("a witness did not cosign", extra=_named(standing, words))
        standing.pause = min(max(2 * standing.pause, _BACKOFF[0]), _BACKOFF[1])
        standing.retry_at = asyncio.get_running_loop().time() + standing.pause
        return None

    async def _submit(self, standing: _Standing, head: SignedHead) -> Signature:
        answer = await self._add(standing, head)
        if answer.status_code == FORBIDDEN and await self._hand_over(standing):
            answer = await self._add(standing, head)
        if answer.status_code == CONFLICT:
            # It cosigned what we never heard of, or lost its state: it says from where to prove.
            standing.size = decode_count(answer.text.removesuffix("\n"))
            if standing.size > head.checkpoint.size:
                raise Distrusted("it cosigned a larger tree than this log has now")
            answer = await self._add(standing, head)
        if answer.status_code == UNPROCESSABLE:
            raise Distrusted("it cosigned another tree")
        if answer.status_code != httpx.codes.OK or len(answer.content) > MAX_BODY:
            raise NoteError(f"answered with {answer.status_code}")
        line, _ = standing.witness.cosigner.open(head.note + answer.text)
        return line

    async def _add(self, standing: _Standing, head: SignedHead) -> httpx.Response:
        size = head.checkpoint.size
        proof: tuple[bytes, ...] = ()
        if 0 < standing.size < size:
            proof = await asyncio.to_thread(self._log.consistency_proof, standing.size, size)
        body = AddCheckpoint(standing.size, proof, head.note).body()
        return await self._client.post(f"{standing.witness.url}/{ADD_CHECKPOINT}", content=body)

    async def _hand_over(self, standing: _Standing) -> bool:
        """Tells a witness that knows an earlier key of the log how it came to the present one."""
        notes = await asyncio.to_thread(self._publication.hand_overs)
        for note in notes:
            await self._client.post(f"{standing.witness.url}/{HAND_OVER}", content=note.encode())
        return bool(notes)

    def _read_files(self) -> bool:
        """Whether cosignatures came in as files since."""
        found = False
        for standing in self._standings:
            if not standing.witness.url:
                size = self._publication.cosigned_size(standing.witness.cosigner)
                if size > standing.size:
                    _stands(standing, size)
                    found = True
        return found

    def _tell(self, now: float) -> None:
        """Each witness's lag as a metric; beyond all patience as an alarm, once, and once when it is over."""
        for standing in self._standings:
            lag = 0.0 if standing.waiting_since is None else now - standing.waiting_since
            self._telemetry.state("planier.witness.lag", lag, party=standing.witness.party)
            if lag > PATIENCE_SECONDS and not standing.alarmed:
                standing.alarmed = True
                _log.error("a witness lags: heads stay without its cosignature", extra=_named(standing, f"{lag:.0f} s"))
            elif standing.alarmed and standing.waiting_since is None:
                standing.alarmed = False
                _log.warning("a witness cosigns again", extra=_named(standing, ""))


def _stands(standing: _Standing, size: int) -> None:
    standing.size = size
    standing.waiting_since = None
    standing.pause, standing.retry_at, standing.refused = 0.0, 0.0, False


def _named(standing: _Standing, error: str) -> dict[str, str]:
    cosigner: Cosigner = standing.witness.cosigner
    return {"party": standing.witness.party, "witness": cosigner.name, "error": error}
