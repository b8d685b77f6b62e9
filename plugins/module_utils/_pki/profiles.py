# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that this collection makes, extension by extension (RFC 5280, section 4.2).

====================  ====================  ===============================================  ===============
extension             CA                    daemon                                           client
====================  ====================  ===============================================  ===============
basicConstraints (!)  CA, path length 0     no CA                                            no CA
keyUsage (!)          keyCertSign, cRLSign  digitalSignature, with RSA also keyEncipherment  as the daemon
extendedKeyUsage      none                  serverAuth                                       clientAuth
subjectAltName        none                  DNS names and IP addresses                       none
subjectKeyIdentifier  yes                   yes                                              yes
authorityKeyId.       none (self-signed)    that of the CA                                   that of the CA
====================  ====================  ===============================================  ===============

A pinned client, which daemons know by this very certificate, has a client's but is self-signed. It names its own key
as the authority's: OpenSSL could not tell it from an earlier one of the same name in a bundle otherwise.

(!) is critical. serverAuth and clientAuth never meet in one certificate, so that a builder cannot pose as a
client nor a client as a builder. Serial numbers are random, 159 bits.
"""

from __future__ import annotations

import ipaddress
import typing as t
from datetime import datetime, timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.facts import SERVER

try:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    pass  # the module reports it, see _deps.require

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey, PublicKey

CLOCK_SKEW = timedelta(hours=1)
"""How far the start of validity lies in the past, for machines whose clock is behind the controller's."""


def build_ca(
    subject: x509.Name,
    key: PrivateKey,
    *,
    now: datetime,
    not_after: datetime,
    renewed: x509.Certificate | None = None,
) -> x509.Certificate:
    """Make a self-signed CA certificate.

    :param renewed: the certificate of the same subject and key that this one takes the place of. It hands its key
        identifier on, however that was computed: leaves refer to it.
    """
    identifier = None if renewed is None else subject_key_identifier(renewed)
    builder = _common(subject, key.public_key(), now=now, not_after=not_after, identifier=identifier)
    builder = builder.issuer_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    return builder.sign(key, keys.signature_hash(key))


def build_leaf(
    name: str,
    public_key: PublicKey,
    *,
    usage: str,
    sans: t.Collection[str],
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    now: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """Make a certificate for a daemon (usage SERVER) or a client (usage CLIENT); without ``issuer`` self-signed."""
    builder = _common(subject(name), public_key, now=now, not_after=not_after)
    builder = builder.issuer_name(subject(name) if issuer is None else issuer.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    # Only a key exchange by RSA encryption, which TLS 1.2 still has, uses the key for more than signing.
    exchange = ("key_encipherment",) if keys.type_of(public_key).startswith("rsa-") else ()
    builder = builder.add_extension(_key_usage("digital_signature", *exchange), critical=True)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if usage == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if sans:
        names = [_general_name(san) for san in sorted(sans)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if issuer is None:
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
        builder = builder.add_extension(own, critical=False)
    else:
        builder = builder.add_extension(_authority_key_identifier(issuer), critical=False)
    return builder.sign(issuer_key, keys.signature_hash(issuer_key))


def subject(name: str) -> x509.Name:
    """A distinguished name of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def subject_key_identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """The certificate's own key identifier; where it has none, the one that leaves would refer to."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(t.cast("PublicKey", certificate.public_key()))


def _common(
    name: x509.Name,
    public_key: PublicKey,
    *,
    now: datetime,
    not_after: datetime,
    identifier: x509.SubjectKeyIdentifier | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(identifier or x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*wanted: str) -> x509.KeyUsage:
    uses = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{use: use in wanted for use in uses})


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own key identifier, whichever way it was computed (RFC 5280, 4.2.1.1)."""
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key_identifier(issuer))


def _general_name(san: str) -> x509.GeneralName:
    kind, _separator, value = san.partition(":")
    return x509.DNSName(value) if kind == "DNS" else x509.IPAddress(ipaddress.ip_address(value))
