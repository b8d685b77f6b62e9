# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on some hosts, or of some stages: --limit, --tags, another strategy, and a host that cannot be reached."""

from __future__ import annotations

import os
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from fleet import Fleet, Run

HOSTS = ("alpha", "beta", "gamma")


class Hosts(Fleet):
    """Three hosts with addresses of their own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "NEW")
        self.hosts = {name: self._host(name, f"127.0.1.{number}") for number, name in enumerate(HOSTS, start=1)}
        self.variables.update(buildkit_names=[], buildkit_serial="100%")

    def _host(self, name: str, address: str) -> dict[str, t.Any]:
        port, place = ports.kept(), self.host / name
        return {
            "buildkit_addresses": [address],
            "buildkit_listen_address": address,
            "buildkit_port": port,
            "buildkit_endpoint": f"tcp://{address}:{port}",
            "buildkit_tls_dir": str(place / "tls"),
            "buildkitd_root": str(place / "cache"),
            **{f"buildkitd_{part}_dir": str(place / part) for part in ("install", "bin", "config", "run", "log")},
        }

    def parts(self, name: str) -> list[str]:
        """Which directories a host has."""
        place = self.host / name
        return sorted(os.listdir(place)) if place.exists() else []

    def proved(self, run: Run) -> set[str]:
        """The hosts that a run proved."""
        output = " ".join(run.output.split())
        return {
            name
            for name, own in self.hosts.items()
            if re.search(rf"{own['buildkit_endpoint']}: BuildKit .*?exec build in", output)
        }


@pytest.fixture
def hosts(tmp_path: Path) -> t.Iterator[Hosts]:
    """Three hosts on which nothing was done yet."""
    virgin = Hosts(tmp_path)
    yield virgin
    virgin.clear()


def counts(run: Run, name: str) -> dict[str, int]:
    """What the recap says of one host."""
    line = re.search(rf"^{name} +:(.*)$", run.output, re.MULTILINE)
    assert line, run.output
    return {part: int(number) for part, number in re.findall(r"(\w+)=(\d+)", line[1])}


def test_some_hosts_and_another_strategy(hosts: Hosts) -> None:
    """Check mode on a virgin fleet; a host in the middle that cannot be reached; then that one alone, with `free`."""
    assert hosts.play("site", "--check", "--diff").changed > 0
    assert hosts.parts("alpha") == hosts.parts("beta") == hosts.parts("gamma") == []

    here = hosts.hosts["beta"]
    hosts.hosts["beta"] = {**here, "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    without = hosts.play("site")
    assert without.code == 4, without.output
    assert [counts(without, name)["unreachable"] for name in HOSTS] == [0, 1, 0]
    assert [counts(without, name)["failed"] for name in HOSTS] == [0, 0, 0]
    assert hosts.proved(without) == {"alpha", "gamma"}
    assert hosts.parts("beta") == []

    # The next run, with that host alone, makes it good and leaves the others as they are; whatever the strategy is.
    hosts.hosts["beta"] = here
    others = hosts.processes()
    (hosts.ansible / "ansible.cfg").write_text("[defaults]\nstrategy = free\n")
    alone = hosts.play("site", "--limit", "beta")
    assert alone.changed > 0
    assert hosts.proved(alone) == {"beta"}
    assert set(others) < set(hosts.processes())
    assert not re.search(r"^(alpha|gamma) ", alone.output.partition("PLAY RECAP")[2], re.MULTILINE)

    everyone = hosts.play("site")
    assert everyone.changed == 0
    assert hosts.proved(everyone) == set(HOSTS)


def test_stages(hosts: Hosts) -> None:
    """Each tag does its stage and what that needs, and no more; then nothing is left to do."""
    hosts.hosts = {"alpha": hosts.hosts["alpha"]}
    assert hosts.play("site", "--tags", "preflight").changed == 0
    assert hosts.parts("alpha") == []
    assert hosts.play("site", "--tags", "pki").changed > 0
    assert hosts.parts("alpha") == ["tls"]
    assert hosts.play("site", "--tags", "install,configure").changed > 0
    assert {"bin", "config", "install"} <= set(hosts.parts("alpha"))
    assert hosts.processes() == []
    started = hosts.play("site", "--tags", "service")
    assert started.changed > 0
    assert hosts.proved(started) == {"alpha"}
    assert "Configure | Write" not in started.output
    pids = hosts.processes()
    proof = hosts.play("site", "--tags", "verify,handout")
    assert proof.changed == 0
    assert hosts.proved(proof) == {"alpha"}
    assert "buildctl --addr" in proof.output
    assert "Service | " not in proof.output
    assert hosts.play("site").changed == 0
    assert hosts.processes() == pids
