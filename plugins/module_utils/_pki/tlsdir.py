# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TLS directory of a daemon on its host: where the private key is made, and which it never leaves::

    <path>/                  0700 when it is made here
      ca.pem cert.pem key.pem     links to current/..., the paths that buildkitd is given
      current                     link to one directory below versions/
      previous                    link to the one before, for going back
      versions/<id>/              0700; ca.pem cert.pem key.pem, which belong together
      pending/key.pem             a key whose certificate is not here yet

Key, certificate and CA file change together, by the one rename that moves ``current``: whatever kills a run,
the three fixed paths show one version. All links are relative, so the directory can be mounted elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import compat, csr, facts, keys, names
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.durations import (
    describe,
    format_duration,
    parse_duration,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import StoreError, WishError

if t.TYPE_CHECKING:
    from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import PrivateKey
    from cryptography import x509

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"

_FILES = (CA_FILE, CERTIFICATE_FILE, KEY_FILE)
_CURRENT = "current"
_PREVIOUS = "previous"
_VERSIONS = "versions"
_PENDING = "pending"
_LOCK = ".lock"
_STAGE = ".new"


@dataclass(frozen=True)
class Installed:
    """What the three fixed paths show; each part None when it is missing."""

    authorities: tuple[x509.Certificate, ...] | None = None
    certificate: x509.Certificate | None = None
    key: PrivateKey | None = None
    linked: bool = False  # the fixed paths are links as this module makes them

    @property
    def paired(self) -> bool:
        """Whether key and certificate are there and belong together."""
        return (
            self.key is not None and self.certificate is not None and keys.spki(self.key) == keys.spki(self.certificate)
        )

    @property
    def trusts(self) -> list[str]:
        """Fingerprints of all certificates in the CA file, CAs and pinned clients alike."""
        return [compat.fingerprint(one) for one in self.authorities or ()]


@dataclass(frozen=True)
class Delivery:
    """A certificate and the CA file to install with it, checked to belong together."""

    certificate: x509.Certificate
    authorities: tuple[x509.Certificate, ...]


class TlsDirectory:
    """One TLS directory. Methods raise ``OSError`` as it comes and :class:`StoreError` for the rest."""

    def __init__(self, path: str) -> None:
        self.path = path

    def at(self, *parts: str) -> str:
        """A path below the directory."""
        return os.path.join(self.path, *parts)

    @contextlib.contextmanager
    def locked(self, *, timeout: float, read_only: bool) -> t.Iterator[None]:
        """Hold the directory against other runs; without ``read_only`` make it first.

        :raises LockTimeoutError: when another run does not end within ``timeout`` seconds.
        """
        with _files.locked_directory(self.path, _LOCK, timeout=timeout, read_only=read_only):
            yield

    def read_installed(self) -> Installed:
        """Read what is installed, by this module or by hand.

        :raises StoreError: when a file is unreadable, or files put there by hand do not belong together.
        """
        found = {name: _files.read_optional(self.at(name)) for name in _FILES}
        ca, certificate, key = (found[name] for name in _FILES)
        installed = Installed(
            authorities=None if ca is None else tuple(facts.load_certificates(ca, self.at(CA_FILE))),
            certificate=(
                None if certificate is None else facts.load_certificates(certificate, self.at(CERTIFICATE_FILE))[0]
            ),
            key=None if key is None else keys.load(key, self.at(KEY_FILE)),
            linked=all(_link_target(self.at(name)) == os.path.join(_CURRENT, name) for name in _FILES),
        )
        by_hand = not installed.linked and (certificate is not None or key is not None)
        if by_hand and not installed.paired:
            raise StoreError(
                f"{self.at(CERTIFICATE_FILE)} and {self.at(KEY_FILE)} were put there by other means and do not belong "
                "together, so they cannot be taken over. Move them away and run again."
            )
        return installed

    def read_pending(self) -> PrivateKey | None:
        """Read the key that waits for its certificate.

        :raises StoreError: when it is unreadable.
        """
        path = self.at(_PENDING, KEY_FILE)
        pem = _files.read_optional(path)
        return None if pem is None else keys.load(pem, path)

    def write_pending(self, key: PrivateKey) -> None:
        """Keep a new key until its certificate comes."""
        _files.make_private_directory(self.at(_PENDING))
        _files.write_atomically(self.at(_PENDING, KEY_FILE), keys.to_pem(key), alone=True)
        _files.flush([self.path])

    def drop_pending(self) -> None:
        """Forget the pending key, which is installed by now."""
        _files.remove_tree(self.at(_PENDING))

    def take_over(self) -> None:
        """Turn files that were put here by hand into a version, without a moment without them."""
        contents = {name: _files.read_optional(self.at(name)) for name in _FILES}
        present = {name: data for name, data in contents.items() if data is not None}
        if present:
            self._switch(self._write_version(present))
        self._link_fixed_paths()

    def install(self, delivery: Delivery, key: PrivateKey) -> None:
        """Make key, certificate and CA file the current version, and keep the one before."""
        self._link_fixed_paths()
        version = self._write_version(
            {
                CA_FILE: "".join(facts.to_pem(one) for one in delivery.authorities).encode("ascii"),
                CERTIFICATE_FILE: facts.to_pem(delivery.certificate).encode("ascii"),
                KEY_FILE: keys.to_pem(key),
            }
        )
        self._switch(version)
        self.remove_waste()

    def remove_waste(self) -> None:
        """Remove versions that neither ``current`` nor ``previous`` names."""
        for version in self._waste():
            _files.remove_tree(self.at(_VERSIONS, version))

    def is_tidy(self) -> bool:
        """Whether nothing is left of earlier versions, or of a run that was killed."""
        return not self._waste() and not os.path.lexists(self.at(_PENDING))

    def _waste(self) -> list[str]:
        kept = {_link_target(self.at(link)) for link in (_CURRENT, _PREVIOUS)}
        try:
            versions = os.listdir(self.at(_VERSIONS))
        except FileNotFoundError:
            return []
        return [version for version in versions if os.path.join(_VERSIONS, version) not in kept]

    def _link_fixed_paths(self) -> None:
        for name in _FILES:
            target = os.path.join(_CURRENT, name)
            if _link_target(self.at(name)) != target:
                _files.link_atomically(self.at(name), target)

    def _write_version(self, contents: t.Mapping[str, bytes]) -> str:
        """Write a complete version and return the target that ``current`` gets."""
        public = [contents.get(name, b"") for name in (CA_FILE, CERTIFICATE_FILE)]
        digests = b"".join(hashlib.sha256(data).digest() for data in public)
        target = os.path.join(_VERSIONS, hashlib.sha256(digests).hexdigest()[:16])
        # The name stands for the contents, but somebody may have edited them; the current version stays whole.
        while target == _link_target(self.at(_CURRENT)):
            target += "+"
        _files.make_private_directory(self.at(_VERSIONS))
        stage = self.at(_VERSIONS, _STAGE)
        _files.remove_tree(stage)
        os.mkdir(stage, _files.PRIVATE_DIRECTORY)
        for name, data in contents.items():
            _files.write_new(os.path.join(stage, name), data)
        _files.flush([*(os.path.join(stage, name) for name in contents), stage])
        _files.remove_tree(self.at(target))
        os.rename(stage, self.at(target))
        _files.flush([self.at(_VERSIONS), self.path])
        return target

    def _switch(self, target: str) -> None:
        current = _link_target(self.at(_CURRENT))
        if current is not None:
            _files.link_atomically(self.at(_PREVIOUS), current)
        _files.link_atomically(self.at(_CURRENT), target)


def request(options: t.Mapping[str, t.Any], *, now: datetime, predict: bool) -> dict[str, t.Any]:
    """Make a request for the right key, making that key if need be. The first form of the module buildkit_csr.

    :param predict: change nothing; then there is no request when it would need a new key.
    :raises PkiError: before anything was changed.
    """
    names.check_name(options["name"], "daemon")
    renew_before = None
    if options["renew_before"] is not None:
        renew_before = parse_duration(options["renew_before"], "renew_before")
    directory = TlsDirectory(os.path.abspath(options["path"]))
    with directory.locked(timeout=options["lock_timeout"], read_only=predict):
        installed, pending = directory.read_installed(), directory.read_pending()
        if pending is not None and _same_key(pending, installed.key):
            pending = None  # a run was killed between installing it and forgetting it
        reasons = _reasons_for_new_key(installed, pending, options["key_type"], renew_before, now)
        settled = _settled(installed, now) if not reasons and directory.is_tidy() else None
        key = pending or installed.key
        if reasons:
            key = None
            if not predict:
                key = keys.generate(options["key_type"])
                directory.write_pending(key)
    text = None if key is None else csr.build_request(options["name"], key)
    return {**_result(installed, csr=text, reasons=reasons, before=installed), "settled": settled}


def _settled(installed: Installed, now: datetime) -> dict[str, str] | None:
    """What is installed, as the options of the second form; None where that form would have something to do."""
    if not (installed.linked and installed.paired and installed.authorities and installed.certificate):
        return None
    found = facts.facts_of(installed.certificate)
    if not found.not_before <= now < found.not_after:
        return None
    return {
        "certificate": facts.to_pem(installed.certificate),
        "ca": "".join(facts.to_pem(one) for one in installed.authorities),
    }


def install(options: t.Mapping[str, t.Any], *, now: datetime, predict: bool) -> dict[str, t.Any]:
    """Install a certificate with its key and the CA file. The second form of the module buildkit_csr.

    :raises PkiError: before anything was changed.
    """
    names.check_name(options["name"], "daemon")
    delivery = _read_delivery(options["certificate"], options["ca"], options["name"], now)
    directory = TlsDirectory(os.path.abspath(options["path"]))
    with directory.locked(timeout=options["lock_timeout"], read_only=predict):
        before, pending = directory.read_installed(), directory.read_pending()
        key = next((one for one in (pending, before.key) if _same_key(one, delivery.certificate)), None)
        if key is None:
            raise WishError(
                f"The certificate for {options['name']} is for neither the pending key nor the installed key in "
                f"{directory.path}: it was issued for another host or for an older CSR. Issue one for a CSR that "
                "buildkit_csr makes now."
            )
        after = Installed(delivery.authorities, delivery.certificate, key, linked=True)
        differences = _differences(before, after)
        if not predict:
            if not before.linked:
                directory.take_over()
            if differences:
                directory.install(delivery, key)
            else:
                directory.remove_waste()
            if pending is None or _same_key(pending, key):
                directory.drop_pending()  # also what a killed run left of one
    by_hand = not before.linked and (before.key is not None or before.authorities is not None)
    reasons = (["files that were put there by other means are taken over"] if by_hand else []) + differences
    return _result(after, csr=None, reasons=reasons, before=before)


def _reasons_for_new_key(
    installed: Installed,
    pending: PrivateKey | None,
    key_type: str,
    renew_before: timedelta | None,
    now: datetime,
) -> list[str]:
    if pending is not None:
        return _type_reasons(pending, key_type)
    if installed.key is None:
        return ["there is no key yet"]
    if installed.certificate is None:
        return ["the installed key has no certificate"]
    if not installed.paired:
        return ["the installed certificate does not match its key"]
    reasons = _type_reasons(installed.key, key_type)
    left = compat.not_after(installed.certificate) - now
    if left <= timedelta(0):
        reasons.append(f"the certificate expired {describe(-left)} ago")
    elif renew_before is not None and left < renew_before:
        reasons.append(f"the certificate expires in {describe(left)} (renew_before {format_duration(renew_before)})")
    return reasons


def _type_reasons(key: PrivateKey, key_type: str) -> list[str]:
    found = keys.type_of(key)
    return [] if found == key_type else [f"key type changes from {found} to {key_type}"]


def _read_delivery(certificate_pem: str | None, ca_pem: str | None, name: str, now: datetime) -> Delivery:
    if not ca_pem or not ca_pem.strip():
        raise WishError(
            f"A certificate for {name} was given without ca: buildkitd would then accept every client, without a "
            "certificate too. Give the CA certificates its clients must have theirs from."
        )
    if not certificate_pem or not certificate_pem.strip():
        raise WishError(f"ca was given for {name} without a certificate: give both, or neither to get a CSR.")
    certificate = facts.load_certificates(certificate_pem.encode(), "The option certificate")[0]
    # Not necessarily the CA that signed the daemon's certificate: this file is about clients, which may have another.
    authorities = tuple(facts.load_certificates(ca_pem.encode(), "The option ca"))
    for authority in authorities:
        if not (facts.may_sign_certificates(authority) or facts.is_pinned_client(authority)):
            raise WishError(
                f"ca for {name} holds the certificate of {facts.common_name(authority.subject)!r}, which is neither a "
                "CA's nor a self-signed one of a client, so no client could be verified by it. Give the bundle that "
                "buildkit_pki returns for this daemon."
            )
    found = facts.facts_of(certificate)
    what = f"The certificate for {name}"
    if found.is_ca or facts.SERVER not in found.usage:
        raise WishError(f"{what} is not for a server, so every client would refuse it. Issue one as a daemon's.")
    if found.not_after <= now:
        raise WishError(f"{what} ended on {facts.utc_text(found.not_after)}: issue a new one.")
    if found.not_before > now:
        raise WishError(
            f"{what} is valid from {facts.utc_text(found.not_before)} on, and the clock here says "
            f"{facts.utc_text(now)}: set the clock right."
        )
    return Delivery(certificate, authorities)


def _differences(before: Installed, after: Installed) -> list[str]:
    reasons = []
    if before.certificate is None:
        reasons.append("no certificate is installed yet")
    elif before.certificate != after.certificate:
        reasons.append("certificate changed")
    if before.key is not None and not _same_key(before.key, after.key):
        reasons.append("key changed")
    if before.authorities is None:
        reasons.append("no trust bundle is installed yet")
    elif before.authorities != after.authorities:
        reasons.append("trust bundle changed")
    return reasons


def _same_key(one: object | None, other: object | None) -> bool:
    return one is not None and other is not None and keys.spki(one) == keys.spki(other)


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None  # missing, or no link


def _result(after: Installed, *, csr: str | None, reasons: list[str], before: Installed) -> dict[str, t.Any]:
    certificate = after.certificate
    return {
        "changed": bool(reasons),
        "csr": csr,
        "reasons": reasons,
        "trusts": after.trusts,
        "not_after": None if certificate is None else facts.utc_text(compat.not_after(certificate)),
        "diff": {"before": _facts_for_diff(before), "after": _facts_for_diff(after)},
    }


def _facts_for_diff(installed: Installed) -> dict[str, t.Any]:
    found = None if installed.certificate is None else facts.facts_of(installed.certificate)
    return {
        "key_type": None if installed.key is None else keys.type_of(installed.key),
        "fingerprint": found and found.fingerprint,
        "serial": found and found.serial,
        "sans": found and found.sorted_sans,
        "not_after": found and facts.utc_text(found.not_after),
        "trusts": installed.trusts,
    }
