# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate signing requests."""

from __future__ import annotations

import base64
import typing as t

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, keys, profiles
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CsrError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

WISHED = frozenset({"DNS:build-1.example.com", "IP:192.0.2.11"})
HASH = hashes.SHA256()


def foreign_request(key: t.Any, *dns: str, name: str = "build-1", algorithm: t.Any = HASH) -> str:
    """A request as another tool makes it, with names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(profiles.subject(name))
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in dns]), critical=False)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_a_request_of_ours_carries_the_key_and_one_name(key_type: str) -> None:
    """It asks for no SANs: names are the controller's to decide."""
    key = keys.generate(key_type)
    request = csr.load_request(csr.build_request("build-1", key), "daemon build-1")
    assert keys.spki(request.public_key) == keys.spki(key)
    assert request.common_name == "build-1"
    assert request.sans == frozenset()
    csr.check_request(request, "build-1", WISHED, "daemon build-1")


@pytest.mark.parametrize("dns", [(), ("build-1.example.com",)])
def test_a_request_may_ask_for_what_it_is_going_to_get(dns: tuple[str, ...]) -> None:
    """Some of the wished names, or none."""
    request = csr.load_request(foreign_request(keys.generate("ecdsa-p256"), *dns), "daemon build-1")
    csr.check_request(request, "build-1", WISHED, "daemon build-1")


@pytest.mark.parametrize(
    ("dns", "name"),
    [(("build-2.example.com",), "build-1"), (("build-1.example.com", "*.example.com"), "build-1"), ((), "build-2")],
)
def test_a_request_for_other_names_is_refused(dns: tuple[str, ...], name: str) -> None:
    """A host must not be able to claim another's name, by subject or by SAN."""
    request = csr.load_request(foreign_request(keys.generate("ecdsa-p256"), *dns, name=name), "daemon build-1")
    with pytest.raises(CsrError, match="daemon build-1 asks for other names"):
        csr.check_request(request, "build-1", WISHED, "daemon build-1")


def test_a_request_that_was_altered_is_refused() -> None:
    """The signature proves who holds the key; another name under it breaks it."""
    lines = csr.build_request("build-1", keys.generate("ecdsa-p256")).splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    forged = base64.b64encode(der.replace(b"build-1", b"build-2")).decode()
    with pytest.raises(CsrError, match="altered or forged"):
        csr.load_request("\n".join([lines[0], forged, lines[-1]]), "daemon build-1")


@pytest.mark.parametrize(
    "pem", ["", "nonsense", csr.build_request("b", keys.generate("ecdsa-p256"))[:100]], ids=["empty", "text", "cut"]
)
def test_what_is_no_request_is_refused(pem: str) -> None:
    """Empty, foreign or cut text."""
    with pytest.raises(CsrError, match="no readable certificate signing request"):
        csr.load_request(pem, "daemon build-1")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), HASH),
        (ec.generate_private_key(ec.SECP521R1()), HASH),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
)
def test_a_weak_or_unusual_key_is_refused(key: t.Any, algorithm: t.Any) -> None:
    """The message names what was found and what is accepted."""
    with pytest.raises(CsrError, match=r"not accepted: use ecdsa-p256"):
        csr.load_request(foreign_request(key, algorithm=algorithm), "daemon build-1")
