"""A witness over real HTTPS: every status of tlog-witness, state before answers, a split view and a rollback."""

import asyncio
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit import merkle
from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.cosignature import Cosigner
from services.audit.hand_over import sign_hand_over
from services.audit.note import NoteVerifier, sign_note, split_note
from services.audit.witness.door import Witness
from services.audit.witness.protocol import MAX_BODY, AddCheckpoint
from services.audit.witness.state import WitnessState
from services.kernel.clock import SystemClock
from services.kernel.https import HttpsServer, client_context
from services.kernel.keys import create_key_pair, read_private_key
from tests.fixtures.audit import KEY, ORIGIN
from tests.fixtures.rpc import certificates

ENTRIES = [b"\x01" + bytes([number]) * 32 for number in range(40)]
FORKED = [*ENTRIES[:3], b"\x01" + b"other" * 6 + b"xx", *ENTRIES[4:]]
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
NAME = "witness.example/city"
COSIGNER = Cosigner(NAME, WITNESS_KEY.public_key())
ORIGIN_HASH = sha256(ORIGIN.encode()).hexdigest()


def head(size: int, entries: list[bytes] = ENTRIES, key: Ed25519PrivateKey = KEY, origin: str = ORIGIN) -> str:
    """The log's signed checkpoint of a size."""
    return sign_note(Checkpoint(origin, size, merkle.root_hash(entries[:size])).text(), origin, key)


def request(old: int, size: int, entries: list[bytes] = ENTRIES) -> AddCheckpoint:
    """An honest request of the log over these entries."""
    proof = merkle.consistency_proof(old, entries[:size]) if 0 < old < size else ()
    return AddCheckpoint(old, proof, head(size, entries))


@dataclass
class Running:
    """A witness and a client of it."""

    client: httpx.AsyncClient
    state: WitnessState
    url: str

    async def add(self, asked: AddCheckpoint | bytes) -> httpx.Response:
        body = asked if isinstance(asked, bytes) else asked.body()
        return await self.client.post(f"{self.url}/add-checkpoint", content=body)


def state_of(folder: Path) -> WitnessState:
    """The witness's state in a folder, opened."""
    state = WitnessState(f"sqlite:///{folder / 'witness.db'}", {ORIGIN: NoteVerifier(ORIGIN, KEY.public_key())})
    state.open()
    return state


def witness_of(state: WitnessState) -> Witness:
    """The witness over a state."""
    return Witness(NAME, WITNESS_KEY, state, [ORIGIN], SystemClock())


@pytest.fixture
async def witness(tmp_path: Path) -> AsyncIterator[Running]:
    files = certificates(tmp_path, "city-witness", "audit")
    state = state_of(tmp_path)
    server = HttpsServer(witness_of(state), "127.0.0.1:0", files("city-witness"), MAX_BODY)
    port = await server.start()
    async with httpx.AsyncClient(verify=client_context(files("audit")), trust_env=False) as client:
        yield Running(client, state, f"https://127.0.0.1:{port}")
    await server.stop()
    state.close()


async def test_a_growing_log_is_cosigned(witness: Running) -> None:
    for old, size in ((0, 3), (3, 3), (3, 17), (17, 40)):
        answer = await witness.add(request(old, size))
        assert answer.status_code == 200
        line, seconds = COSIGNER.open(head(size) + answer.text)
        assert (line.line(), seconds > 1_700_000_000) == (answer.text, True)
    shown = await witness.client.get(f"{witness.url}/{ORIGIN_HASH}/checkpoint")
    assert shown.status_code == 200
    assert parse_checkpoint(NoteVerifier(ORIGIN, KEY.public_key()).open(shown.text)).size == 40
    assert COSIGNER.open(shown.text)[0].line() == answer.text


BAD: dict[str, bytes] = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe",
    "no old size": head(3).encode(),
    "a size with a zero before it": request(0, 3).body().replace(b"old 0", b"old 00"),
    "a negative size": request(0, 3).body().replace(b"old 0", b"old -1"),
    "a proof that is no base64": request(0, 3).body().replace(b"old 0\n", b"old 0\n!\n"),
    "a proof line of 31 bytes": request(0, 3).body().replace(b"old 0\n", b"old 0\n" + b64encode(bytes(31)) + b"\n"),
    "64 proof lines": request(0, 3).body().replace(b"old 0\n", b"old 0\n" + (b64encode(bytes(32)) + b"\n") * 64),
    "a note without signature": b"old 0\n\n" + Checkpoint(ORIGIN, 1, bytes(32)).text().encode(),
    "a note that is no checkpoint": b"old 0\n\n" + sign_note("x\n", ORIGIN, KEY).encode(),
    "an old size beyond": AddCheckpoint(4, (), head(3)).body(),
}


