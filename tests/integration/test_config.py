# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of buildkitd.toml's keys, and what is foretold of garbage collection, against real daemons."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, control, endpoint, gc_policy
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import keys, releases, settings
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._toml import render
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from daemon import Daemon

OLD = "0.17.0"
# What only newer releases have, so that neither program shows it, and what other libraries have under the same name.
UNSEEN = {"level", "policy", "required", "verify", "command", "sign", "cache", "gha"}

# As many keys as can be set at once. Names of GC and of what came later are added by release.
FULL: dict[str, Any] = {
    "debug": True,
    "trace": False,
    "insecure-entitlements": ["network.host", "security.insecure"],
    "log": {"format": "json"},
    "grpc": {"debugAddress": "127.0.0.1:0"},
    "history": {"maxAge": 172800, "maxEntries": 7},
    "dns": {"nameservers": ["192.0.2.53"], "options": ["edns0"], "searchDomains": ["example.com"]},
    "registry": {
        "docker.io": {"mirrors": ["mirror.example.com:5000/proxy"], "ca": ["/etc/ssl/certs/ca-certificates.crt"]},
        "mirror.example.com:5000": {"http": True, "tlsconfigdir": ["/etc/docker/certs.d"]},
        "private.example.com": {"insecure": True, "keypair": [{"key": "/none/key.pem", "cert": "/none/cert.pem"}]},
    },
    "worker": {
        "oci": {
            "enabled": True,
            "labels": {"team": "builders"},
            "platforms": ["linux/amd64", "linux/arm64"],
            "gc": True,
            "networkMode": "host",
            "cniPoolSize": 0,
            "defaultCgroupParent": "/buildfarm-test",
            "selinux": False,
            "max-parallelism": 4,
        },
        "containerd": {"enabled": False, "namespace": "buildkit", "runtime": {"name": "io.containerd.runc.v2"}},
    },
}
LATER = {
    "0.14.0": {
        "frontend": {"dockerfile.v0": {"enabled": True}, "gateway.v0": {"enabled": True, "allowedRepositories": []}},
        "system": {"platformsCacheMaxAge": "1h"},
    },
    "0.20.0": {"cdi": {"disabled": False, "specDirs": ["/etc/cdi"]}},
    "0.21.0": {"cdi": {"disabled": False, "specDirs": ["/etc/cdi"], "autoAllowed": ["example.com/device"]}},
    "0.25.0": {"provenanceEnvDir": "/etc/buildkit/provenance.d"},
}


