"""TLS 1.3 with certificates on both sides, and nothing else; server certificates rotate without a restart."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # an extension module that the stubs leave out

# gRPC has no floor for the TLS version. Its core takes the TLS 1.2 suites from this variable, once, at the first use of
# TLS in the process, and from a copy of the environment made when grpc is imported: hence the renewal below. A suite
# that needs a pre-shared key, which nobody has, leaves TLS 1.2 nothing to agree on; those of TLS 1.3 are not subject to
# the list. Names of TLS 1.3 suites in it are an error. tests/integration/test_rpc_tls.py holds all this.
_CIPHER_VARIABLE = "GRPC_SSL_CIPHER_SUITES"
_NO_TLS_1_2 = "ECDHE-PSK-CHACHA20-POLY1305"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a process finds its certificate chain, its private key and the authority it trusts; all PEM."""

    certificate: Path
    key: Path
    ca: Path


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and follow the files when they change.

    A change is looked for at each new connection; files that cannot be read, or whose key does not belong to the
    certificate (a rotation half-way), leave the previous certificate in use. OSError or ValueError when they are wrong
    at the start.
    """
    leave_only_tls_1_3()
    rotation = _Rotation(files)
    return grpc.dynamic_ssl_server_credentials(
        rotation.configuration(),
        # The stubs know only half of what the fetcher may return: None means unchanged.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", rotation.changed),
        require_client_authentication=True,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client that shows its certificate; read once, a new channel reads them again."""
    leave_only_tls_1_3()
    _check_pair(files)
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca.read_bytes(),
        private_key=files.key.read_bytes(),
        certificate_chain=files.certificate.read_bytes(),
    )


class _Rotation:
    """Remembers the state of the files as last read."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = _fingerprint(files)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        _check_pair(self._files)
        return grpc.ssl_server_certificate_configuration(
            [(self._files.key.read_bytes(), self._files.certificate.read_bytes())], self._files.ca.read_bytes()
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None to go on with the previous one; called by gRPC's core, must not raise."""
        try:
            found = _fingerprint(self._files)
            if found == self._seen:
                return None
            configuration = self.configuration()
        except (OSError, ValueError):
            return None
        self._seen = found
        return configuration


def leave_only_tls_1_3() -> None:
    """Leaves this process TLS 1.3 alone, if gRPC has not used TLS yet; afterwards it comes too late."""
    if os.environ.get(_CIPHER_VARIABLE) != _NO_TLS_1_2:
        os.environ[_CIPHER_VARIABLE] = _NO_TLS_1_2
        cygrpc.reset_grpc_config_vars()


def _fingerprint(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    states = (path.stat() for path in (files.certificate, files.key, files.ca))
    return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)


def _check_pair(files: TlsFiles) -> None:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise ValueError(f"{files.key}: the private key does not belong to the certificate")
