"""The log and its two witnesses over real HTTPS: who has cosigned what, who lags, who contradicts; nothing waits."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.audit import cosigning as rounds
from services.audit import merkle
from services.audit.cosignature import Cosigner, cosign
from services.audit.cosigning import Cosigning
from services.audit.log import AccessLog
from services.audit.note import NoteError, NoteVerifier, sign_note
from services.audit.publication import Publication
from services.audit.rotate import rotate
from services.audit.schema import BODIES
from services.audit.tiles import Tile, split_entries, split_hashes, tiles_of
from services.audit.tiles_door import TilesDoor
from services.audit.witness.door import Witness
from services.audit.witness.protocol import MAX_BODY
from services.audit.witness.state import WitnessState
from services.audit.witnesses import PartyWitness, read_witnesses
from services.kernel.clock import SystemClock
from services.kernel.config import CannotStart
from services.kernel.https import HttpRequest, HttpsServer, client_context
from services.kernel.rpc.tls import TlsFiles
from services.kernel.telemetry import Telemetry
from tests.fixtures.audit import KEY, ORIGIN, batch, opened, sqlite_url
from tests.fixtures.rpc import certificates

PARTIES = ("CITY", "PREFECTURE")


@dataclass
class Party:
    """One party's witness, that can be stopped and started again."""

    name: str
    folder: Path
    files: TlsFiles
    key: Ed25519PrivateKey
    server: HttpsServer | None = None
    port: int = 0

    @property
    def witness(self) -> PartyWitness:
        cosigner = Cosigner(f"{self.name.lower()}.example/witness", self.key.public_key())
        return PartyWitness(self.name, cosigner, f"https://127.0.0.1:{self.port}")

    async def start(self) -> None:
        trusted = {ORIGIN: NoteVerifier(ORIGIN, KEY.public_key())}
        state = WitnessState(f"sqlite:///{self.folder / f'{self.name}.db'}", trusted)
        state.open()
        door = Witness(self.witness.cosigner.name, self.key, state, [ORIGIN], SystemClock())
        self.server = HttpsServer(door, f"127.0.0.1:{self.port}", self.files, MAX_BODY)
        self.port = await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None


@dataclass
class Both:
    """A log, its publication, its rounds, the two witnesses."""

    log: AccessLog
    publication: Publication
    cosigning: Cosigning
    city: Party
    prefecture: Party
    lag: Callable[[], dict[str, float]]

    async def witnessed(self) -> int:
        found = await asyncio.to_thread(self.publication.witnessed)
        return 0 if found is None else found.head.checkpoint.size