@pytest.fixture(scope="module")
def version(bin_dir: Path) -> str:
    """The release of the programs."""
    said = subprocess.run([bin_dir / "buildkitd", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"v([0-9]+\.[0-9]+\.[0-9]+)", said)[1]


def workers(daemon: Daemon) -> list[control.Worker]:
    """What the daemon says of its workers."""

    async def ask() -> list[control.Worker]:
        connection = await channel.open_connection(channel.Peer(endpoint.parse(daemon.unix)), timeout=LONG)
        try:
            return await control.Control(connection.channel, timeout=LONG).workers()
        finally:
            await connection.close()

    return asyncio.run(ask())


def run(bin_dir: Path, directory: Path, config: dict[str, Any]) -> Any:
    """A daemon with this configuration."""
    return daemons.run(bin_dir, directory, settings=render(config))


def disk(directory: Path) -> int:
    """Bytes of the file system that the daemon's root is on."""
    found = os.statvfs(directory)
    return found.f_frsize * found.f_blocks


def test_the_table_has_the_keys_of_the_program(bin_dir: Path, version: str) -> None:
    """Go keeps the names in the program: every key of the release is there, and none that is said to be newer."""
    program = (bin_dir / "buildkitd").read_bytes()
    tags = {tag.decode().partition(",")[0] for tag in re.findall(rb'toml:"([^"]{1,40})"', program)}
    known: set[str] = set()
    newer: set[str] = set()
    for path, key in keys.KEYS.items():
        names = {name.removesuffix("[]") for name in path.replace(".v0", "\0v0").split(".")} - {keys.ANY}
        names = {name.replace("\0", ".") for name in names}
        if releases.has(key.since, version):
            known |= names
        else:
            newer |= names
    assert known - tags == set()
    assert (newer - known - UNSEEN) & tags == set()


def test_a_daemon_starts_with_every_key_of_its_release(bin_dir: Path, version: str, tmp_path: Path) -> None:
    """It takes them all in the types that the table says, and those that it shows are in effect."""
    config = dict(FULL)
    for since, part in LATER.items():
        if releases.has(since, version):
            config.update(part)
    assert settings.problems(config, version, {}, {}, disk(tmp_path)) == []
    whole = settings.whole(config, version, {}, {}, disk(tmp_path))
    with run(bin_dir, tmp_path / "daemon", whole) as running:
        [worker] = workers(running)
        said = running.log.read_text()
    assert worker.labels["team"] == "builders"
    assert {"linux/amd64", "linux/arm64"} <= {str(platform) for platform in worker.platforms}
    assert '"level":' in said  # log.format json
    expected = settings.gc_policy(config, version, {}, {}, disk(tmp_path))
    assert gc_policy.differences(gc_policy.read_policy(expected), worker.gc_policy) == []


@pytest.mark.parametrize(
    ("worker", "simple"),
    [
        ({}, {}),
        ({}, {"cache_size": "20%"}),
        ({"gc": False}, {}),
        ({"gckeepstorage": 9_000_000_000}, {}),
        ({"gckeepstorage": "7%"}, {}),
        ({"gcpolicy": [{"keepBytes": "3%", "keepDuration": 90}, {"all": True, "keepBytes": "1.5GB"}]}, {}),
        ({"reservedSpace": "1GB", "maxUsedSpace": "11%"}, {}),
        ({"gcpolicy": [{"minFreeSpace": "30%", "keepDuration": "1h30m", "filters": ["type==regular"]}]}, {}),
    ],
    ids=["disk", "cache_size", "off", "gckeepstorage", "percent", "keepBytes", "limits", "minFreeSpace"],
)
def test_the_foretold_policy_is_in_effect(
    bin_dir: Path, version: str, tmp_path: Path, worker: dict[str, Any], simple: dict[str, Any]
) -> None:
    """Limits, rules, units and percentages become what the daemon says of itself; what it would ignore is refused."""
    config = {"worker": {"oci": worker}}
    newer = {"reservedSpace", "maxUsedSpace", "minFreeSpace"} & {
        *worker,
        *(name for rule in worker.get("gcpolicy", []) for name in rule),
    }
    if newer and not releases.has(OLD, version):
        assert len(settings.problems(config, version, simple, {}, disk(tmp_path))) == len(newer)
        expected: list[dict[str, Any]] = []
    else:
        expected = settings.gc_policy(config, version, simple, {}, disk(tmp_path)) or []
        config = settings.whole(config, version, simple, {}, disk(tmp_path))
    with run(bin_dir, tmp_path / "daemon", config) as running:
        [found] = workers(running)
    if newer and not expected:
        # Without a word: the daemon runs, and has none of these limits.
        assert {rule.max_used_space for rule in found.gc_policy} == {0}
        assert {rule.min_free_space for rule in found.gc_policy} == {0}
    else:
        assert gc_policy.differences(gc_policy.read_policy(expected), found.gc_policy) == []
        assert bool(found.gc_policy) is (worker != {"gc": False})


def test_what_would_be_ignored(bin_dir: Path, version: str, tmp_path: Path) -> None:
    """The daemon takes an unknown key, and limits beside rules, without a word: that is why both are refused."""
    config = {"worker": {"oci": {"maxParallelism": 2, "gckeepstorage": "1GB", "gcpolicy": [{"keepBytes": "2GB"}]}}}
    with run(bin_dir, tmp_path / "daemon", config) as running:
        [found] = workers(running)
        said = running.log.read_text()
    assert [rule.reserved_space for rule in found.gc_policy] == [2 * 1024**3]
    assert "maxParallelism" not in said
    assert "gckeepstorage" not in said
    problems = settings.problems(config, version, {}, {}, 0)
    assert [name in problem for problem, name in zip(problems, ("maxParallelism", "gckeepstorage"))] == [True, True]
