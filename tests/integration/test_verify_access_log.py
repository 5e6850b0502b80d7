"""The auditor's one file against real logs: what it proves, and each alteration that it must name."""

import ast
import asyncio
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor import Descriptor
from planier.audit.v1.record_pb2 import AccessRecord

from services.audit.checkpoint import Checkpoint
from services.audit.copy import CopyRefused, copy_log
from services.audit.cosignature import Cosigner, cosign
from services.audit.log import AccessLog
from services.audit.note import NoteVerifier, sign_note
from services.audit.proving import find, prove
from services.audit.publication import Publication
from services.audit.rotate import rotate
from services.audit.schema import BODIES
from services.audit.tiles_door import TilesDoor
from services.audit.witness.protocol import AddCheckpoint
from services.kernel.https import HttpRequest
from tests.fixtures.audit import KEY, ORIGIN, access_record, items, opened, sqlite_url, statement
from tools import verify_access_log as auditor

CITY, PREFECTURE = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (7, 8))
COSIGNERS = [
    Cosigner("city.example/witness", CITY.public_key()),
    Cosigner("p.example/witness", PREFECTURE.public_key()),
]
NEW = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
FIRST, SECOND, SIZE = 300, 420, 600
# Of the other party's person: its entry proves, its record stays with that party.
MASKED = 12
RECORDS = [access_record(number) for number in range(1, SIZE + 1)]
RECORDS[9] = statement(4, 5)
PROVED = RECORDS[257]


@dataclass(frozen=True)
class Published:
    """Files of one log: a receipt, two checkpoints, the extension between them, a copy with records, keys."""

    folder: Path

    def run(self, *arguments: str | Path, log: Ed25519PrivateKey = KEY, witnesses: int = 2) -> tuple[int, str, str]:
        keys = ["--log-key", NoteVerifier(ORIGIN, log.public_key()).text()]
        for cosigner in COSIGNERS[:witnesses]:
            keys += ["--witness-key", cosigner.text()]
        command = [sys.executable, "-I", str(self.folder / "verify.py"), *map(str, arguments), *keys]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        return done.returncode, done.stdout, done.stderr


def witnessed(log: AccessLog) -> Publication:
    """The log's newest head, under both witnesses."""
    publication, head = Publication(log, COSIGNERS), log.head()
    lines = [
        (cosigner, cosign(head.checkpoint.text(), cosigner.name, key, 1_800_000_000))
        for cosigner, key in zip(COSIGNERS, (CITY, PREFECTURE), strict=True)
    ]
    publication.add(head, lines)
    return publication


def copied(publication: Publication, folder: Path, key: Ed25519PrivateKey) -> None:
    door = TilesDoor(publication)

    async def fetch(path: str) -> bytes:
        answer = await door(HttpRequest("GET", f"/{path}"))
        assert answer.status == 200
        return answer.body

    asyncio.run(copy_log(fetch, folder, NoteVerifier(ORIGIN, key.public_key())))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(auditor.__file__, folder / "verify.py")
    (folder / "log").mkdir()
    url = sqlite_url(folder / "log")
    with opened(url) as log:
        log.append(items(RECORDS[:FIRST]))
        publication = witnessed(log)
        old = publication.newest().note
        (folder / "old").write_text(old)
        copied(publication, folder / "copy", KEY)
        log.append(items(RECORDS[FIRST:SECOND]))
    rotate(url, ORIGIN, KEY, NEW)
    after = AccessLog(url, origin=ORIGIN, key=NEW)
    after.open()
    after.append(items(RECORDS[SECOND:]))
    after.erase([4, 5], erased_by=9)
    publication = witnessed(after)
    copied(publication, folder / "copy", KEY)
    (folder / "new").write_text(publication.newest().note)
    extension = AddCheckpoint(FIRST, after.consistency_proof(FIRST, SIZE), publication.newest().note)
    (folder / "extension").write_bytes(extension.body())
    held = find(publication, PROVED.record_id)
    assert held is not None
    (folder / "r.tlog-proof").write_text(prove(publication, held, content=True).proof.text())
    (folder / "masked.tlog-proof").write_text(prove(publication, held, content=False).proof.text())
    write_records(after, folder / "copy" / "records.jsonl")
    after.close()
    return Published(folder)


