"""C2SP formats byte for byte: the specifications' own examples, then ours."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.cosignature import Cosigner, cosign
from services.audit.hand_over import open_hand_over, sign_hand_over
from services.audit.note import NoteVerifier, split_note
from services.audit.proof import Proof, parse_proof
from services.audit.tiles import ENTRIES, Tile, TileError, join_entries, parse_path, split_entries, tiles_of
from services.audit.witness.protocol import AddCheckpoint, parse_request
from tests.fixtures.audit import KEY, ORIGIN

# signed-note, "Verifier keys".
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
# tlog-witness, "add-checkpoint": the request without the lines of its second signature.
SOFA = "example.com/behind-the-sofa"
SOFA_LINE = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="
SOFA_NOTE = f"{SOFA}\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— {SOFA} {SOFA_LINE}\n"
SOFA_REQUEST = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

{SOFA_NOTE}"""
# tlog-cosignature: the line of a witness on that checkpoint, of 2023-03-17.
WITNESS_LINE = (
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe"
    "+mbIUBkBIfZ+qnA==\n"
)
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
WITNESS_NAME = "planier.example/city-witness"
CHECKPOINT = Checkpoint(ORIGIN, 3, bytes(range(32)))


def test_the_published_note_opens_under_its_published_key() -> None:
    verifier = NoteVerifier.parse(EXAMPLE_KEY)
    assert verifier.open(EXAMPLE_NOTE) == "This is an example message.\n"
    assert verifier.text() == EXAMPLE_KEY


def test_the_published_checkpoint_request_and_cosignature_are_read_and_written() -> None:
    request = parse_request(SOFA_REQUEST.encode())
    assert (request.old, len(request.proof), request.checkpoint().size) == (20852014, 4, 20852163)
    assert request.body() == SOFA_REQUEST.encode()
    assert parse_checkpoint(split_note(SOFA_NOTE)[0]).origin == SOFA
    (_, line) = split_note(SOFA_NOTE + WITNESS_LINE)[1]
    assert line.line() == WITNESS_LINE
    assert int.from_bytes(line.signature[:8], "big") == 1_679_315_147
    assert len(line.signature) == 72


def test_our_cosignature() -> None:
    line = cosign(CHECKPOINT.text(), WITNESS_NAME, WITNESS, 1_800_000_000).line()
    assert line == GOLDEN["cosignature"]
    witness = Cosigner(WITNESS_NAME, WITNESS.public_key())
    assert witness.text() == GOLDEN["witness key"]
    assert Cosigner.parse(witness.text()) == witness


def test_our_proof() -> None:
    note = "planier.example/access-log\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n— x AAAAAAA=\n"
    for extra in (b"", bytes(range(48))):
        text = GOLDEN["proof with extra" if extra else "proof"]
        proof = Proof(1, (bytes(32), bytes([255]) * 32), note, extra)
        assert proof.text() == text
        assert parse_proof(text) == proof


def test_our_hand_over() -> None:
    note = sign_hand_over(CHECKPOINT, KEY, WITNESS)
    assert note == GOLDEN["hand-over"]
    opened = open_hand_over(note)
    assert (opened.head, opened.old.key, opened.new.key) == (CHECKPOINT, KEY.public_key(), WITNESS.public_key())


def test_our_request() -> None:
    note = split_note(GOLDEN["hand-over"])[1][0].line()
    body = AddCheckpoint(2, (bytes(32),), f"{CHECKPOINT.text()}\n{note}").body()
    assert body == (f"old 2\n{'A' * 43}=\n\n{CHECKPOINT.text()}\n" + note).encode()


# tlog-tiles, "Partial Tiles": its two examples.
def test_the_published_trees_of_tiles() -> None:
    tiles = [tile for tile in tiles_of(70_000) if tile.level != ENTRIES]
    full = [(tile.level, tile.index) for tile in tiles if tile.width == 256]
    assert (len(full), full[-1]) == (274, (1, 0))
    assert [tile.path() for tile in tiles if tile.width < 256] == [
        "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"
    ]  # fmt: skip
    assert [tile.path() for tile in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert Tile(0, 1_234_067).path() == "tile/0/x001/x234/067"


@pytest.mark.parametrize(
    "tile", [Tile(0, 0), Tile(63, 0, 1), Tile(ENTRIES, 1_234_067, 255), Tile(2, 999), Tile(1, 1000)]
)
def test_a_path_is_read_as_it_is_written(tile: Tile) -> None:
    if tile.level == 63:
        with pytest.raises(TileError):
            parse_path(tile.path())
    else:
        assert parse_path(tile.path()) == tile


def test_a_bundle_is_read_as_it_is_written() -> None:
    entries = [b"", b"a", b"\x01" + bytes(32)]
    bundle = join_entries(entries)
    assert bundle == b"\x00\x00\x00\x01a\x00\x21\x01" + bytes(32)
    assert split_entries(bundle) == entries
    for cut in range(1, 33):
        with pytest.raises(TileError):
            split_entries(bundle[:-cut])


GOLDEN: dict[str, str] = {
    "cosignature": (
        "— planier.example/city-witness s8vWXQAAAABrSdIAtO9Aqm08MawaH2nJT+EyLxorM15acz1m49LwjmpFTCT"
        "9iBOZkIeQHldSff+sIyHra2SEY1ZoXsI0kOQIgWdeBA==\n"
    ),
    "witness key": ("planier.example/city-witness+b3cbd65d+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"),
    "proof": (
        "c2sp.org/tlog-proof@v1\n"
        "index 1\n"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "//////////////////////////////////////////8=\n"
        "\n"
        "planier.example/access-log\n"
        "3\n"
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "\n"
        "— x AAAAAAA=\n"
    ),
    "proof with extra": (
        "c2sp.org/tlog-proof@v1\n"
        "extra AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v\n"
        "index 1\n"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "//////////////////////////////////////////8=\n"
        "\n"
        "planier.example/access-log\n"
        "3\n"
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "\n"
        "— x AAAAAAA=\n"
    ),
    "hand-over": (
        "planier-key-hand-over/v1\n"
        "planier.example/access-log\n"
        "3\n"
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "planier.example/access-log+383281ba+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4\n"
        "planier.example/access-log+9d8ab6cf+ASmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X\n"
        "\n"
        "— planier.example/access-log ODKButzKuh8x6qXkv1t5mQlqLgLwRqdUXDQctULk8QacwHHSS57AS5ZOcEDr1"
        "7d6mHGKr5eNaBgFhylXPuwJghpORwk=\n"
        "— planier.example/access-log nYq2zxoTquDFp+rhub+tnzLLOBLBjcSmw5lmZRjsfijtbeFq3q7uINXpj5U4Y"
        "AuBKhNq65psNmyPlzMCgDvPzUb2Ewo=\n"
    ),
}
