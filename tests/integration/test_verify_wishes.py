# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be proved beyond a build, of real daemons that have it and of real daemons that have not."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    endpoint,
    entitlements,
    gc_policy,
    smoke,
    verify,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import SERVER, Authority, Pair
from daemon import Daemon

BOTH = ("network.host", "security.insecure")

# The keys that both generations know come first, then those that 0.13 ignores without a word.
COLLECTED = """
[worker.oci]
[[worker.oci.gcpolicy]]
filters = ["type==source.local", "type==exec.cachemount"]
keepDuration = "48h"
keepBytes = "512MB"
[[worker.oci.gcpolicy]]
all = true
keepBytes = 10000000000
"""
RULES = [
    {"filters": ["type==exec.cachemount", "type==source.local"], "keep_duration": "2d", "reserved_space": "512MB"},
    {"all": True, "reserved_space": "10000000000"},
]
LIMITED = """
[worker.oci]
[[worker.oci.gcpolicy]]
all = true
reservedSpace = "1GB"
maxUsedSpace = "2GB"
minFreeSpace = "3GB"
"""
LIMITS = [{"all": True, "reserved_space": "1GB", "max_used_space": "2GB", "min_free_space": "3GB"}]


@pytest.fixture(scope="module")
def granting(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that grants both entitlements, and collects by rules."""
    options = tuple(f"--allow-insecure-entitlement={name}" for name in BOTH)
    with daemons.run(bin_dir, tmp_path_factory.mktemp("granting"), options=options, settings=COLLECTED) as running:
        yield running


@pytest.fixture(scope="module")
def limited(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose configuration has the limits that came with 0.17."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("limited"), settings=LIMITED) as running:
        yield running


@pytest.fixture(scope="module")
def unversioned(bin_dir: Path, mtls: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that was built without a version: the same program with other letters for it."""
    directory = tmp_path_factory.mktemp("unversioned")
    shutil.copytree(bin_dir, directory / "bin")
    program = directory / "bin" / "buildkitd"
    version = version_of(mtls).encode()
    unknown = b"v0.0.0+unknown".ljust(len(version), b"n")[: len(version)]
    program.write_bytes(program.read_bytes().replace(version, unknown))
    with daemons.run(directory / "bin", directory / "daemon") as running:
        yield running


def report_of(daemon: verify.Daemon | Daemon, **settings: Any) -> dict[str, Any]:
    """The report of a daemon in the form that modules return."""
    wished = verify.Daemon(daemon.unix) if isinstance(daemon, Daemon) else daemon
    proof = verify.Proof(**{"builds": (), "connect_timeout": LONG, "build_timeout": LONG, **settings})
    [report] = verify.verify([wished], proof)
    return report.as_dict()


def version_of(daemon: Daemon) -> str:
    """What it says that it is."""
    return str(report_of(daemon)["version"])


def test_entitlements_that_are_not_granted(mtls: Daemon) -> None:
    """A daemon as it is by default refuses both, beside its builds."""
    report = report_of(mtls, entitlements_refused=BOTH, builds=("exec",))
    assert report["failure"] is None
    refused = {"refused": True, "how": "the daemon refused the build"}
    assert report["entitlements"] == dict.fromkeys(BOTH, refused)
    assert list(report["timings_ms"])[-3:] == [*BOTH, "total"]


@pytest.mark.parametrize("names", [BOTH[:1], BOTH[1:], BOTH])
def test_entitlements_that_are_granted(granting: Daemon, names: tuple[str, ...]) -> None:
    """Each is found out, whether or not its step can run on this machine, and outranks a build that is well."""
    report = report_of(granting, entitlements_refused=names, builds=("exec",))
    assert report["failure"]["kind"] == "entitlement_granted"
    assert report["failure"]["message"] == f"The daemon grants {' and '.join(names)} to any build that asks for it"
    assert [one["refused"] for one in report["entitlements"].values()] == [False] * len(names)
    assert report["timings_ms"]["exec"] > 0


def test_entitlement_whose_step_cannot_run_is_granted(granting: Daemon) -> None:
    """That the build failed is no refusal, however late it is told that the step had begun."""

    async def ask() -> entitlements.Answer:
        connection = await channel.open_connection(channel.Peer(endpoint.parse(granting.unix)), timeout=LONG)
        try:
            client = builds.LateStatus(connection.channel, timeout=LONG)
            own = (await client.workers())[0].platforms[0]
            other = control.Platform("linux", "s390x" if own.architecture != "s390x" else "amd64")
            return await entitlements.ask("network.host", client, other, timeout=LONG)
        finally:
            await connection.close()

    assert not asyncio.run(ask()).refused


def test_build_without_entitlement_is_no_answer(granting: Daemon) -> None:
    """Nobody asks for what is not in the list."""
    report = report_of(granting, builds=("exec",))
    assert (report["ok"], report["entitlements"]) == (True, {})


def test_cache_serves_the_second_build(mtls: Daemon) -> None:
    """The same build comes from the cache, also while another one ignores it."""
    for _round in range(3):
        report = report_of(mtls, builds=("exec", "dockerfile", "cache"))
        assert report["failure"] is None
        assert report["timings_ms"]["cache"] > 0


class Forgetful(control.Control):
    """A client that prunes the whole cache after each build."""

    async def solve(self, request: Any, *, timeout: float) -> None:
        """Build, and forget it."""
        await super().solve(request, timeout=timeout)
        await asyncio.to_thread(until, self._forget, "an empty cache")  # a result is in use for a moment

    daemon: Daemon

    def _forget(self) -> bool:
        builds.buildctl(self.daemon, "prune", "--all")
        return builds.cache(self.daemon) == (0, 0)


def test_cache_that_keeps_nothing_is_found_out(granting: Daemon) -> None:
    """A second build that had to run again is a failure of its own kind."""

    async def prove() -> None:
        connection = await channel.open_connection(channel.Peer(endpoint.parse(granting.unix)), timeout=LONG)
        try:
            client = Forgetful(connection.channel, timeout=LONG)
            client.daemon = granting
            platform = (await client.workers())[0].platforms[0]
            await smoke.run("cache", client, platform, timeout=LONG)
        finally:
            await connection.close()

    with pytest.raises(Failure, match="ran 4 times, and did not once come from the cache") as caught:
        asyncio.run(prove())
    assert caught.value.kind is Kind.NOT_CACHED


def test_version_that_will_do(mtls: Daemon) -> None:
    """The version that it has, without what a distribution added, and any before it."""
    own = version_of(mtls).partition("+")[0]
    for wish in (own, own.removeprefix("v"), "0.13", "0.13.2-rc1"):
        assert report_of(mtls, min_version=wish)["failure"] is None


def test_version_that_is_too_old(mtls: Daemon) -> None:
    """It fails by what it has and what was wished, and proves the rest."""
    report = report_of(mtls, min_version="1.0", builds=("exec",))
    assert report["failure"]["kind"] == "version_too_old"
    assert report["failure"]["message"] == f"The daemon is BuildKit {version_of(mtls)}, older than 1.0"
    assert report["timings_ms"]["exec"] > 0


def test_daemon_without_a_version(unversioned: Daemon) -> None:
    """It is neither new nor old enough: that it does not say is a cause of its own, and none where nobody asks."""
    assert report_of(unversioned, builds=("exec",))["failure"] is None
    report = report_of(unversioned, min_version="0.1")
    assert report["failure"]["kind"] == "version_unknown"
    assert repr(report["version"]) in report["failure"]["message"]


def test_wished_garbage_collection_is_in_effect(granting: Daemon) -> None:
    """What was configured is what is wished, in the words of the configuration."""
    assert report_of(granting, gc_policy=gc_policy.read_policy(RULES))["failure"] is None


def test_result_can_be_wished(limited: Daemon) -> None:
    """What the module returned is a wish that is fulfilled, as long as nobody changes the daemon."""
    rules = report_of(limited)["workers"][0]["gc_policy"]
    assert report_of(limited, gc_policy=gc_policy.read_policy(rules))["failure"] is None


def test_other_garbage_collection_is_in_effect(granting: Daemon) -> None:
    """Each rule that differs is named, with what is in effect."""
    rules = gc_policy.read_policy([RULES[0], {**RULES[1], "reserved_space": "10GB"}, {"all": True}])
    failure = report_of(granting, gc_policy=rules)["failure"]
    assert failure["kind"] == "gc_policy_differs"
    assert failure["message"].endswith(
        "not the one that is wished: rule 2 has reserved_space 10000000000 instead of 10737418240; "
        "rule 3 is missing (all true)"
    )


def test_each_daemon_has_a_wish_of_its_own(granting: Daemon) -> None:
    """It counts before that of all; an empty one means no garbage collection."""
    daemon, mine = verify.Daemon(granting.unix), gc_policy.read_policy(RULES)
    proof = verify.Proof(builds=(), gc_policy=gc_policy.read_policy([{"all": True}]))
    kinds = [
        report.failure and report.failure.kind
        for report in verify.verify([daemon] * 3, proof, gc_policy_of_each=[mine, (), None])
    ]
    assert kinds == [None, Kind.GC_POLICY_DIFFERS, Kind.GC_POLICY_DIFFERS]


def test_keys_that_the_daemon_does_not_know(limited: Daemon) -> None:
    """0.13 ignores the limits that came with 0.17 and says nothing; what it does not keep to is found out."""
    failure = report_of(limited, gc_policy=gc_policy.read_policy(LIMITS))["failure"]
    if version_of(limited).startswith("v0.13."):
        assert failure["kind"] == "gc_policy_differs"
        for name, wished in (("reserved_space", 2**30), ("max_used_space", 2**31), ("min_free_space", 3 * 2**30)):
            assert f"rule 1 has {name} 0 instead of {wished}" in failure["message"]
    else:
        assert failure is None


def test_certificate_with_days_left(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """A certificate that is valid for long enough is well, and without TLS there is none to ask about."""
    wished = verify.Daemon(mtls.tcp, str(authority.path), str(client.cert), str(client.key))
    assert report_of(wished, certificate_days=29)["failure"] is None
    assert report_of(mtls, certificate_days=1000)["failure"] is None


def test_certificate_that_expires_soon(bin_dir: Path, authority: Authority, client: Pair, tmp_path: Path) -> None:
    """It fails before it has expired, with the days that are left, and builds until then."""
    pair = authority.issue("short", SERVER, sans=("127.0.0.1",), days=(-80, 10))
    with daemons.run(bin_dir, tmp_path / "daemon", pair=pair, ca=authority.path) as running:
        wished = verify.Daemon(running.tcp, str(authority.path), str(client.cert), str(client.key))
        report = report_of(wished, certificate_days=10, builds=("exec",))
        assert report["failure"]["kind"] == "certificate_expires_soon"
        assert "has 9 days left, fewer than 10; it is valid from" in report["failure"]["message"]
        assert report["timings_ms"]["exec"] > 0
        assert report_of(wished, certificate_days=9)["failure"] is None