def write_records(log: AccessLog, path: Path) -> None:
    with log.reading() as connection, path.open("w") as file:
        for row in connection.execute(BODIES.select().order_by(BODIES.c.idx)):
            line: dict[str, object] = {"index": row.idx}
            if row.idx == MASKED:
                line |= {"masked": True, "shown": ""}
            elif row.record is not None:
                line |= {name: base64.b64encode(getattr(row, name)).decode() for name in ("salt", "record")}
            file.write(json.dumps(line) + "\n")


def test_it_imports_nothing_of_ours() -> None:
    modules = set()
    for node in ast.walk(ast.parse(Path(auditor.__file__).read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add((node.module or "").partition(".")[0])
    assert modules <= {*sys.stdlib_module_names, "cryptography"}


def test_a_receipt_is_proved_and_shown(published: Published) -> None:
    for key, hand_overs in ((NEW, ()), (KEY, ("--hand-overs", "copy/hand-overs"))):
        status, output, errors = published.run("receipt", "r.tlog-proof", *hand_overs, log=key)
        assert status == 0, errors
        found = json.loads(output)
        assert (found["index"], found["tree_size"], len(found["cosigned_by"])) == (257, SIZE, 2)
        record = found["record"]
        assert record["record_id"] == PROVED.record_id
        assert record["actor"]["subject"] == "agent-7"
        assert record["decision"]["clauses"] == ["art6.purpose", "art6.habilitation"]
        assert record["data"]["sources"] == ["cortege", "travaux"]
        assert record["occurred_at"] == f"{PROVED.occurred_at.seconds}.{PROVED.occurred_at.nanos:09d}"


def test_growth_is_proved_across_a_change_of_key(published: Published) -> None:
    arguments = ("consistency", "old", "extension", "--hand-overs", "copy/hand-overs")
    for key in (KEY, NEW):
        status, output, errors = published.run(*arguments, log=key)
        assert status == 0, errors
        assert json.loads(output)["to"] == SIZE


def test_a_whole_copy_is_proved_from_a_remembered_checkpoint(published: Published) -> None:
    arguments = ("copy", "copy", "--remembered", "old", "--hand-overs", "copy/hand-overs")
    status, output, errors = published.run(*arguments)
    assert status == 0, errors
    found = json.loads(output)
    counts = [found[name] for name in ("tree_size", "records", "masked", "erased")]
    assert counts == [SIZE, SIZE - 3, 1, 2]


@pytest.mark.parametrize("data", ["receipt", "consistency"])
def test_without_the_hand_over_an_old_key_proves_nothing_new(published: Published, data: str) -> None:
    files = {"receipt": ("r.tlog-proof",), "consistency": ("old", "extension")}[data]
    status, _, errors = published.run(data, *files)
    assert (status, errors.split()[2]) == (1, "SIGNATURE_MISSING:")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def line_of(path: Path, number: int, change: Callable[[str], str]) -> None:
    lines = path.read_text().split("\n")
    lines[number] = change(lines[number])
    path.write_text("\n".join(lines))


def swapped(path: Path) -> None:
    lines = path.read_text().split("\n")
    lines[3], lines[4] = lines[4], lines[3]
    path.write_text("\n".join(lines))


def without_line(path: Path, number: int) -> None:
    lines = path.read_text().split("\n")
    del lines[number]
    path.write_text("\n".join(lines))


def another_record(line: str) -> str:
    content = base64.b64decode(line.removeprefix("extra "))
    return "extra " + base64.b64encode(content[:-1] + bytes([content[-1] ^ 1])).decode()


def altered_record(line: str) -> str:
    known = json.loads(line)
    content = base64.b64decode(known["record"])
    return json.dumps({**known, "record": base64.b64encode(content[:-1] + bytes([content[-1] ^ 1])).decode()})


def repeated(folder: Path) -> None:
    """Somebody with every key signs a log that holds one entry twice."""
    shutil.rmtree(folder)
    entry = b"\x01" + bytes(32)
    (folder / "tile/0/000.p").mkdir(parents=True)
    (folder / "tile/entries/000.p").mkdir(parents=True)
    (folder / "tile/entries/000.p/2").write_bytes(2 * (b"\x00\x21" + entry))
    leaf = auditor.leaf_hash(entry)
    (folder / "tile/0/000.p/2").write_bytes(2 * leaf)
    text = Checkpoint(ORIGIN, 2, auditor.node_hash(leaf, leaf)).text()
    lines = [cosign(text, c.name, key, 1).line() for c, key in zip(COSIGNERS, (CITY, PREFECTURE), strict=True)]
    (folder / "checkpoint").write_text(sign_note(text, ORIGIN, NEW) + "".join(lines))


def reordered(folder: Path) -> None:
    """Two tiles change places, entries and hashes alike."""
    (folder / "records.jsonl").unlink()
    for kind in ("0", "entries"):
        first, second = (folder / "tile" / kind / name for name in ("000", "001"))
        content = first.read_bytes(), second.read_bytes()
        second.write_bytes(content[0])
        first.write_bytes(content[1])


def another_hash(line: str) -> str:
    """Base64 of other 32 bytes: a flipped bit could leave the alphabet, which is another fault."""
    return ("B" if line[0] == "A" else "A") + line[1:]


RECEIPT = ("receipt", "r.tlog-proof")
EXTENSION = ("consistency", "new", "extension")
COPY = ("copy", "copy")
ALTERED: dict[str, tuple[tuple[str, ...], Callable[[Path], object], str]] = {
    "another record": (RECEIPT, lambda f: line_of(f / "r.tlog-proof", 1, another_record), "INCLUSION_INVALID"),
    "another index": (RECEIPT, lambda f: line_of(f / "r.tlog-proof", 2, lambda _: "index 256"), "INCLUSION_INVALID"),
    "an index beyond": (RECEIPT, lambda f: line_of(f / "r.tlog-proof", 2, lambda _: "index 600"), "INCLUSION_INVALID"),
    "no index": (RECEIPT, lambda f: without_line(f / "r.tlog-proof", 2), "PROOF_MALFORMED"),
    "a hash less": (RECEIPT, lambda f: without_line(f / "r.tlog-proof", 3), "INCLUSION_INVALID"),
    "hashes in another order": (RECEIPT, lambda f: swapped(f / "r.tlog-proof"), "INCLUSION_INVALID"),
    "a cosignature less": (RECEIPT, lambda f: without_line(f / "r.tlog-proof", -2), "COSIGNATURE_MISSING"),
    "no end": (RECEIPT, lambda f: (f / "r.tlog-proof").write_text("c2sp.org/tlog-proof@v1\n"), "PROOF_MALFORMED"),
    "no record": (("receipt", "masked.tlog-proof"), lambda _: None, "RECORD_ABSENT"),
    "no file": (("receipt", "none"), lambda _: None, "FILE_MISSING"),
    "another old checkpoint": (EXTENSION, lambda _: None, "CONSISTENCY_INVALID"),
    "an entry's bit": (COPY, lambda f: flip(f / "copy/tile/entries/001", 90), "ENTRY_ALTERED"),
    "a hash's bit": (COPY, lambda f: flip(f / "copy/tile/0/000", 90), "ENTRY_ALTERED"),
    "a cut bundle": (
        COPY, lambda f: (f / "copy/tile/entries/001").write_bytes((f / "copy/tile/entries/001").read_bytes()[:-9]),
        "TILE_TRUNCATED",
    ),
    "a lost tile": (COPY, lambda f: (f / "copy/tile/0/001").unlink(), "TILE_MISSING"),
    "tiles in another order": (COPY, lambda f: reordered(f / "copy"), "ROOT_MISMATCH"),
    "the checkpoint's root": (COPY, lambda f: line_of(f / "copy/checkpoint", 2, another_hash), "SIGNATURE_INVALID"),
    "an older checkpoint": (COPY, lambda f: shutil.copy(f / "old", f / "copy/checkpoint"), "RECORD_UNKNOWN"),
    "a record's bit": (
        COPY, lambda f: line_of(f / "copy/records.jsonl", 7, altered_record), "RECORD_ALTERED"
    ),
    "a lost record": (COPY, lambda f: without_line(f / "copy/records.jsonl", 7), "RECORD_MISSING"),
    "an erasure that nobody stated": (
        COPY, lambda f: line_of(f / "copy/records.jsonl", 20, lambda _: '{"index": 20}'), "ERASURE_UNAUTHORISED"
    ),
    "one entry twice": (COPY, lambda f: repeated(f / "copy"), "ENTRY_REPEATED"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_each_alteration_is_named(published: Published, tmp_path: Path, name: str) -> None:
    arguments, change, fault = ALTERED[name]
    folder = tmp_path / "altered"
    shutil.copytree(published.folder, folder, ignore=shutil.ignore_patterns("log"))
    change(folder)
    key = KEY if name == "an older checkpoint" else NEW
    status, output, errors = Published(folder).run(*arguments, log=key)
    assert (status, output) == (1, "")
    assert errors.startswith(f"NOT PROVED {fault}:"), errors


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (NoteVerifier("other.example/log", NEW.public_key()).text(), "ORIGIN_UNKNOWN"),
        (NoteVerifier(ORIGIN, CITY.public_key()).text(), "SIGNATURE_MISSING"),
        (COSIGNERS[0].text(), "KEY_MALFORMED"),
        (NoteVerifier(ORIGIN, NEW.public_key()).text()[:-8] + "AAAAAAA=", "KEY_MALFORMED"),
        ("+", "KEY_MALFORMED"),
    ],
    ids=["another log's", "a witness's for the log", "a witness's", "cut", "none"],
)
def test_a_wrong_key_is_named(published: Published, given: str, fault: str) -> None:
    command = [sys.executable, "-I", str(published.folder / "verify.py"), *RECEIPT, "--log-key", given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=published.folder, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"NOT PROVED {fault}:"), done.stderr


def test_its_names_of_a_records_fields_are_the_contracts() -> None:
    def compare(table: auditor.Table, descriptor: Descriptor) -> None:
        for number, known in table.items():
            field = descriptor.fields_by_number[number]
            name = known[0] if isinstance(known, tuple) else known.lstrip("#%@")
            assert field.name == name
            if isinstance(known, tuple):
                assert field.message_type is not None
                compare(known[1], field.message_type)

    compare(auditor.ACCESS_RECORD, AccessRecord.DESCRIPTOR)


def test_a_copy_never_takes_what_does_not_hold(published: Published, tmp_path: Path) -> None:
    """A log that forked, or that serves other tiles than it signed, leaves the copy as it was."""
    folder = tmp_path / "copy"
    with opened(sqlite_url(tmp_path)) as log:
        log.append(items(RECORDS[:FIRST]))
        copied(witnessed(log), folder, KEY)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        (tmp_path / "fork").mkdir()
        with opened(sqlite_url(tmp_path / "fork")) as fork:
            fork.append(items(RECORDS[1 : FIRST + 2]))
            with pytest.raises(CopyRefused):
                copied(witnessed(fork), folder, KEY)
        assert (folder / "checkpoint").read_bytes() == before[folder / "checkpoint"]
        with pytest.raises(CopyRefused):
            copied(witnessed(log), tmp_path / "other", NEW)
