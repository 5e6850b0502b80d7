"""Signed notes and checkpoints, byte for byte: the published example of Go's sumdb/note, then ours."""

from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.checkpoint import Checkpoint, parse_checkpoint
from services.audit.note import NoteError, NoteVerifier, sign_note, split_note
from tests.fixtures.audit import KEY, ORIGIN

NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
NEUMANN_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NEUMANN_NOTE = f"{NEUMANN_TEXT}\n— PeterNeumann {NEUMANN_SIGNATURE}\n"
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
CHECKPOINT = Checkpoint("planier.example/access-log", 20_852_163, bytes(range(32)))
ROOT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SIGNATURE = "ODKBupGLAO0Anv65mVlAHX7TmtGcZgEJWF7YgPmfNkJXB3NOgIeux/q83OZiLUjKI2IplH3QObBV6V6rH7f9wcGYagg="
NOTE = f"""planier.example/access-log
20852163
{ROOT}

— planier.example/access-log {SIGNATURE}
"""


def test_the_published_note_is_reproduced_and_opens() -> None:
    key = Ed25519PrivateKey.from_private_bytes(NEUMANN_SEED)
    assert sign_note(NEUMANN_TEXT, "PeterNeumann", key) == NEUMANN_NOTE
    assert NoteVerifier.parse(NEUMANN).open(NEUMANN_NOTE) == NEUMANN_TEXT


@pytest.mark.parametrize("text", [NEUMANN, SUMDB])
def test_published_verifier_keys_are_read_and_written(text: str) -> None:
    assert NoteVerifier.parse(text).text() == text


def test_our_checkpoint() -> None:
    assert sign_note(CHECKPOINT.text(), ORIGIN, KEY) == NOTE
    assert parse_checkpoint(NoteVerifier(ORIGIN, KEY.public_key()).open(NOTE)) == CHECKPOINT


def test_a_second_signature_of_another_key_is_ignored() -> None:
    cosigned = NOTE + split_line(sign_note(CHECKPOINT.text(), "witness.example", Ed25519PrivateKey.generate()))
    assert NoteVerifier(ORIGIN, KEY.public_key()).open(cosigned) == CHECKPOINT.text()
    assert [line.name for line in split_note(cosigned)[1]] == [ORIGIN, "witness.example"]


def test_another_key_of_the_same_name_does_not_open_it() -> None:
    with pytest.raises(NoteError, match="no signature of this key"):
        NoteVerifier(ORIGIN, Ed25519PrivateKey.generate().public_key()).open(NOTE)


def test_a_failing_signature_of_our_key_refuses_the_note_even_beside_a_good_one() -> None:
    other = sign_note("other text\n", ORIGIN, KEY)
    with pytest.raises(NoteError, match="does not hold"):
        NoteVerifier(ORIGIN, KEY.public_key()).open(NOTE + split_line(other))


@pytest.mark.parametrize(
    "note",
    [
        "", "\n\n", NOTE[:-1], NOTE.replace("\n\n", "\n"), NOTE.replace("— ", "- "), NOTE + "\n", NOTE + "— x \n",
        NOTE.replace("20852163", "\t20852163"), NOTE.replace("— planier", "— pla+nier"), NOTE.replace("=\n", "\n"),
    ],
)  # fmt: skip
def test_what_is_not_a_signed_note(note: str) -> None:
    with pytest.raises(NoteError):
        NoteVerifier(ORIGIN, KEY.public_key()).open(note)


@pytest.mark.parametrize(
    "text",
    [
        "", "a\n1\n", f"a\n01\n{ROOT}\n", f"\n1\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n", "a\n1\nAAEC\n", "a\n1\n" + ROOT[:-2] + "9=\n",
        "a\n1\n" + ROOT,
    ],
)  # fmt: skip
def test_what_is_not_a_checkpoint(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)


@pytest.mark.parametrize("text", ["", "a+b", NEUMANN.replace("c74f20a3", "c74f20a4"), "x+00000000+AA=="])
def test_what_is_not_a_verifier_key(text: str) -> None:
    with pytest.raises(NoteError):
        NoteVerifier.parse(text)


def split_line(note: str) -> str:
    """The signature lines of a note."""
    return note.rpartition("\n\n")[2]
