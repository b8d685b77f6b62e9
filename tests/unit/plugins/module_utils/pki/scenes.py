# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of the PKI do, on the controller and on a host: each with what has to be there before."""

from __future__ import annotations

import shutil
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, facts, fleet, keys, profiles, tlsdir
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_csr, buildkit_pki
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import disk

DAY = timedelta(days=1)
WORDS = "correct horse battery"

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}
FLEET = {"daemons": [DAEMON], "clients": [{"name": "ci"}]}


def options_of(module: t.Any, **wanted: t.Any) -> dict[str, t.Any]:
    """The options of a module with its defaults, as Ansible gives them."""
    checked = ArgumentSpecValidator(module.argument_spec()).validate(wanted)
    assert checked.error_messages == []
    return dict(checked.validated_parameters)


@dataclass(frozen=True)
class Run:
    """One run of buildkit_pki, so many days from the beginning."""

    day: int
    wishes: t.Mapping[str, t.Any]

    def on(self, pki: Path, start: datetime) -> dict[str, t.Any]:
        """Carry it out."""
        options = options_of(buildkit_pki, path=str(pki), **self.wishes)
        return fleet.run(options, now=start + self.day * DAY, predict=False)


FIRST = Run(0, FLEET)
SCENARIOS: dict[str, tuple[tuple[Run, ...], Run]] = {
    "first issue": ((), FIRST),
    "first issue with a passphrase": ((), Run(0, {**FLEET, "ca": {"passphrase": WORDS}})),
    "renewal": ((FIRST,), Run(80, FLEET)),
    "renewal of the CA": ((FIRST,), Run(2600, FLEET)),
    "a leaf more": ((FIRST,), Run(1, {**FLEET, "clients": [{"name": "ci"}, {"name": "alice"}]})),
}


def restore(saved: Path, directory: Path) -> None:
    """Make a directory what it was; nothing saved means that there was none."""
    shutil.rmtree(directory, ignore_errors=True)
    if saved.exists():
        shutil.copytree(saved, directory, symlinks=True)


@dataclass
class Host:
    """A host of a daemon and the CA that serves it."""

    tls: Path
    start: datetime
    ca: t.Any
    ca_key: t.Any

    def deploy(self, day: int) -> str:
        """Request, sign and install, so many days from the beginning; returns the certificate."""
        pem = self.sign(self.request(day)["csr"], day)
        self.install(day, pem)
        return pem

    def sign(self, request: str, day: int) -> str:
        """What the controller answers to a request."""
        now = self.start + day * DAY
        certificate = profiles.build_leaf(
            "build-1",
            csr.load_request(request, "build-1").public_key,
            usage=facts.SERVER,
            sans=["DNS:build-1.example.com"],
            issuer=self.ca,
            issuer_key=self.ca_key,
            now=now,
            not_after=now + 90 * DAY,
        )
        return facts.to_pem(certificate)

    def request(self, day: int) -> dict[str, t.Any]:
        """The first form of buildkit_csr."""
        options = options_of(buildkit_csr, path=str(self.tls), name="build-1", renew_before="30d")
        return tlsdir.request(options, now=self.start + day * DAY, predict=False)

    def install(self, day: int, certificate: str) -> dict[str, t.Any]:
        """The second form of buildkit_csr."""
        options = options_of(
            buildkit_csr, path=str(self.tls), name="build-1", certificate=certificate, ca=facts.to_pem(self.ca)
        )
        return tlsdir.install(options, now=self.start + day * DAY, predict=False)

    def put_by_hand(self) -> None:
        """Key, certificate and CA as plain files, as other tools leave them."""
        self.deploy(0)
        contents = {name: (self.tls / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")}
        shutil.rmtree(self.tls)
        self.tls.mkdir(0o700)
        for name, content in contents.items():
            (self.tls / name).touch(0o600)
            (self.tls / name).write_bytes(content)

    def faults(self) -> list[str]:
        """What buildkitd would trip over, or others could read."""
        found = [f"others have access to {path}" for path in self.tls.rglob("*") if disk.exposed(path)]
        if (self.tls / "cert.pem").exists():
            [certificate] = disk.certificates(self.tls / "cert.pem")
            if disk.key_of(self.tls / "key.pem") != disk.public_half(certificate):
                found.append("its key is paired with a foreign certificate")
            if not disk.signed(certificate, disk.certificates(self.tls / "ca.pem")[0]):
                found.append("the CA beside it did not sign it")
        return found


def virgin_host(tls: Path, start: datetime) -> Host:
    """A host that has nothing yet."""
    key = keys.generate("ecdsa-p256")
    ca = profiles.build_ca(profiles.subject("CA"), key, now=start, not_after=start + 3650 * DAY)
    return Host(tls, start, ca, key)


HOSTS: dict[str, tuple[t.Callable[[Host], object], int]] = {
    "first": (lambda host: None, 0),
    "second": (lambda host: host.deploy(0), 70),
    "third": (lambda host: (host.deploy(0), host.deploy(70)), 140),
    "by hand": (Host.put_by_hand, 0),
    "by hand, due": (Host.put_by_hand, 70),
}
