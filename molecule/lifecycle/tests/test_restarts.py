# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts, upgrades and downgrades of builders that are in use, and what becomes of a change that fails."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from load import Load

HOSTS = {"lifecycle-old": "172.29.216.31", "lifecycle-new": "172.29.216.32"}
# Steps in seconds, and a pause: the old one, of which SIGTERM kills the builds, has idle moments.
LOADS = {"lifecycle-old": ((0, 1), 1.0), "lifecycle-new": ((0, 1, 6), 0.2)}
PKI = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pki"
OLD, NEW = os.environ["BUILDKIT_OLD_VERSION"], os.environ["BUILDKIT_NEW_VERSION"]


def command(playbook: str, *arguments: str, **variables: object) -> list[str]:
    """What runs a playbook of the collection on the scenario's hosts."""
    inventory = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/inventory.yml"
    program = ["ansible-playbook", f"buildfarm.buildkit.{playbook}", "--inventory", inventory, *arguments]
    return [*program, "--extra-vars", json.dumps({"buildkit_drain_limit": 5, **variables})]


def environment() -> dict[str, str]:
    """The environment of a run."""
    return {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", "PYTHONUNBUFFERED": "1"}


def play(playbook: str, *arguments: str, ok: bool = True, **variables: object) -> str:
    """Run it to its end, and return on one line what it printed."""
    done = subprocess.run(
        command(playbook, *arguments, **variables),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    assert (done.returncode == 0) is ok, done.stdout
    return " ".join(done.stdout.split())


def play_until(text: str, playbook: str, **variables: object) -> None:
    """Run it, and kill it when it prints this."""
    process = subprocess.Popen(
        command(playbook, **variables),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        found = any(text in line for line in process.stdout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert found


def inside(host: str, *arguments: str) -> str:
    """What a command prints on a host."""
    return subprocess.run(
        ["docker", "exec", host, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def running(host: str) -> str:
    """The version of the daemon that runs on a host."""
    pid = inside(host, "systemctl", "show", "--property", "MainPID", "--value", "buildkit.service")
    return inside(host, "readlink", f"/proc/{pid}/exe").split("/")[-3]


def records(host: str) -> set[str]:
    """The records in a host's cache, by the buildctl that is linked there."""
    listed = inside(host, "buildctl", "--addr", "unix:///run/buildkit/buildkitd.sock", "du", "--verbose")
    return set(re.findall(r"^ID:\s+(\S+)$", listed, re.MULTILINE))


@pytest.fixture(scope="module")
def buildctl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client of the old release, which talks to both."""
    directory = tmp_path_factory.mktemp("client")
    with tarfile.open(os.environ["BUILDKIT_OLD_ARCHIVE"]) as archive:
        source = archive.extractfile("bin/buildctl")
        assert source is not None
        (directory / "buildctl").write_bytes(source.read())
    (directory / "buildctl").chmod(0o755)
    return directory / "buildctl"


@contextlib.contextmanager
def under_load(buildctl: Path) -> Iterator[dict[str, Load]]:
    """All builders, in use until the end of the block."""
    alice = PKI / "clients" / "alice"
    loads = {host: Load(address, buildctl, alice, *LOADS[host]) for host, address in HOSTS.items()}
    with contextlib.ExitStack() as stack:
        for load in loads.values():
            stack.enter_context(load.running())
        yield loads


def test_no_accepted_build_fails(buildctl: Path) -> None:
    """Not by a rotation, a configuration, and an upgrade here with a downgrade there, killed, going on, and back."""
    swapped = {"lifecycle-old": 1, "lifecycle-new": 0}
    before = {host: records(host) for host in HOSTS}
    with under_load(buildctl) as loads:
        rotated = play("rotate", buildkit_pki_valid_for="300d", buildkit_pki_renew_before="200d", buildkit_serial=2)
        wish = {"generations": swapped, "buildkitd_config": {"debug": True}}
        play_until("Service | Run buildkitd (", "upgrade", **wish)
        swapping = play("upgrade", **wish)
        versions = {host: running(host) for host in HOSTS}
        play("upgrade", buildkit_serial=2)
    for host, load in loads.items():
        print(host, load.summary())
        assert load.builds
        assert [build.error for build in load.failed] == [], load.summary()
        assert load.sessions > 0
    # From v0.14 on no restart is left out; before, one that is owed is told, and the next run goes on.
    assert "lifecycle-new owes a restart" not in rotated
    assert versions["lifecycle-old"] == NEW or "lifecycle-old owes a restart" in swapping
    quiet = play("upgrade", buildkit_serial=2)
    assert " owes a restart (" not in quiet
    assert {host: running(host) for host in HOSTS} == {"lifecycle-old": OLD, "lifecycle-new": NEW}
    # Both generations read what the other one wrote.
    assert all(before[host] & records(host) for host in HOSTS)


def broken_archive(directory: Path) -> dict[str, object]:
    """A release whose daemon does not start, as variables."""
    path = directory / "broken.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("buildkitd", "buildctl"):
            script = b"#!/bin/sh\necho out of order >&2\nexit 3\n"
            member = tarfile.TarInfo(f"bin/{name}")
            member.size, member.mode = len(script), 0o755
            archive.addfile(member, io.BytesIO(script))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"buildkitd_version": "0.25.9", "buildkitd_archive": str(path), "buildkitd_archive_sha256": sha256}


def test_an_upgrade_that_does_not_start_is_taken_back(tmp_path: Path) -> None:
    """The version before runs again with its configuration, and both reasons are told."""
    said = play(
        *("upgrade", "--limit", "lifecycle-new"),
        ok=False,
        buildkitd_config={"debug": True},
        **broken_archive(tmp_path),
    )
    assert "out of order" in said
    assert re.search(rf"went back to what was proved last \(BuildKit {re.escape(NEW)}, .*configuration", said), said
    assert "and that was proved again" in said
    assert running("lifecycle-new") == NEW
    assert "debug = true" not in inside("lifecycle-new", "cat", "/etc/buildkit/buildkitd.toml")
    assert inside("lifecycle-new", "systemctl", "is-system-running") == "running"


def test_a_certificate_that_clients_refuse_is_taken_back() -> None:
    """The one before is served again, with its key, and the next run makes another one."""
    before = inside("lifecycle-new", "sha256sum", "/etc/buildkit/tls/cert.pem", "/etc/buildkit/tls/key.pem")
    wrong = {"buildkit_addresses": ["192.0.2.1"], "buildkit_endpoint": "tcp://172.29.216.32:1234"}
    said = play("rotate", "--limit", "lifecycle-new", ok=False, **wrong)
    assert "went back to what was proved last (certificate and key), and that was proved again" in said, said
    assert inside("lifecycle-new", "sha256sum", "/etc/buildkit/tls/cert.pem", "/etc/buildkit/tls/key.pem") == before
    assert " owes a restart (" not in play("rotate", "--limit", "lifecycle-new")
    assert inside("lifecycle-new", "sha256sum", "/etc/buildkit/tls/cert.pem") != before.splitlines()[0]


def test_a_downgrade_that_nobody_measured(tmp_path: Path) -> None:
    """It is refused before anything changes; told to, the cache is emptied first."""
    limit = ("--limit", "lifecycle-new")
    # The same programs in an archive with another checksum stand for a release to come.
    data = Path(os.environ["BUILDKIT_NEW_ARCHIVE"]).read_bytes() + gzip.compress(b"")
    (tmp_path / "newest.tar.gz").write_bytes(data)
    newest = {
        "buildkitd_version": "0.99.0",
        "buildkitd_archive": str(tmp_path / "newest.tar.gz"),
        "buildkitd_archive_sha256": hashlib.sha256(data).hexdigest(),
    }
    play("upgrade", *limit, **newest)
    before = records("lifecycle-new")
    refused = play("upgrade", *limit, ok=False)
    assert "0.99.0 wrote the cache here" in refused
    assert running("lifecycle-new") == "0.99.0"
    play("upgrade", *limit, buildkitd_downgrade="reset")
    assert running("lifecycle-new") == NEW
    assert before
    assert not before & records("lifecycle-new")