@asynccontextmanager
async def both(folder: Path, log: AccessLog) -> AsyncIterator[Both]:
    files = certificates(folder, "audit", *PARTIES)
    city, prefecture = (Party(name, folder, files(name), Ed25519PrivateKey.generate()) for name in PARTIES)
    reader = InMemoryMetricReader()
    telemetry = Telemetry.recording(service="audit", instance="i", ratio=0, processors=[], readers=[reader])
    async with AsyncExitStack() as stack:
        for party in (city, prefecture):
            await party.start()
            stack.push_async_callback(party.stop)
        client = await stack.enter_async_context(
            # No connection is kept: one that its witness left in this process would be waited for.
            httpx.AsyncClient(
                verify=client_context(files("audit")),
                trust_env=False,
                timeout=5,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        )
        witnesses = [city.witness, prefecture.witness]
        publication = Publication(log, [witness.cosigner for witness in witnesses])
        cosigning = Cosigning(log, publication, witnesses, client, telemetry)
        yield Both(log, publication, cosigning, city, prefecture, lambda: lags(reader))


def lags(reader: InMemoryMetricReader) -> dict[str, float]:
    """The lag of each party as a collector would see it."""
    found = reader.get_metrics_data()
    assert found is not None
    points = [
        point
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "planier.witness.lag"
        for point in metric.data.data_points
    ]
    return {str((point.attributes or {})["party"]): float(getattr(point, "value", -1)) for point in points}


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    # A witness that was away is asked again in the next round.
    monkeypatch.setattr(rounds, "_BACKOFF", (0.0, 0.0))
    with opened(sqlite_url(tmp_path)) as log:
        log.append(batch(5))
        async with both(tmp_path, log) as started:
            yield started


async def test_a_head_counts_as_witnessed_under_both_and_is_marked_until_then(running: Both) -> None:
    await running.prefecture.stop()
    assert running.publication.newest().missing == ("city.example/witness", "prefecture.example/witness")
    await running.cosigning.round()
    newest = running.publication.newest()
    assert newest.missing == ("prefecture.example/witness",)
    running.city.witness.cosigner.open(newest.note)
    assert await running.witnessed() == 0
    await running.prefecture.start()
    await running.cosigning.round()
    assert await running.witnessed() == 5
    note = running.publication.newest().note
    for party in (running.city, running.prefecture):
        party.witness.cosigner.open(note)
    NoteVerifier(ORIGIN, KEY.public_key()).open(note)


async def test_witnesses_never_stop_a_record(running: Both) -> None:
    await running.city.stop()
    await running.prefecture.stop()
    running.log.append(batch(3))
    await running.cosigning.round()
    running.log.append(batch(3))
    assert running.log.size() == 11
    assert await running.witnessed() == 0


async def test_a_witness_that_comes_back_signs_the_same_head_as_the_other(running: Both) -> None:
    await running.cosigning.round()
    await running.city.stop()
    for _ in range(3):
        running.log.append(batch(300))
        await running.cosigning.round()
    assert await running.witnessed() == 5
    await running.city.start()
    running.log.append(batch(1))
    await running.cosigning.round()
    assert await running.witnessed() == 906


async def test_a_round_that_fails_is_said_and_followed_by_the_next(
    running: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 0.0)
    failures, head = iter([RuntimeError(), OSError()]), running.log.head

    def failing() -> object:
        for error in failures:
            raise error
        return head()

    monkeypatch.setattr(running.log, "head", failing)
    signed = running.cosigning.signed
    task = asyncio.create_task(running.cosigning.run())
    async with asyncio.timeout(20):
        while running.cosigning.witnessed < 5:
            await signed.wait()
            signed = running.cosigning.signed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    failed = [record for record in caplog.records if record.getMessage().startswith("no head could be offered")]
    assert len(failed) == 2


async def test_what_the_log_forgot_of_its_witnesses_it_learns_again(running: Both) -> None:
    """Killed between a witness's answer and storing it."""
    lost = running.publication.add
    running.publication.add = lambda *_: None  # type: ignore[method-assign]
    await running.cosigning.round()
    running.publication.add = lost  # type: ignore[method-assign]
    assert await running.witnessed() == 0
    for standing in running.cosigning._standings:
        standing.size = 0
    await running.cosigning.round()
    assert await running.witnessed() == 5


async def test_lag_is_a_metric_and_beyond_patience_an_alarm(
    running: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 0.0)
    await running.prefecture.stop()
    for _ in range(2):
        await running.cosigning.round()
    lag = running.lag()
    assert lag["CITY"] == 0
    assert lag["PREFECTURE"] > 0
    alarms = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(record.getMessage(), vars(record)["party"]) for record in alarms] == [
        ("a witness lags: heads stay without its cosignature", "PREFECTURE")
    ]
    await running.prefecture.start()
    for _ in range(2):
        await running.cosigning.round()
    assert running.lag() == {"CITY": 0, "PREFECTURE": 0}
    assert caplog.records[-1].getMessage() == "a witness cosigns again"


