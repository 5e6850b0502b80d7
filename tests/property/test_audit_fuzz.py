"""Every parser of the log's formats, and the doors behind them, against bytes that nobody would send."""

import asyncio
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.audit import merkle
from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.cosignature import Cosigner, cosign
from services.audit.hand_over import open_hand_over, sign_hand_over
from services.audit.note import NoteError, NoteVerifier, sign_note, split_note
from services.audit.proof import Proof, parse_proof
from services.audit.tiles import ENTRIES, TileError, parse_path, split_entries
from services.audit.witness.door import Witness
from services.audit.witness.protocol import MAX_BODY, AddCheckpoint, parse_request
from services.audit.witness.state import WitnessState
from services.kernel.clock import SystemClock
from services.kernel.https import HttpRequest, HttpResponse, HttpsServer, client_context
from tests.fixtures.audit import KEY, ORIGIN
from tests.fixtures.rpc import certificates
from tests.golden.test_audit_formats import WITNESS
from tools import verify_access_log as auditor

ENTRY = [b"\x01" + bytes([number]) * 32 for number in range(20)]
TEXT = Checkpoint(ORIGIN, 20, merkle.root_hash(ENTRY)).text()
NOTE = sign_note(TEXT, ORIGIN, KEY) + cosign(TEXT, "w", WITNESS, 1_800_000_000).line()
OLD = sign_note(Checkpoint(ORIGIN, 7, merkle.root_hash(ENTRY[:7])).text(), ORIGIN, KEY)
PROOF = Proof(3, merkle.inclusion_proof(3, ENTRY), NOTE, b"salt" * 20).text()
REQUEST = AddCheckpoint(7, merkle.consistency_proof(7, ENTRY), NOTE).body()
HAND_OVER = sign_hand_over(Checkpoint(ORIGIN, 20, merkle.root_hash(ENTRY)), KEY, WITNESS)
LOG_KEY = NoteVerifier(ORIGIN, KEY.public_key())

# Of each parser: a good input, and what it gives as it would be written again.
PARSERS: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "note": (NOTE, lambda text: "".join([(s := split_note(text))[0], "\n", *(line.line() for line in s[1])])),
    "checkpoint": (TEXT, lambda text: (parse_checkpoint(text), None)[1]),
    "proof": (PROOF, lambda text: parse_proof(text).text()),
    "request": (REQUEST.decode(), lambda text: parse_request(text.encode("utf-8", "surrogatepass")).body().decode()),
    "log key": (LOG_KEY.text(), lambda text: NoteVerifier.parse(text).text()),
    "witness key": (Cosigner("w", WITNESS.public_key()).text(), lambda text: Cosigner.parse(text).text()),
    "signed": (NOTE, LOG_KEY.open),
    "cosigned": (NOTE, lambda text: (Cosigner("w", WITNESS.public_key()).open(text), None)[1]),
    "hand-over": (HAND_OVER, lambda text: open_hand_over(text).text()),
    "tile": ("tile/entries/x001/234.p/17", lambda text: parse_path(text).path()),
}
REPEATED = ("\n", "\n\n", "—", " ", "+", "=", "0", "-", "\0", "\ud800", "é", "\u2028", "9" * 5000)


@st.composite
def altered(draw: st.DrawFn, good: str) -> str:
    """A good input with a few characters cut, moved, doubled, changed or put in."""
    text = good
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        part = text[at:end]
        match draw(st.sampled_from(["cut", "double", "put", "flip", "truncate", "move", "lines"])):
            case "cut":
                text = text[:at] + text[end:]
            case "double":
                text = text[:end] + part + text[end:]
            case "put":
                text = text[:at] + draw(st.sampled_from(REPEATED)) + text[at:]
            case "flip" if text:
                at = min(at, len(text) - 1)
                text = text[:at] + chr(ord(text[at]) ^ (1 << draw(st.integers(0, 6)))) + text[at + 1 :]
            case "truncate":
                text = text[:at]
            case "move":
                text = text[:at] + text[end:] + part
            case _:
                lines = text.split("\n")
                draw(st.randoms(use_true_random=False)).shuffle(lines)
                text = "\n".join(lines)
    return text


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_parser_refuses_or_reads_what_it_would_write(name: str, data: st.DataObject) -> None:
    good, again = PARSERS[name]
    text = data.draw(st.one_of(altered(good), st.text(max_size=200)))
    try:
        written = again(text)
    except (NoteError, TileError):
        return
    if name in ("signed", "hand-over"):
        # What is signed is what was signed; only lines of unknown keys may differ.
        assert written == split_note(good)[0]
    elif written is not None:
        assert written == text


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\xff\xff")
def test_bundles_are_cut_up_whole_or_refused(content: bytes) -> None:
    try:
        entries = split_entries(content)
    except TileError:
        return
    assert sum(len(entry) + 2 for entry in entries) == len(content)
    assert parse_path("tile/entries/000").level == ENTRIES


