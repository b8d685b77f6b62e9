# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What certificates say, whoever made them: of a file, of PEM text or of a server. Changes nothing."""

from __future__ import annotations

import base64
import re
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, facts, keys, served
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    describe,
    format_duration,
    parse_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import InspectionError, WishError

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError:
    pass  # the module reports it, see _deps.require

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATES = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY = b"PRIVATE KEY"
_REQUEST = b"CERTIFICATE REQUEST"

_DER_SEQUENCE = b"\x30\x82"


@dataclass(frozen=True)
class _Trust:
    """The CAs of a bundle, and what else is known to complete a chain to one of them."""

    path: str
    anchors: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...]
    now: datetime


def inspect(options: t.Mapping[str, t.Any], *, now: datetime) -> dict[str, t.Any]:
    """Return the result of the module buildkit_certificate_info.

    ``failure`` in it is None, or says which certificates end too soon.

    :raises PkiError: when there is no certificate to tell about, or an option makes no sense.
    """
    now = now.replace(microsecond=0)
    least = None if options["fail_below"] is None else parse_duration(options["fail_below"], "fail_below")
    source, certificates = _read_source(options)
    key = None
    if options["key_path"] is not None:
        key = keys.spki(_read_key(options["key_path"], options["key_passphrase"]))
    trust = None
    if options["ca_path"] is not None:
        anchors = parse(_read_file(options["ca_path"]), options["ca_path"])
        trust = _Trust(options["ca_path"], tuple(anchors), tuple(certificates), now)
    return {
        "source": source,
        "certificates": [_describe(one, key, trust, now) for one in certificates],
        "days_left": min(_days_left(one, now) for one in certificates),
        "failure": None if least is None else _too_short(source, certificates, least, now),
    }


def holds_key(text: str | None) -> bool:
    """Tell whether a text has a private key in it, by mistake, so that it must not be shown."""
    return text is not None and any(_KEY in label for label in _BEGIN.findall(text.encode()))


def parse(pem: bytes, source: str) -> list[x509.Certificate]:
    """Read all certificates of a PEM text, in their order; at least one. What else is in it is passed over.

    :param source: where it came from, for the message.
    :raises InspectionError: saying what is there instead.
    """
    labels = _BEGIN.findall(pem)
    blocks = [(match.group(1), match.group(2)) for match in _BLOCK.finditer(pem)]
    if len(labels) != len(blocks):
        raise InspectionError(f"{source} is cut off or damaged: a PEM block in it begins and does not end.")
    if not blocks:
        hint = "write one"
        if pem.startswith(_DER_SEQUENCE):
            hint = "it looks like DER; 'openssl x509 -inform der' makes PEM of that"
        raise InspectionError(f"{source} holds nothing in PEM format ({hint if pem.strip() else 'it is empty'}).")
    bodies = [body for label, body in blocks if label in _CERTIFICATES]
    if not bodies:
        raise InspectionError(f"{source} holds no certificate, but {_what_it_is(labels[0])}.")
    return [_load(body, source, number) for number, body in enumerate(bodies, 1)]


def _read_source(options: t.Mapping[str, t.Any]) -> tuple[str, list[x509.Certificate]]:
    if options["path"] is not None:
        return options["path"], parse(_read_file(options["path"]), options["path"])
    if options["content"] is not None:
        return "content", parse(options["content"].encode(), "The option content")
    if options["address"] is not None:
        peer = served.parse_address(options["address"])
    else:
        peer = served.checked(served.Peer(options["host"], options["port"]))
    if not options["connect_timeout"] > 0:
        raise WishError(f"connect_timeout is {options['connect_timeout']:g}: it must be more than 0 seconds.")
    der = served.fetch(peer, server_name=options["server_name"], timeout=options["connect_timeout"])
    return str(peer), [_load_der(der, f"What {peer} showed")]


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise InspectionError(f"{path} cannot be read: {exc.strerror or exc}.") from exc


def _what_it_is(label: bytes) -> str:
    if _KEY in label:
        return "a private key: name the certificate that belongs to it, and the key in key_path"
    if _REQUEST in label:
        return "a certificate signing request, which no CA has signed yet"
    return f"what PEM calls {label.decode('ascii').lower()}"


def _load(body: bytes, source: str, number: int) -> x509.Certificate:
    where = f"Certificate {number} of {source}" if number > 1 else f"The certificate in {source}"
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError as exc:
        raise InspectionError(f"{where} is damaged: its text is no base64 ({exc}).") from exc
    return _load_der(der, where)


