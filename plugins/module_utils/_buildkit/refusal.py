# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof that strangers are refused: somebody without a certificate, with one of another CA, and without TLS.

buildkitd gives whoever it accepts root on its host. So a stranger who gets as far as the first frame of
HTTP/2 is a failure, whatever would come after it.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import tls
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.channel import (
    Peer,
    open_connection,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.endpoint import Endpoint
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    ConnectError,
    Failure,
    Kind,
)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
else:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:  # reported by _deps before any certificate is made
        pass

_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class Refusal:
    """What became of a stranger.

    :param refused: true if he was turned away, false if he got in, None if nothing is proved
    :param how: what he saw, such as C(alert certificate_required)
    :param failure: why nothing is proved
    """

    refused: bool | None
    how: str
    failure: Failure | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return, where only what is proved counts as refused."""
        return {"refused": bool(self.refused), "how": self.how}


async def attempt(endpoint: Endpoint, context: ssl.SSLContext | None, *, timeout: float) -> Refusal:
    """Come as a stranger.

    A connection that is closed or reset counts as a refusal, so this is a proof only while a good client gets
    through.

    :param context: how he speaks TLS; None for plaintext
    """
    try:
        connection = await open_connection(Peer(endpoint, context, endpoint.host), timeout=timeout)
    except ConnectError as error:
        return Refusal(None, error.message, error)
    except Failure as error:
        return Refusal(True, _how(error))
    await connection.close()
    return Refusal(False, "got an answer in HTTP/2")


def _how(error: Failure) -> str:
    cause = error.__cause__
    alert = tls.alert_name(cause) if isinstance(cause, ssl.SSLError) else None
    if alert is not None:
        return f"alert {alert}"
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        return "connection closed"
    if error.kind is Kind.TLS_EXPECTED:
        return "answer in TLS only"
    return error.message


def foreign_context(client_cert: str, ca_path: str) -> ssl.SSLContext:
    """The TLS settings of somebody with a certificate of a CA that has the name of the true one, but another
    key.

    :param client_cert: path of a good client's certificate, whose issuer is copied; may be empty
    :param ca_path: path of the CAs, the first of which is copied else
    """
    issuer = _name_to_copy(client_cert, ca_path)
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    # Without key identifiers nothing but the signature tells this issuer from the true one.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    context = tls.stranger_context()
    # ssl reads certificates from files only. This directory is 0700 from the start.
    with tempfile.TemporaryDirectory(prefix="buildkit-stranger-") as directory:
        path = os.path.join(directory, "stranger.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        context.load_cert_chain(path)
    return context


def _name_to_copy(client_cert: str, ca_path: str) -> x509.Name:
    with open(client_cert or ca_path, "rb") as file:
        pem = file.read()
    try:
        parsed = x509.load_pem_x509_certificate(pem)
    except ValueError:  # something that OpenSSL reads and cryptography does not
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign CA")])
    return parsed.issuer if client_cert else parsed.subject
