# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PKI directory holds, read with cryptography alone and not by the code under test."""

from __future__ import annotations

import re
import stat
import typing as t
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

SIGNING = "authorities/default"
"""The directory of the CA that signs, where there are no groups."""


def certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file."""
    return x509.load_pem_x509_certificates(path.read_bytes())


def fingerprint(certificate: x509.Certificate) -> str:
    """As the register has it."""
    return certificate.fingerprint(SHA256()).hex()


def public_half(key: t.Any) -> bytes:
    """What identifies a key, given a private key, a public key or a certificate."""
    public = key.public_key() if hasattr(key, "public_key") else key
    return t.cast(bytes, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def key_of(path: Path, passphrases: t.Sequence[str] = ()) -> bytes:
    """The public half of a private key in a file, whichever of the passphrases it is encrypted with, if any."""
    pem = path.read_bytes()
    if b"ENCRYPTED" not in pem:
        return public_half(load_pem_private_key(pem, None))
    for passphrase in passphrases:
        try:
            return public_half(load_pem_private_key(pem, passphrase.encode()))
        except ValueError:
            continue
    raise ValueError(f"no known passphrase opens {path}")


def signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate's key made the signature of another."""
    key, algorithm = issuer.public_key(), certificate.signature_hash_algorithm
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
        else:
            scheme = padding.PKCS1v15()
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, scheme, algorithm)
    except Exception:
        return False
    return certificate.issuer == issuer.subject


@dataclass(frozen=True)
class Contents:
    """The keys and certificates of a directory, and what is wrong with it."""

    authority_keys: frozenset[bytes]  # public halves of all keys of CAs that are there whole
    signing_key: bytes | None
    leaves: frozenset[str]  # daemons/<name> and clients/<name>, also those that wait for their new files' last rename
    faults: tuple[str, ...]


def read(pki: Path, passphrases: t.Sequence[str] = ()) -> Contents:
    """Look at everything in a PKI directory.

    Faults are: a key beside another's certificate, a leaf that no CA of the directory signed and that does not sign
    itself, a missing or empty CA file, and anything that others than its owner have access to. What begins with a dot
    is being made or waits for its removal: of that, only the access counts, and a CA that was there before.
    """
    there = (pki, *pki.rglob("*")) if pki.exists() else ()
    faults = [f"others have access to {path.relative_to(pki)}" for path in there if exposed(path)]
    known: dict[bytes, list[x509.Certificate]] = {}
    for key_path in sorted(pki.glob("authorities/**/key.pem")):
        ca_path = key_path.with_name("ca.pem")
        if any(part.endswith(".new") for part in key_path.relative_to(pki).parts):
            continue  # being made; nobody was given anything of it yet
        top = pki / Path(*key_path.relative_to(pki).parts[:2])
        if top.name.endswith(".old") and top.with_name(top.name[1:-4]).exists():
            continue  # replaced, and being removed
        try:
            key, certificate = key_of(key_path, passphrases), certificates(ca_path)[0]
        except (ValueError, IndexError, FileNotFoundError) as exc:
            faults.append(f"{key_path.parent.relative_to(pki)} is no whole CA: {exc}")
            continue
        if key != public_half(certificate):
            faults.append(f"{key_path.relative_to(pki)} is not the key of the certificate beside it")
        known.setdefault(key, []).append(certificate)
    authorities = [certificate for found in known.values() for certificate in found]
    leaves = sorted((*pki.glob("daemons/[!.]*"), *pki.glob("clients/[!.]*")))
    for directory in sorted(pki.glob("revoked/clients/[!.]*/key.pem")):
        if key_of(directory) != public_half(certificates(directory.with_name("cert.pem"))[0]):
            faults.append(f"{directory.relative_to(pki)} is paired with a foreign certificate")
    for directory in leaves:
        faults += [f"{directory.relative_to(pki)}: {fault}" for fault in _leaf_faults(directory, authorities)]
    signing = pki / SIGNING / "key.pem"
    return Contents(
        frozenset(known),
        key_of(signing, passphrases) if signing.exists() else None,
        frozenset(
            re.sub(r"/\.(.+)\.old$", r"/\1", str(directory.relative_to(pki)))
            for directory in (*leaves, *pki.glob("daemons/.*.old"), *pki.glob("clients/.*.old"))
        ),
        tuple(faults),
    )


def _leaf_faults(directory: Path, authorities: t.Sequence[x509.Certificate]) -> t.Iterator[str]:
    try:
        [certificate] = certificates(directory / "cert.pem")
        bundle = certificates(directory / "ca.pem")
    except (ValueError, FileNotFoundError) as exc:
        yield f"cannot be read: {exc}"
        return
    key_path = directory / "key.pem"
    if key_path.exists() and key_of(key_path) != public_half(certificate):
        yield "its key is paired with a foreign certificate"
    if not any(signed(certificate, issuer) for issuer in (certificate, *authorities)):
        yield "no CA here signed it"
    if not bundle:
        yield "its CA file is empty"


def strangers(pki: Path) -> list[str]:
    """Daemons and clients on disk that could not build together: one's CA file does not have who signed the other."""
    found = []
    for one, other in (("daemons", "clients"), ("clients", "daemons")):
        for path in pki.glob(f"{one}/[!.]*/ca.pem"):
            bundle = certificates(path)
            for peer in pki.glob(f"{other}/[!.]*/cert.pem"):
                [certificate] = certificates(peer)
                if certificate not in bundle and not any(signed(certificate, issuer) for issuer in bundle):
                    found.append(f"{path.relative_to(pki)} does not have the CA of {peer.relative_to(pki)}")
    return found


def exposed(path: Path) -> bool:
    """Whether others than the owner of a file or directory have any access to it."""
    state = path.lstat()
    return not stat.S_ISLNK(state.st_mode) and bool(stat.S_IMODE(state.st_mode) & 0o077)


def leftovers(pki: Path) -> list[str]:
    """What a run leaves lying about, beside its lock and the file against Git."""
    return [str(path.relative_to(pki)) for path in pki.rglob(".*") if path.name not in (".lock", ".gitignore")]


def unregistered(pki: Path) -> list[str]:
    """Certificates that the register does not know."""
    register = (pki / "issued.json").read_text()
    found = (path for path in pki.rglob("*.pem") if path.name != "key.pem")
    return [str(path) for path in found for one in certificates(path) if fingerprint(one) not in register]