async def test_a_log_that_lost_its_tail_is_told_so(
    running: Both, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rolled back to an old copy of its database, or forked from one: the witnesses do not sign, the log says why."""
    running.log.append(batch(4))
    await running.cosigning.round()
    older, forked = tmp_path / "older", tmp_path / "forked"
    for folder, count in ((older, 5), (forked, 9)):
        folder.mkdir()
        with opened(sqlite_url(folder)) as log:
            log.append(batch(count))
            publication = Publication(log, running.publication.witnesses)
            witnesses = [running.city.witness, running.prefecture.witness]
            other = Cosigning(log, publication, witnesses, running.cosigning._client, Telemetry.off())
            await other.round()
            assert publication.witnessed() is None
    words = [vars(record)["error"] for record in caplog.records if "error" in vars(record)]
    assert words.count("it cosigned a larger tree than this log has now") == 2
    assert words.count("it cosigned another tree") == 2


async def test_after_a_new_key_the_witnesses_follow_by_its_hand_over(tmp_path: Path) -> None:
    url, new = sqlite_url(tmp_path), Ed25519PrivateKey.generate()
    with opened(url) as log:
        log.append(batch(5))
        async with both(tmp_path, log) as running:
            await running.cosigning.round()
            rotate(url, ORIGIN, KEY, new)
            after = AccessLog(url, origin=ORIGIN, key=new)
            after.open()
            after.append(batch(2))
            publication = Publication(after, running.publication.witnesses)
            witnesses = [running.city.witness, running.prefecture.witness]
            again = Cosigning(after, publication, witnesses, running.cosigning._client, Telemetry.off())
            await again.round()
            found = publication.witnessed()
            assert found is not None
            assert found.head.checkpoint.size == 7
            NoteVerifier(ORIGIN, new.public_key()).open(found.note)
            after.close()


def test_a_cosignature_arrives_as_a_file(tmp_path: Path) -> None:
    """A party without a server signs what it was handed; only its own key and this log's own head are taken."""
    city, prefecture = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    with opened(sqlite_url(tmp_path)) as log:
        log.append(batch(5))
        cosigners = [Cosigner("city", city.public_key()), Cosigner("prefecture", prefecture.public_key())]
        publication = Publication(log, cosigners)
        head = log.head()
        text = head.checkpoint.text()
        log.append(batch(5))
        by_city, by_prefecture = cosign(text, "city", city, 7).line(), cosign(text, "prefecture", prefecture, 8).line()
        assert publication.accept(head.note + by_city) == (head.checkpoint, ("city",))
        assert publication.witnessed() is None
        for wrong in (
            head.note,
            head.note + cosign(text, "city", prefecture, 7).line(),
            head.note + cosign("other\n", "prefecture", prefecture, 7).line(),
            sign_note(text, ORIGIN, city) + by_prefecture,
            by_prefecture,
            "",
        ):
            with pytest.raises(NoteError):
                publication.accept(wrong)
        assert publication.accept(head.note + by_city + by_prefecture)[1] == ("city", "prefecture")
        found = publication.witnessed()
        assert found is not None
        assert found.note == head.note + by_city + by_prefecture
        # What is known stays as it was.
        publication.accept(head.note + cosign(text, "city", city, 9).line())
        assert publication.witnessed() == found


async def test_a_head_that_the_log_never_had_is_not_taken_from_a_file(tmp_path: Path) -> None:
    city = Ed25519PrivateKey.generate()
    (tmp_path / "other").mkdir()
    with opened(sqlite_url(tmp_path)) as log, opened(sqlite_url(tmp_path / "other")) as other:
        log.append(batch(5))
        other.append(batch(5))
        head = other.head()
        publication = Publication(log, [Cosigner("city", city.public_key())])
        with pytest.raises(NoteError, match="never had"):
            publication.accept(head.note + cosign(head.checkpoint.text(), "city", city, 7).line())


SIZE = 256 * 2 + 70


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publication]:
    with opened(sqlite_url(tmp_path_factory.mktemp("tiles"))) as log:
        log.append(batch(SIZE))
        log.erase([3, 255, 256], erased_by=500)
        yield Publication(log, [])


