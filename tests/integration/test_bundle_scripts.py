# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts of client bundles beside real daemons, buildctl and docker-buildx: what goes wrong, and two pools."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import bundle
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from certificates import CLIENT, Authority, Pair
from clients import AGES, Buildx, obtain
from daemon import Daemon

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)
# What the scripts do does not depend on the daemon's version.
ONE_IS_ENOUGH = pytest.mark.parametrize("bin_dir", ["0.25"], indirect=True)
ONE, TWO = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


@pytest.fixture(params=AGES)
def buildx(request: pytest.FixtureRequest, tmp_path: Path) -> Buildx:
    """A docker-buildx that has no builder yet."""
    program = obtain(request.param)
    return Buildx(Path(program["path"]), program["version"], tmp_path / "buildx")


def unpack(directory: Path, authority: Authority, client: Pair, pool: str, *daemons: dict[str, Any]) -> Path:
    """A bundle of a pool, unpacked."""
    identity = bundle.Identity(
        name="alice",
        ca=authority.path.read_bytes(),
        certificate=client.cert.read_bytes(),
        key=client.key.read_bytes(),
        serial="0a",
        fingerprint="00",
        not_before=NOW,
        not_after=NOW,
    )
    members = bundle.members_of(pool, identity, [bundle.daemon_of(daemon) for daemon in daemons])
    directory.mkdir(exist_ok=True)
    packed = bundle.pack(members, root=f"{pool}-alice", moment=NOW)
    subprocess.run(["tar", "--extract", "--directory", directory], input=packed, check=True)
    return directory / f"{pool}-alice"


def node(name: str, address: str, *platforms: str, **more: str) -> dict[str, Any]:
    """A daemon for a bundle."""
    return {"name": name, "address": address, "platforms": platforms, **more}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, whatever becomes of it."""
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=given, timeout=240)


def _setup(place: Path, buildx: Buildx) -> subprocess.CompletedProcess[str]:
    return run(place / "setup-buildx.sh", **buildx.environment(), BUILDX=str(buildx.program))


CHANGES = {
    "a host with another name": [node("b1", ONE, "linux/amd64")],
    "addresses swapped": [node("build-1", TWO, "linux/amd64"), node("build-2", ONE, "linux/arm64")],
    "the first one gone": [node("build-2", TWO, "linux/arm64")],
    "another order": [node("build-2", TWO, "linux/arm64"), node("build-1", ONE, "linux/amd64")],
    "platforms moved": [node("build-1", ONE, "linux/arm64"), node("build-2", TWO, "linux/amd64")],
    "no platforms": [node("build-1", ONE)],
    "one more": [node("build-1", ONE, "linux/amd64"), node("build-2", TWO, "linux/arm64"), node("c", ONE + "0")],
    "another name in its certificate": [node("build-1", ONE, "linux/amd64", server_name="x"), node("c", TWO)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_buildx_follows_a_pool_that_changes(
    buildx: Buildx, authority: Authority, client: Pair, tmp_path: Path, change: str
) -> None:
    """What the next bundle makes of the builders is what it would have made of none, and the chosen one stays so."""
    before = [node("build-1", ONE, "linux/amd64"), node("build-2", TWO, "linux/arm64")]
    place = unpack(tmp_path, authority, client, "pool", *before)
    assert _setup(place, buildx).returncode == 0
    buildx.good("use", "pool")
    chosen = (buildx.config / "current").read_bytes()
    unpack(tmp_path, authority, client, "pool", *CHANGES[change])
    fresh = dataclasses.replace(buildx, config=tmp_path / "fresh")
    for each in (buildx, fresh, buildx):
        done = _setup(place, each)
        assert done.returncode == 0, done.stderr
    assert buildx.stored("pool") == fresh.stored("pool")
    assert (buildx.config / "current").read_bytes() == chosen


def test_builders_of_hosts_that_left_go(buildx: Buildx, authority: Authority, client: Pair, tmp_path: Path) -> None:
    """Of two equal hosts one is left, so that the pool's builder is all; what others made under such a name stays."""
    place = unpack(tmp_path / "R&D", authority, client, "pool", node("a", ONE), node("b", TWO))
    assert _setup(place, buildx).returncode == 0
    buildx.good("create", "--name", "pool-mine", "--driver", "remote", "unix:///mine.sock")
    made = sorted(path.name for path in (buildx.config / "instances").iterdir())
    assert made == ["pool", "pool-a", "pool-b", "pool-mine"]
    unpack(tmp_path / "R&D", authority, client, "pool", node("a", ONE))
    for _again in range(2):
        done = _setup(place, buildx)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in (buildx.config / "instances").iterdir()) == ["pool", "pool-mine"]