@pytest.mark.parametrize("name", BAD)
async def test_400(witness: Running, name: str) -> None:
    assert (await witness.add(BAD[name])).status_code == 400


async def test_403_without_the_logs_signature_or_with_one_that_fails(witness: Running) -> None:
    stranger = Ed25519PrivateKey.generate()
    assert (await witness.add(AddCheckpoint(0, (), head(3, key=stranger)))).status_code == 403
    other = split_note(head(4))[1][0].line()
    for note in (head(3).replace(split_note(head(3))[1][0].line(), other), head(3) + other):
        assert (await witness.add(AddCheckpoint(0, (), note))).status_code == 403


async def test_404_of_another_log_and_405_and_413(witness: Running) -> None:
    assert (await witness.add(AddCheckpoint(0, (), head(3, origin="other.example/log")))).status_code == 404
    assert (await witness.client.get(f"{witness.url}/{ORIGIN_HASH}/checkpoint")).status_code == 404
    assert (await witness.client.get(f"{witness.url}/{'0' * 64}/checkpoint")).status_code == 404
    assert (await witness.client.post(f"{witness.url}/sign-subtree", content=b"x")).status_code == 404
    assert (await witness.client.get(f"{witness.url}/add-checkpoint")).status_code == 405
    assert (await witness.add(b"x" * (MAX_BODY + 1))).status_code == 413


async def test_409_says_from_which_size_to_prove(witness: Running) -> None:
    await witness.add(request(0, 5))
    for asked in (request(0, 17), request(3, 17), AddCheckpoint(6, (), head(17))):
        answer = await witness.add(asked)
        assert (answer.status_code, answer.text) == (409, "5\n")
        assert answer.headers["content-type"] == "text/x.tlog.size"


async def test_422_where_a_tree_is_not_shown_to_extend_the_last(witness: Running) -> None:
    for wrong in (
        AddCheckpoint(0, (bytes(32),), head(5)),
        AddCheckpoint(0, (), sign_note(Checkpoint(ORIGIN, 0, bytes(32)).text(), ORIGIN, KEY)),
    ):
        assert (await witness.add(wrong)).status_code == 422
    await witness.add(request(0, 5))
    honest = request(5, 17)
    for wrong in (
        AddCheckpoint(5, honest.proof[:-1], honest.note),
        AddCheckpoint(5, (*honest.proof, bytes(32)), honest.note),
        AddCheckpoint(5, tuple(reversed(honest.proof)), honest.note),
        AddCheckpoint(5, (), honest.note),
        AddCheckpoint(5, (bytes(32),), head(5)),
    ):
        assert (await witness.add(wrong)).status_code == 422
    assert (await witness.add(honest)).status_code == 200


async def test_a_split_view_is_refused_and_kept_as_evidence(witness: Running) -> None:
    """The log shows this witness one history and somebody else another: both heads bear its signature."""
    await witness.add(request(0, 5))
    for asked in (AddCheckpoint(5, (), head(5, FORKED)), request(5, 17, FORKED)):
        assert (await witness.add(asked)).status_code == 422
    evidence = witness.state.evidence()
    assert [status for status, _, _ in evidence] == [422, 422]
    verifier = NoteVerifier(ORIGIN, KEY.public_key())
    refused, cosigned = (parse_checkpoint(verifier.open(note)) for note in evidence[0][1:])
    assert (refused.size, cosigned.size) == (5, 5)
    assert refused.root != cosigned.root


async def test_a_rollback_is_refused(witness: Running) -> None:
    """A log that lost its tail, or was cut, cannot be witnessed again until it holds what it held."""
    await witness.add(request(0, 17))
    assert (await witness.add(request(0, 9))).text == "17\n"
    assert (await witness.add(AddCheckpoint(17, (), head(9)))).status_code == 400
    assert (await witness.add(request(9, 12))).status_code == 409
    assert (await witness.add(request(17, 40))).status_code == 200


async def test_of_concurrent_requests_one_wins_and_nothing_goes_back(witness: Running) -> None:
    await witness.add(request(0, 5))
    answers = await asyncio.gather(*(witness.add(request(5, size)) for size in range(6, 26)))
    won = [size for size, answer in zip(range(6, 26), answers, strict=True) if answer.status_code == 200]
    assert len(won) == 1
    assert {answer.status_code for answer in answers} == {200, 409}
    shown = await witness.client.get(f"{witness.url}/{ORIGIN_HASH}/checkpoint")
    assert parse_checkpoint(split_note(shown.text)[0]).size == won[0]


