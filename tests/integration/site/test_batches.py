# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that break the first of three builders, in this order.

It goes back, its batch is finished, the others are not touched; and once it is mended, a run goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import typing as t

import pytest
from fleet import Run
from test_fleet_runs import HOSTS, Hosts, counts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Hosts]:
    """Three builders that work, and two at a time from then on."""
    made = Hosts(tmp_path_factory.mktemp("batches"))
    try:
        first = made.play("site")
        assert first.code == 0, first.output
        made.variables["buildkit_serial"] = 2
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A release whose daemon does not start, as variables."""
    path = tmp_path_factory.mktemp("broken") / "broken.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("buildkitd", "buildctl"):
            script = b"#!/bin/sh\necho out of order >&2\nexit 3\n"
            member = tarfile.TarInfo(f"bin/{name}")
            member.size, member.mode = len(script), 0o755
            archive.addfile(member, io.BytesIO(script))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"buildkitd_version": "0.25.9", "buildkitd_archive": str(path), "buildkitd_archive_sha256": sha256}


def spoiled(hosts: Hosts, playbook: str, *says: str, **alpha: t.Any) -> Run:
    """A run in which alpha has these wishes, goes back for them, and says these words."""
    whole = hosts.hosts["alpha"]
    hosts.hosts["alpha"] = {**whole, **alpha}
    try:
        run = hosts.play(playbook)
    finally:
        hosts.hosts["alpha"] = whole
    assert run.code == 2, run.output
    said = " ".join(run.output.split())
    wanted = [*says, "So this host went back to what was proved last", "and that was proved again"]
    assert [words for words in wanted if words not in said] == [], run.output
    assert counts(run, "beta")["failed"] == 0
    return run


def recorded(hosts: Hosts, name: str) -> int:
    """The process that a pid file names; 0 without one."""
    path = hosts.host / name / "run" / "buildkitd.pid"
    return int(json.loads(path.read_text())["pid"]) if path.exists() else 0


def pids(hosts: Hosts) -> dict[str, int]:
    """The processes of all daemons; all of them live."""
    found = {name: recorded(hosts, name) for name in HOSTS}
    assert set(found.values()) <= set(hosts.processes())
    return found


def restarted(hosts: Hosts, before: dict[str, int]) -> list[str]:
    """Which hosts have another daemon than before."""
    return [name for name, pid in pids(hosts).items() if pid != before[name]]


def debugged(hosts: Hosts) -> list[str]:
    """Which hosts have the new setting."""
    return [
        name
        for name in HOSTS
        if "debug = true" in (hosts.host / name / "config" / "buildkitd.toml").read_text(encoding="utf-8")
    ]


def test_site_stops_after_the_batch(hosts: Hosts, broken: dict[str, str]) -> None:
    """Alpha has its old release and configuration, beta is proved with the new one, and gamma was not begun."""
    before = pids(hosts)
    hosts.variables["buildkitd_config"] = {"debug": True}
    stopped = "alpha failed or cannot be reached any more, so the run stops before gamma."
    run = spoiled(hosts, "site", "out of order", stopped, **broken)
    assert hosts.proved(run) == {"alpha", "beta"}
    assert restarted(hosts, before) == ["alpha", "beta"]
    assert debugged(hosts) == ["beta"]


def test_upgrade_stops_after_the_first(hosts: Hosts, broken: dict[str, str]) -> None:
    """One at a time, nobody but alpha is touched."""
    hosts.variables["buildkit_serial"] = 1
    before = pids(hosts)
    run = spoiled(hosts, "upgrade", "out of order", **broken)
    assert hosts.proved(run) == {"alpha"}
    assert restarted(hosts, before) == ["alpha"]
    assert debugged(hosts) == ["beta"]


def test_rotate_stops_after_the_batch(hosts: Hosts) -> None:
    """With a certificate for alpha that its clients refuse."""
    hosts.variables["buildkit_serial"] = 2
    hosts.variables.update(buildkit_pki_valid_for="300d", buildkit_pki_renew_before="200d")
    before = pids(hosts)
    run = spoiled(hosts, "rotate", "(certificate and key)", buildkit_addresses=["192.0.2.1"])
    assert hosts.proved(run) == {"alpha", "beta"}
    assert restarted(hosts, before) == ["alpha", "beta"]


def test_a_run_that_is_killed_while_alpha_goes_back(hosts: Hosts, broken: dict[str, str]) -> None:
    """Alpha has what was proved, and no daemon; nobody else is touched."""
    hosts.variables["buildkit_serial"] = 1
    before = pids(hosts)
    whole = hosts.hosts["alpha"]
    hosts.hosts["alpha"] = {**whole, **broken}
    printed = hosts.play_until("Back | Start the daemon", "site")
    hosts.hosts["alpha"] = whole
    assert "Back | Start the daemon" in printed, printed
    assert {before["beta"], before["gamma"]} <= set(hosts.processes())
    assert debugged(hosts) == ["beta"]


def test_the_next_run_goes_on(hosts: Hosts) -> None:
    """With all that was left, and beta is done already."""
    before = {name: recorded(hosts, name) for name in HOSTS}
    run = hosts.play("site")
    assert run.code == 0, run.output
    assert hosts.proved(run) == set(HOSTS)
    assert restarted(hosts, before) == ["alpha", "gamma"]
    assert debugged(hosts) == list(HOSTS)
