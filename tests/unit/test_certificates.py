"""The local authority and its leafs: what they say, who may read the keys, when they are made again."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.stack.certificates import LEAF_DAYS, RENEWAL_DAYS, issue

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_leaf_names_its_holder_for_both_ends_of_a_connection(tmp_path: Path) -> None:
    issue(tmp_path, ["ingest"], now=NOW)
    leaf = read(tmp_path, "ingest")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ingest", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://planier/ingest"]
    assert [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["ingest"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    leaf.verify_directly_issued_by(read(tmp_path, "ca"))


def test_only_the_owner_reads_the_keys(tmp_path: Path) -> None:
    issue(tmp_path / "tls", ["ingest", "audit"], now=NOW)
    keys = sorted((tmp_path / "tls").glob("*.key"))
    assert [key.name for key in keys] == ["audit.key", "ca.key", "ingest.key"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_what_is_good_is_left_alone_and_what_is_missing_is_added(tmp_path: Path) -> None:
    issue(tmp_path, ["ingest"], now=NOW)
    before = contents(tmp_path)
    issue(tmp_path, ["ingest", "audit"], now=NOW + timedelta(days=LEAF_DAYS - RENEWAL_DAYS - 1))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"audit.pem", "audit.key"}


@pytest.mark.parametrize("fault", ["close to expiry", "another's key", "unreadable", "another authority"])
def test_what_is_not_good_is_made_again_by_the_same_authority(tmp_path: Path, fault: str) -> None:
    folder, strange = tmp_path / "tls", tmp_path / "strange"
    issue(folder, ["ingest", "audit"], now=NOW)
    issue(strange, ["ingest"], now=NOW)
    authority, now = read(folder, "ca"), NOW
    if fault == "close to expiry":
        now = NOW + timedelta(days=LEAF_DAYS - RENEWAL_DAYS)
    elif fault == "another's key":
        (folder / "ingest.key").write_bytes((folder / "audit.key").read_bytes())
    elif fault == "unreadable":
        (folder / "ingest.pem").write_text("not a certificate")
    else:
        for name in ("ingest.pem", "ingest.key"):
            (folder / name).write_bytes((strange / name).read_bytes())
    before = contents(folder)
    issue(folder, ["ingest"], now=now)
    assert read(folder, "ca") == authority
    assert contents(folder)["ingest.pem"] != before["ingest.pem"]
    read(folder, "ingest").verify_directly_issued_by(authority)
    repaired = contents(folder)
    issue(folder, ["ingest"], now=now)
    assert contents(folder) == repaired