HASHES = st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40), st.none(), st.integers(), st.text())


@settings(max_examples=300)
@given(st.integers(-2, 70), st.integers(-2, 70), st.lists(HASHES, max_size=8), HASHES, HASHES)
def test_whatever_is_given_for_a_proof_is_refused_without_an_error(
    first: int, second: int, proof: list[Any], one: Any, other: Any
) -> None:
    assert not merkle.verify_inclusion(first, second, one, proof, other)
    if first != second or one != other or proof:
        assert not merkle.verify_consistency(first, second, one, other, proof)


AUDITED: dict[str, tuple[str, list[str]]] = {
    "receipt": (PROOF, ["receipt", "file"]),
    "consistency": (REQUEST.decode(), ["consistency", "old", "file"]),
    "old": (OLD, ["consistency", "file", "extension"]),
}


@pytest.mark.parametrize("name", AUDITED)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_the_auditors_file_proves_or_names(tmp_path_factory: pytest.TempPathFactory, name: str, data: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    good, arguments = AUDITED[name]
    text = data.draw(altered(good))
    (folder / "old").write_text(OLD)
    (folder / "extension").write_bytes(REQUEST)
    (folder / "file").write_bytes(text.encode("utf-8", "surrogatepass"))
    command, *paths = arguments
    files = [str(folder / path) for path in paths]
    status = auditor.main([command, *files, "--log-key", LOG_KEY.text()])
    # Any other outcome would be an error that the auditor cannot read.
    assert status in (0, 1)
    if command == "receipt":
        assert status == 1


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=altered(REQUEST.decode()))
def test_a_witness_cosigns_only_what_follows(tmp_path_factory: pytest.TempPathFactory, body: str) -> None:
    state = WitnessState("sqlite:///" + str(tmp_path_factory.mktemp("w") / "w.db"), {ORIGIN: LOG_KEY})
    state.open()
    witness = Witness("w", WITNESS, state, [ORIGIN], SystemClock())
    assert witness.add_checkpoint(AddCheckpoint(0, (), OLD).body()).status == 200
    answer = witness.add_checkpoint(body.encode("utf-8", "surrogatepass"))
    assert answer.status in (200, 400, 403, 404, 409, 422)
    if answer.status == 200:
        asked = parse_request(body.encode())
        assert asked.checkpoint().text() in (TEXT, Checkpoint(ORIGIN, 7, merkle.root_hash(ENTRY[:7])).text())
    state.close()


async def test_a_door_outlives_whatever_is_sent_to_it(tmp_path: Path) -> None:
    """Bytes that are no HTTP, cut requests, endless headers: each connection ends, the next is served."""
    files = certificates(tmp_path, "audit", "city-witness")

    async def answer(_: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"here")

    server = HttpsServer(answer, "127.0.0.1:0", files("audit"), MAX_BODY)
    port = await server.start()
    context, chance = client_context(files("city-witness")), random.Random(6962)  # noqa: S311 -- bytes, not secrets
    good = b"POST /add-checkpoint HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    wrong = [
        b"", b"\r\n\r\n", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01" * 40,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"A" * 70_000, good[:-3],
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % number for number in range(5000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999\r\n\r\n" + b"x" * (MAX_BODY + 1),
    ]  # fmt: skip
    for _ in range(40):
        cut = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            cut[chance.randrange(len(cut))] = chance.randrange(256)
        wrong.append(bytes(cut[: chance.randint(1, len(cut))]))
    for start in range(0, len(wrong), 13):
        await asyncio.gather(*(exchange(port, context, sent) for sent in wrong[start : start + 13]))
    assert (await exchange(port, context, good)).endswith(b"\r\n\r\nhere")
    await server.stop()


async def exchange(port: int, context: ssl.SSLContext, sent: bytes) -> bytes:
    """What the server gives for these bytes, then the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    received = b""
    try:
        writer.write(sent)
        async with asyncio.timeout(0.3 if sent and not sent.endswith(b"hello") else 5):
            received = await reader.read()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()
        writer.transport.abort()
    return received