def test_the_builder_of_another_pool_is_left_alone(
    buildx: Buildx, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """The pool x with equal hosts a and b makes a builder x-a, and so does the pool x-a."""
    place = unpack(tmp_path / "R&D", authority, client, "x-a", node("c", ONE))
    assert _setup(place, buildx).returncode == 0
    before = buildx.instance("x-a")
    other = unpack(tmp_path, authority, client, "x", node("a", ONE), node("b", TWO))
    refused = _setup(other, buildx)
    assert refused.returncode == 1
    assert f"there is a builder x-a already, of the bundle in {place}, which is of another pool" in refused.stderr
    assert buildx.instance("x-a") == before


def test_without_a_home_it_says_what_is_missing(authority: Authority, client: Pair, tmp_path: Path) -> None:
    """Nothing is made anywhere."""
    place = unpack(tmp_path, authority, client, "pool", node("a", ONE))
    for script in ("setup-buildx.sh", "remove-buildx.sh"):
        done = run("env", "-i", f"PATH={os.environ['PATH']}", place / script)
        assert (done.returncode, "HOME: is not set, and docker buildx keeps its builders there" in done.stderr) == (
            2,
            True,
        )


def test_a_failure_is_never_silent(authority: Authority, client: Pair, tmp_path: Path) -> None:
    """A docker-buildx that does not run, and an env.sh that is run instead of read."""
    place = unpack(tmp_path, authority, client, "pool", node("a", ONE))
    done = run(place / "setup-buildx.sh", BUILDX="/bin/false")
    assert (done.returncode, "running docker buildx failed" in done.stderr) == (1, True)
    for shell in ("sh", "bash"):
        assert "it sets nothing in your shell" in run(shell, place / "env.sh").stderr
        read = run(shell, "-c", f"cd {place} && . ./env.sh && echo $BUILDKIT_TLS_DIR")
        assert (read.stdout, read.stderr) == (f"{place}\n", "")


@ONE_IS_ENOUGH
def test_wrappers_of_two_pools_know_their_own_builders(
    mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """Whichever comes first in PATH, each builder is reached; other addresses and certificates go to buildctl as is."""
    here, there = mtls.tcp, mtls.tcp.replace("127.0.0.1", "localhost")
    places = [
        unpack(tmp_path / "a b", authority, client, "one", node("a", here)),
        unpack(tmp_path, authority, client, "two", node("a", there)),
    ]
    for first, second in (places, places[::-1]):
        path = f"{first}/bin:{mtls.bin}:{second}/bin:{os.environ['PATH']}"
        for address in (here, there):
            done = run("buildctl", "--addr", address, "debug", "workers", PATH=path)
            assert done.returncode == 0, done.stderr
        assert run("buildctl", "--addr", mtls.unix, "debug", "workers", PATH=path).returncode == 0
        own = run("buildctl", "--addr", there, "--tlscacert", "/nowhere/ca.pem", "debug", "workers", PATH=path)
        assert "/nowhere/ca.pem" in own.stderr
    alone = run("buildctl", "debug", "workers", PATH=f"{places[0]}/bin:{places[1]}/bin:/usr/bin:/bin")
    assert (alone.returncode, "there is no buildctl in PATH" in alone.stderr) == (127, True)


def test_verify_does_not_wait_for_ever(authority: Authority, client: Pair, tmp_path: Path) -> None:
    """For what takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        place = unpack(tmp_path, authority, client, "pool", node("a", address))
        done = run(place / "verify.sh", VERIFY_SECONDS="1")
    assert done.returncode == 1
    assert f"{address}: FAILED, it does not accept this client: it does not answer\n" in done.stdout


@ONE_IS_ENOUGH
def test_verify_says_what_is_wrong(
    mtls: Daemon,
    without_ca: Daemon,
    plaintext: Daemon,
    authority: Authority,
    other_authority: Authority,
    client: Pair,
    tmp_path: Path,
) -> None:
    """Each builder that is not as it should be, with the reason; one that is does not make up for it."""
    wrong = {
        f"tcp://127.0.0.1:{ports.kept()}": "Connection refused",
        without_ca.tcp: "it accepts strangers without a certificate",
        plaintext.tcp: "wrong version number",
        mtls.tcp.replace("127.0.0.1", "localhost"): "hostname mismatch",
    }
    names = {mtls.tcp.replace("127.0.0.1", "localhost"): {"server_name": "other.example.com"}}
    daemons = [node(f"n{number}", address, **names.get(address, {})) for number, address in enumerate(wrong)]
    place = unpack(tmp_path, authority, client, "pool", *daemons, node("good", mtls.tcp))
    done = run(place / "verify.sh", PATH=f"{place}/bin:/usr/bin:/bin", VERIFY_SECONDS="120")
    assert done.returncode == 1, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for address, reason in wrong.items():
        assert said[address].startswith("FAILED")
        assert reason in said[address]
    assert said[mtls.tcp] == ("ok, it accepts this client, refuses strangers (there is no buildctl here to build with)")
    stranger = unpack(tmp_path / "s", other_authority, client, "pool", node("a", mtls.tcp))
    assert "unable to get local issuer certificate" in run(stranger / "verify.sh", VERIFY_SECONDS="120").stdout
    unknown = other_authority.issue("stranger", CLIENT)
    mine = unpack(tmp_path / "u", authority, unknown, "pool", node("a", mtls.tcp))
    assert "FAILED, it does not accept this client" in run(mine / "verify.sh", VERIFY_SECONDS="120").stdout


def test_verify_refuses_a_certificate_that_ended(authority: Authority, tmp_path: Path) -> None:
    """Before any builder is asked."""
    place = unpack(tmp_path, authority, authority.issue("late", CLIENT, days=(-9, -1)), "pool", node("a", ONE))
    done = run(place / "verify.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the certificate ended: notAfter=" in done.stderr