async def test_a_log_hands_over_its_key_and_the_old_one_signs_nothing_larger(witness: Running) -> None:
    new = Ed25519PrivateKey.generate()
    await witness.add(request(0, 5))
    place = Checkpoint(ORIGIN, 9, merkle.root_hash(ENTRIES[:9]))
    later = AddCheckpoint(5, merkle.consistency_proof(5, ENTRIES[:17]), head(17, key=new))
    assert (await witness.add(later)).status_code == 403

    async def hand(note: str) -> int:
        return (await witness.client.post(f"{witness.url}/hand-over", content=note.encode())).status_code

    note = sign_hand_over(place, KEY, new)
    assert await hand("x") == 400
    assert await hand(sign_hand_over(Checkpoint("other", 9, place.root), KEY, new)) == 404
    assert await hand(sign_hand_over(place, Ed25519PrivateKey.generate(), new)) == 403
    assert await hand(sign_hand_over(Checkpoint(ORIGIN, 4, place.root), KEY, new)) == 409
    assert await hand(sign_hand_over(Checkpoint(ORIGIN, 5, place.root), KEY, new)) == 422
    assert [await hand(note), await hand(note)] == [200, 200]
    assert await hand(sign_hand_over(place, KEY, Ed25519PrivateKey.generate())) == 403
    assert (await witness.add(request(5, 17))).status_code == 403
    assert (await witness.add(later)).status_code == 200


async def test_nobody_without_a_certificate_of_the_authority_is_heard(witness: Running, tmp_path: Path) -> None:
    strange = certificates(tmp_path / "strange", "audit")("audit")
    context = client_context(strange)
    context.load_verify_locations(certificates(tmp_path, "audit")("audit").ca)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(f"{witness.url}/{ORIGIN_HASH}/checkpoint")


# Dies without warning inside the transaction, or after it and before the answer.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.integration.test_audit_witness import request, state_of, witness_of

where, folder = sys.argv[1], Path(sys.argv[2])
state = state_of(folder)
witness = witness_of(state)
assert witness.add_checkpoint(request(0, 5).body()).status == 200
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if where == "before":
    keep = state.keep
    state.keep = lambda *a: (keep(*a), die())
witness.add_checkpoint(request(5, 17).body())
die()
"""


@pytest.mark.parametrize(("where", "size"), [("before", 5), ("after", 17)])
def test_what_was_answered_survives_kill_9(tmp_path: Path, where: str, size: int) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -9
    state = state_of(tmp_path)
    # A size that was answered is never answered for another tree; one that was not can be asked for again.
    again = witness_of(state).add_checkpoint(request(5, 17).body())
    assert again.status == (200 if size == 5 else 409)
    note = state.checkpoint(ORIGIN)
    assert note is not None
    assert parse_checkpoint(split_note(note)[0]).size == 17
    state.close()


def test_a_witness_keeps_no_more_evidence_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.audit.witness.state.MOST_EVIDENCE", 3)
    state = state_of(tmp_path)
    witness = witness_of(state)
    witness.add_checkpoint(request(0, 5).body())
    for _ in range(5):
        assert witness.add_checkpoint(AddCheckpoint(5, (), head(5, FORKED)).body()).status == 422
    assert len(state.evidence()) == 3
    state.close()


def test_a_party_without_a_server_cosigns_by_file(tmp_path: Path) -> None:
    """The same rules and state as with one; what it signs is what the log takes; what does not follow is said."""
    key = tmp_path / "witness.pem"
    create_key_pair(key, tmp_path / "witness.pub")
    (tmp_path / "logs").write_text(f"# the log\n\n{NoteVerifier(ORIGIN, KEY.public_key()).text()}\n")
    root = Path(__file__).resolve().parents[2]

    def signed(asked: AddCheckpoint) -> subprocess.CompletedProcess[str]:
        (tmp_path / "request").write_bytes(asked.body())
        command = [
            sys.executable, "-m", "services.audit.witness.by_file", str(tmp_path / "request"), "--name", NAME,
            "--key", str(key), "--logs", str(tmp_path / "logs"), "--state", f"sqlite:///{tmp_path / 'witness.db'}",
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)

    first = signed(request(0, 5))
    assert first.returncode == 0, first.stderr
    cosigner = Cosigner(NAME, read_private_key(key).public_key())
    assert cosigner.open(first.stdout)[0].name == NAME
    assert NoteVerifier(ORIGIN, KEY.public_key()).open(first.stdout) == split_note(head(5))[0]
    late = signed(request(0, 17))
    assert (late.returncode, late.stdout) == (1, "")
    assert "up to 5" in late.stderr
    assert signed(request(5, 17, FORKED)).returncode == 1
    assert signed(request(5, 17)).returncode == 0