async def get(publication: Publication, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    answer = await TilesDoor(publication)(HttpRequest(method, path))
    return answer.status, answer.body, dict(answer.headers)


async def test_tiles_and_entries_rebuild_the_tree(published: Publication) -> None:
    hashes: dict[int, list[bytes]] = {}
    entries: list[bytes] = []
    for tile in tiles_of(SIZE):
        status, body, headers = await get(published, f"/{tile.path()}")
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert "immutable" in headers["cache-control"]
        if tile.level < 0:
            entries += split_entries(body)
        else:
            hashes.setdefault(tile.level, []).extend(split_hashes(body, tile))
    assert len(entries) == SIZE
    # Entries of erased records too.
    assert [merkle.leaf_hash(entry) for entry in entries] == hashes[0]
    assert merkle.root_hash(entries) == published.log.root_at(SIZE)
    assert hashes[1] == [merkle.root_hash(entries[:256]), merkle.root_hash(entries[256:512])]
    status, body, headers = await get(published, "/checkpoint")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert body.decode() == published.log.head().note


async def test_nothing_of_a_record_leaves_by_this_door(published: Publication) -> None:
    """Hashes and signatures only: no name, no motive, no clause, no salt."""
    paths = ["checkpoint", "hand-overs", *(tile.path() for tile in tiles_of(SIZE))]
    served = b"".join([(await get(published, f"/{path}"))[1] for path in paths])
    with published.log.reading() as connection:
        rows = connection.execute(BODIES.select().where(BODIES.c.salt.is_not(None))).all()
    assert len(rows) == SIZE - 3
    for secret in (b"agent-7", b"matin", b"CITY", b"art6", b"cortege", b"analytics"):
        assert secret not in served
    for row in rows:
        assert row.salt not in served
        assert row.record[:40] not in served


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/tile", "/tile/0/003", "/tile/0/002", "/tile/0/002.p/71", "/tile/1/000", "/tile/2/000.p/1",
        "/tile/0/0", "/tile/00/000", "/tile/0/000.p/0", "/tile/0/000.p/256", "/tile/0/x000/000", "/tile/64/000",
        "/tile/entries/002", "/tile/entries/002.p/71", "/tile/-1/000", "/../checkpoint", "/checkpoint.witnessed",
        "/tile/0/" + "x999/" * 6 + "999", "//checkpoint", "/tile/0/000\n",
    ],
)  # fmt: skip
async def test_what_is_not_there(published: Publication, path: str) -> None:
    assert (await get(published, path))[0] == 404


async def test_partial_tiles_of_every_size_that_was_signed(published: Publication) -> None:
    for path in ("/tile/0/000.p/5", "/tile/0/002.p/70", "/tile/1/000.p/1", "/tile/entries/001.p/255"):
        assert (await get(published, path))[0] == 200
    assert (await get(published, "/tile/0/000", "POST"))[0] == 405
    assert await get(published, "/hand-overs") == (
        200, b"[]", {"content-type": "application/json", "cache-control": "no-cache, max-age=0"}
    )  # fmt: skip


async def test_no_entry_leaves_that_is_not_the_trees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        log.append(batch(3))
        with log.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER access_bodies_update")
            connection.exec_driver_sql("UPDATE access_bodies SET record = X'00' WHERE idx = 1")
        assert (await get(Publication(log, []), "/tile/entries/000.p/3"))[0] == 500
    assert caplog.records[-1].levelno == logging.CRITICAL


def test_a_wrong_list_of_witnesses_is_named(tmp_path: Path) -> None:
    path, key = tmp_path / "witnesses.json", Cosigner("w", KEY.public_key()).text()
    good = {"party": "CITY", "verifier_key": key, "url": "https://w.example/"}
    path.write_text(json.dumps([good]))
    assert read_witnesses(path)[0].url == "https://w.example"
    for wrong in (
        "x", "{}", json.dumps([good, good]), json.dumps([{**good, "url": "http://w.example"}]),
        json.dumps([{**good, "verifier_key": NoteVerifier("w", KEY.public_key()).text()}]),
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(CannotStart):
            read_witnesses(path)


def test_a_tile_has_one_name() -> None:
    assert Tile(0, 1_234_067).path() == "tile/0/x001/x234/067"
    assert Tile(1, 0, 17).path() == "tile/1/000.p/17"
