# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of the PKI do, on the controller and on a host: each with what has to be there before."""

from __future__ import annotations

import shutil
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, facts, fleet, keys, profiles, tlsdir
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_csr, buildkit_pki
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import disk

DAY = timedelta(days=1)
WORDS = "correct horse battery"
OTHER_WORDS = "staple that every day"

DAEMON = {"name": "build-1", "dns": ["build-1.example.com"]}
FLEET = {"daemons": [DAEMON], "clients": [{"name": "ci"}]}


def options_of(module: t.Any, **wanted: t.Any) -> dict[str, t.Any]:
    """The options of a module with its defaults, as Ansible gives them."""
    checked = ArgumentSpecValidator(module.argument_spec()).validate(wanted)
    assert checked.error_messages == []
    return dict(checked.validated_parameters)


Wishes = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Run:
    """One run of buildkit_pki, so many days from the beginning.

    :param wishes: the options, or what makes them from the directory as it is before.
    """

    day: int
    wishes: Wishes | t.Callable[[Path], Wishes]

    def seen(self, pki: Path) -> Run:
        """The run with wishes that do not change any more."""
        return replace(self, wishes=self.wishes(pki)) if callable(self.wishes) else self

    def on(self, pki: Path, start: datetime, *, predict: bool = False) -> dict[str, t.Any]:
        """Carry it out, or only foretell it."""
        wishes = t.cast(Wishes, self.seen(pki).wishes)
        options = options_of(buildkit_pki, path=str(pki), **wishes)
        return fleet.run(options, now=start + self.day * DAY, predict=predict)


@dataclass(frozen=True)
class Scenario:
    """Runs that went well before, and the one in question.

    :param peaceful: at no moment may any daemon's CA file lack a client on disk, nor the reverse.
    """

    before: tuple[Run, ...]
    run: Run
    peaceful: bool = True

    def prepare(self, pki: Path, start: datetime) -> Run:
        """Make what was there before; returns the run in question."""
        for earlier in self.before:
            earlier.on(pki, start)
        return self.run.seen(pki)


def in_phase(phase: str) -> t.Callable[[Path], Wishes]:
    """Wishes of a phase of a rollover: the daemon trusts what it was given last, and the client was given it too."""

    def wishes(pki: Path) -> Wishes:
        trusts = [disk.fingerprint(one) for one in disk.certificates(pki / "daemons/build-1/ca.pem")]
        given = [] if phase == "distribute" else ["ci"]
        daemons = [{**DAEMON, "trusts": trusts}]
        return {**FLEET, "daemons": daemons, "rollover": {"phase": phase, "given": given}}

    return wishes


def importing(pki: Path) -> Wishes:
    """Wishes to take over a CA whose files are beside the directory."""
    key, start = keys.generate("ecdsa-p384"), datetime(2026, 1, 1, tzinfo=timezone.utc)
    ca = profiles.build_ca(profiles.subject("Old CA"), key, now=start, not_after=start + 3650 * DAY)
    key_path, path = pki.with_name("import.key"), pki.with_name("import.pem")
    key_path.write_bytes(keys.to_pem(key))
    path.write_text(facts.to_pem(ca))
    return {**FLEET, "ca": {"import_certificate": str(path), "import_key": str(key_path)}}


def serial_revoked(pki: Path) -> Wishes:
    """Wishes to revoke the certificate that a client has now, and to give it another."""
    [certificate] = disk.certificates(pki / "clients/ci/cert.pem")
    return {**TWO, "revoke": [f"{certificate.serial_number:x}"]}


FIRST = Run(0, FLEET)
ENCRYPTED = Run(0, {**FLEET, "ca": {"passphrase": WORDS}})
TWO = {**FLEET, "clients": [{"name": "ci"}, {"name": "alice"}]}
GROUPS = {
    "daemons": [{**DAEMON, "admits": ["release"]}, {"name": "build-2", "dns": ["build-2.example.com"]}],
    "clients": [{"name": "ci", "group": "release"}, {"name": "alice"}],
}
PINNED = {**TWO, "trust": "pinned"}
DISTRIBUTED = (FIRST, Run(0, in_phase("distribute")))
ISSUED = (*DISTRIBUTED, Run(0, in_phase("issue")))

SCENARIOS = {
    "first issue": Scenario((), FIRST),
    "first issue with a passphrase": Scenario((), ENCRYPTED),
    "first issue for groups": Scenario((), Run(0, GROUPS), peaceful=False),
    "renewal": Scenario((FIRST,), Run(80, FLEET)),
    "renewal of the CA": Scenario((FIRST,), Run(2600, FLEET)),
    "a leaf more": Scenario((FIRST,), Run(1, TWO)),
    "a group more": Scenario((FIRST,), Run(1, GROUPS), peaceful=False),
    "another passphrase": Scenario(
        (ENCRYPTED,), Run(0, {**FLEET, "ca": {"passphrase": OTHER_WORDS, "previous_passphrase": WORDS}})
    ),
    "taking a CA over": Scenario((), Run(0, importing)),
    "rollover: distribute": Scenario((FIRST,), Run(0, in_phase("distribute"))),
    "rollover: issue": Scenario(DISTRIBUTED, Run(0, in_phase("issue"))),
    "rollover: retire": Scenario(ISSUED, Run(0, in_phase("retire"))),
    "renewal during a rollover": Scenario(DISTRIBUTED, Run(80, FLEET)),
    "revocation": Scenario((Run(0, TWO),), Run(1, {**FLEET, "revoke": ["alice"]})),
    "revocation of a serial": Scenario((Run(0, TWO),), Run(1, serial_revoked)),
    "pinned": Scenario((), Run(0, PINNED), peaceful=False),
    "renewal of pinned ones": Scenario((Run(0, PINNED),), Run(80, PINNED), peaceful=False),
    "revocation of a pinned one": Scenario(
        (Run(0, PINNED), Run(80, PINNED)), Run(81, {**FLEET, "trust": "pinned", "revoke": ["alice"]}), peaceful=False
    ),
    "from pinned to a CA": Scenario((Run(0, PINNED),), Run(1, {**TWO, "accept_missing": True}), peaceful=False),
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

    def request(self, day: int, *, predict: bool = False) -> dict[str, t.Any]:
        """The first form of buildkit_csr."""
        options = options_of(buildkit_csr, path=str(self.tls), name="build-1", renew_before="30d")
        return tlsdir.request(options, now=self.start + day * DAY, predict=predict)

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
