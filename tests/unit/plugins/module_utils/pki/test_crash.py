# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that SIGKILL ends at each of their file operations, on the controller and on a host.

After each: no key beside a foreign certificate, no CA lost or replaced, nothing open to others; the next run finishes
the work, and the one after it has nothing to do.
"""

from __future__ import annotations

import shutil
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, facts, fleet, keys, profiles, tlsdir
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_csr, buildkit_pki
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import crash, disk
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

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


def points(operations: t.Sequence[str]) -> list[int]:
    """The numbers of the operations to be killed at: each, but one of several flushes in a row.

    The last stands for the end, so that the state after the last operation is looked at too.
    """
    kept = [
        number
        for number, operation in enumerate(operations)
        if operation != "fsync" or number == 0 or operations[number - 1] != "fsync"
    ]
    return [*kept, len(operations)]


def restore(saved: Path, directory: Path) -> None:
    """Make a directory what it was; nothing saved means that there was none."""
    shutil.rmtree(directory, ignore_errors=True)
    if saved.exists():
        shutil.copytree(saved, directory, symlinks=True)


def made_from_nothing(result: t.Mapping[str, t.Any]) -> set[str]:
    """The daemons and clients that a run said it had found without a certificate."""
    return {
        f"{kind}/{item['name']}"
        for kind in ("daemons", "clients")
        for item in result[kind]
        if "it has no certificate yet" in item["reasons"]
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_killed_at_any_point_is_whole_and_is_finished_by_the_next(
    name: str, tmp_path: Path, now: datetime
) -> None:
    """The whole file system work of a run, one operation after the other."""
    before, run = SCENARIOS[name]
    pki, start = tmp_path / "pki", tmp_path / "start"
    for earlier in before:
        earlier.on(pki, now)
    had = disk.read(pki, [WORDS])
    if before:
        pki.rename(start)
    restore(start, pki)
    operations = crash.operations(pki, lambda: run.on(pki, now))
    whole = disk.read(pki, [WORDS])
    for point in points(operations):
        restore(start, pki)
        where = f"killed before {[*operations, 'the end'][point]} ({point})"
        assert crash.killed_at(pki, point, lambda: run.on(pki, now)) or point >= len(operations) - 1, where
        left = disk.read(pki, [WORDS])
        assert left.faults == (), where
        assert had.authority_keys <= left.authority_keys, where
        finished = run.on(pki, now)
        assert made_from_nothing(finished) & had.leaves == set(), where
        after = disk.read(pki, [WORDS])
        assert after.faults == (), where
        assert left.authority_keys <= after.authority_keys, where
        assert len(after.authority_keys) == len(whole.authority_keys), where
        if had.signing_key == whole.signing_key:
            assert after.signing_key == had.signing_key, where
        assert disk.leftovers(pki) == [], where
        assert disk.unregistered(pki) == [], where
        settled = snapshot(pki)
        assert run.on(pki, now)["changed"] is False, where
        assert snapshot(pki) == settled, where
    assert len(operations) >= 25


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_open_to_others_at_any_moment(name: str, tmp_path: Path, now: datetime) -> None:
    """Files are private from their first byte, where there is no umask."""
    before, run = SCENARIOS[name]
    pki = tmp_path / "pki"
    for earlier in before:
        earlier.on(pki, now)
    assert crash.exposures(pki, lambda: run.on(pki, now)) == []


# --- on a host ------------------------------------------------------------------------------------------------


@dataclass
class Host:
    """A host of a daemon and the CA that serves it."""

    tls: Path
    start: datetime
    ca: t.Any
    ca_key: t.Any

    def deploy(self, day: int) -> str:
        """Request, sign and install, so many days from the beginning; returns the certificate."""
        now = self.start + day * DAY
        public_key = csr.load_request(self.request(day)["csr"], "build-1").public_key
        certificate = profiles.build_leaf(
            "build-1",
            public_key,
            usage=facts.SERVER,
            sans=["DNS:build-1.example.com"],
            issuer=self.ca,
            issuer_key=self.ca_key,
            now=now,
            not_after=now + 90 * DAY,
        )
        pem = facts.to_pem(certificate)
        self.install(day, pem)
        return pem

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


@pytest.fixture
def host(tmp_path: Path, now: datetime) -> Host:
    """A virgin host."""
    key = keys.generate("ecdsa-p256")
    ca = profiles.build_ca(profiles.subject("CA"), key, now=now, not_after=now + 3650 * DAY)
    return Host(tmp_path / "tls", now, ca, key)


HOSTS: dict[str, tuple[t.Callable[[Host], object], int]] = {
    "first": (lambda host: None, 0),
    "second": (lambda host: host.deploy(0), 70),
    "third": (lambda host: (host.deploy(0), host.deploy(70)), 140),
    "by hand": (Host.put_by_hand, 0),
    "by hand, due": (Host.put_by_hand, 70),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_killed_at_any_point_shows_one_version_and_is_finished_by_the_next_run(
    host: Host, name: str, tmp_path: Path
) -> None:
    """Request and installation; where there was a certificate, there is one at every moment."""
    prepare, day = HOSTS[name]
    prepare(host)
    saved = tmp_path / "saved"
    if host.tls.exists():
        host.tls.rename(saved)
    restore(saved, host.tls)
    operations = crash.operations(host.tls, lambda: host.deploy(day))
    for point in points(operations):
        restore(saved, host.tls)
        where = f"killed before {[*operations, 'the end'][point]} ({point})"
        assert crash.killed_at(host.tls, point, lambda: host.deploy(day)) or point >= len(operations) - 1, where
        assert host.faults() == [], where
        assert not saved.exists() or (host.tls / "cert.pem").exists(), where
        certificate = host.deploy(day)
        assert host.faults() == [], where
        assert (host.tls / "cert.pem").read_text() == certificate, where
        settled = snapshot(host.tls)
        assert host.request(day)["changed"] is False, where
        assert host.install(day, certificate)["changed"] is False, where
        assert snapshot(host.tls) == settled, where
        assert not (host.tls / "pending").exists(), where
        assert len(list((host.tls / "versions").iterdir())) <= 2, where
    assert len(operations) >= 15


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_on_a_host_is_open_to_others_at_any_moment(host: Host, name: str) -> None:
    """Files are private from their first byte, where there is no umask."""
    prepare, day = HOSTS[name]
    prepare(host)
    assert crash.exposures(host.tls, lambda: host.deploy(day)) == []