def _load_der(der: bytes, where: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        facts.parse_fully(certificate)
    except compat.MALFORMED as exc:
        raise InspectionError(f"{where} is damaged, or of a kind that is not known here ({str(exc)[:120]}).") from exc
    return certificate


def _read_key(path: str, passphrase: str | None) -> object:
    pem = _read_file(path)
    if not holds_key(pem.decode("ascii", "replace")):
        raise InspectionError(f"{path} holds no private key in PEM format: key_path wants one.")
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise InspectionError(f"The private key {path} is encrypted: give its passphrase in key_passphrase.")
    try:
        return load_pem_private_key(pem, t.cast(str, passphrase).encode() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # What the library says is left out: it is of no help, and this is about a secret.
        why = "the passphrase is wrong, or the file is damaged" if encrypted else "the file is damaged"
        raise InspectionError(f"The private key {path} cannot be read: {why}.") from exc


def _describe(
    certificate: x509.Certificate, key: bytes | None, trust: _Trust | None, now: datetime
) -> dict[str, t.Any]:
    found = facts.facts_of(certificate)
    signer, problem = (None, None) if trust is None else _judge(certificate, trust)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "common_name": found.common_name,
        "sans": found.sorted_sans,
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": found.serial,
        "fingerprint": found.fingerprint,
        "key_type": found.key_type,
        "usage": sorted(found.usage),
        "is_ca": found.is_ca,
        "self_signed": compat.is_signed_by(certificate, certificate),
        "not_before": facts.utc_text(found.not_before),
        "not_after": facts.utc_text(found.not_after),
        "days_left": _days_left(certificate, now),
        "key_matches": None if key is None else keys.spki(certificate) == key,
        "signed_by": None if signer is None else _identify(signer),
        "verified": None if trust is None else problem is None,
        "problem": problem,
    }


def _identify(certificate: x509.Certificate) -> dict[str, str]:
    return {"subject": certificate.subject.rfc4514_string(), "fingerprint": compat.fingerprint(certificate)}


def _days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Whole days until its end; negative from the first moment after it."""
    return (compat.not_after(certificate) - now).days


def _judge(
    certificate: x509.Certificate, trust: _Trust, tried: tuple[x509.Certificate, ...] = ()
) -> tuple[x509.Certificate | None, str | None]:
    """Find who signed a certificate, and say what keeps it from being accepted, as Go's crypto/x509 decides.

    To Go every certificate of the bundle is an anchor, also one that is no CA: then for itself alone (pinned).

    :param tried: the chain so far, from the leaf on.
    """
    untimely = _not_valid(certificate, trust.now)
    known = (*trust.anchors, *trust.others)
    signers = [one for one in known if compat.is_signed_by(certificate, one)]
    if certificate in trust.anchors:
        signer = certificate if certificate in signers else next(iter(signers), None)
        return signer, untimely
    signers = [one for one in signers if one != certificate and one not in tried]
    if not signers:
        return None, untimely or f"No CA in {trust.path} signed it."
    problems = [_problem_with(signer, trust, (*tried, certificate)) for signer in signers]
    for signer, problem in zip(signers, problems):
        if problem is None:
            return signer, untimely
    return signers[0], untimely or problems[0]


def _problem_with(signer: x509.Certificate, trust: _Trust, below: tuple[x509.Certificate, ...]) -> str | None:
    who = signer.subject.rfc4514_string()
    if not facts.may_sign_certificates(signer):
        return f"It is signed by {who}, which is no CA."
    longest = _path_length(signer)
    if longest is not None and longest < len(below) - 1:
        return f"It is signed by {who}, and there may be no more than {longest} CAs between that and a leaf."
    problem = _judge(signer, trust, below)[1]
    return None if problem is None else f"It is signed by {who}: {problem}"


def _path_length(certificate: x509.Certificate) -> int | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None


def _not_valid(certificate: x509.Certificate, now: datetime) -> str | None:
    start, end = compat.not_before(certificate), compat.not_after(certificate)
    if now > end:
        return f"It ended on {facts.utc_text(end)}."
    return f"It is valid only from {facts.utc_text(start)} on." if now < start else None


def _too_short(source: str, certificates: t.Sequence[x509.Certificate], least: timedelta, now: datetime) -> str | None:
    ending = sorted((compat.not_after(one), one.subject.rfc4514_string()) for one in certificates)
    short = [(end, subject) for end, subject in ending if end - now < least]
    if not short:
        return None
    lines = "; ".join(f"{subject or 'one without a subject'} {_when(end, now)}" for end, subject in short)
    return f"{source} is below the {format_duration(least)} of fail_below: {lines}. Renew what is due."


def _when(end: datetime, now: datetime) -> str:
    left = end - now
    if left < timedelta(0):
        return f"ended {describe(-left)} ago, on {facts.utc_text(end)}"
    return f"ends in {describe(left)}, on {facts.utc_text(end)}"
