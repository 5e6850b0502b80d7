"""Key files: what is made, what is read, and what is not a key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from services.kernel.keys import create_key_pair, read_private_key, read_public_key
from services.stack.keys import NAMES, create_keys


def test_a_pair_belongs_together_and_its_private_half_is_its_owners(tmp_path: Path) -> None:
    create_key_pair(tmp_path / "log.pem", tmp_path / "log.pub")
    read_public_key(tmp_path / "log.pub").verify(read_private_key(tmp_path / "log.pem").sign(b"word"), b"word")
    assert (tmp_path / "log.pem").stat().st_mode & 0o777 == 0o600


def test_keys_of_an_installation_are_never_replaced(tmp_path: Path) -> None:
    create_keys(tmp_path)
    first = {name: (tmp_path / f"{name}.pem").read_bytes() for name in NAMES}
    create_keys(tmp_path)
    assert {name: (tmp_path / f"{name}.pem").read_bytes() for name in NAMES} == first


ANOTHER = generate_private_key(SECP256R1())
PEM = Encoding.PEM, PrivateFormat.PKCS8
NOT_PRIVATE = {
    "another kind": ANOTHER.private_bytes(*PEM, NoEncryption()),
    "encrypted": Ed25519PrivateKey.generate().private_bytes(*PEM, BestAvailableEncryption(b"word")),
    "no key": b"rubbish",
}
NOT_PUBLIC = {
    "another kind": ANOTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "a private one": Ed25519PrivateKey.generate().private_bytes(*PEM, NoEncryption()),
    "no key": b"rubbish",
}


@pytest.mark.parametrize("content", NOT_PRIVATE.values(), ids=NOT_PRIVATE)
def test_a_file_without_a_private_key_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "token.pem"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"token\.pem holds no Ed25519 private key"):
        read_private_key(path)


@pytest.mark.parametrize("content", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_a_file_without_a_public_key_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "city.pub"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"city\.pub holds no Ed25519 public key"):
        read_public_key(path)
