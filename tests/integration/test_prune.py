# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning real caches that real builds have filled, beside what BuildKit's own client lists."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
import yaml
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import IMPORT_ROOT, Outcome, run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import Authority, Pair
from daemon import Daemon

NOBODY = "unix:///run/nobody-listens-here.sock"
HUGE = str(2**62)


@pytest.fixture(scope="module")
def started(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon whose cache is ours alone. Its own garbage collection has nothing to do on a disk of this size."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("prune"), pair=server, ca=authority.path) as running:
        yield running


@pytest.fixture(scope="module")
def warm_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fills a cache with layers, uploaded contexts and a cache mount."""
    return builds.context(tmp_path_factory.mktemp("warm"), builds.WARM)


@pytest.fixture
def builder(started: Daemon, warm_context: Path) -> Daemon:
    """The daemon with a warm cache: about 23 MB in seven records or more."""
    builds.build(started, warm_context)
    until(lambda: builds.is_settled(started), "records that are free")
    return started


def is_old(daemon: Daemon) -> bool:
    """Whether it is of the generation that knows one limit."""
    return "0.13" in str(daemon.bin)


def prune(daemon: Daemon, options: dict[str, Any] | None = None, **how: Any) -> Outcome:
    """Run the module."""
    return run_module("buildkit_prune", {"address": daemon.unix, "connect_timeout": LONG, **(options or {})}, **how)


def pruned(daemon: Daemon, options: dict[str, Any] | None = None, **how: Any) -> dict[str, Any]:
    """What became of one daemon, as it must have, and the same in the sums."""
    outcome = prune(daemon, options, **how)
    assert not outcome.failed, outcome.message
    [found] = outcome.result["daemons"]
    assert found["failure"] is None
    assert found["changed"] is outcome.result["changed"] is (found["records"] > 0)
    for name in ("records", "bytes"):
        assert outcome.result[name] == found[name] == sum(one[name] for one in found["by_type"].values())
    assert found["cache_bytes_after"] == found["cache_bytes_before"] - found["bytes"]
    return found


def test_everything_goes_and_then_nothing(builder: Daemon) -> None:
    """What went is what buildctl listed, by type, and a second run changes nothing."""
    records, size = builds.cache(builder)
    found = pruned(builder)
    assert found["prediction"] is None
    assert found["records"] == records
    assert found["bytes"] == pytest.approx(size, rel=0.01)
    assert set(found["by_type"]) == {"regular", "source.local", "exec.cachemount"}
    assert found["by_type"]["exec.cachemount"]["bytes"] == pytest.approx(3_000_000, rel=0.01)
    assert builds.cache(builder) == (0, 0)
    assert found["cache_bytes_after"] == 0
    assert pruned(builder)["records"] == 0


OPTIONS: list[dict[str, Any]] = [
    {},
    {"all": True},
    {"filters": ["type==exec.cachemount"]},
    {"filters": ["type==source.local", "type==exec.cachemount"]},
    {"filters": ["type!=regular,mutable"]},
    {"filters": ["immutable"]},
    {"keep_duration": "1h"},
    {"keep_duration": "1s"},
    {"filters": ["type==regular"], "all": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=json.dumps)
def test_check_mode_says_exactly_what_goes(builder: Daemon, options: dict[str, Any]) -> None:
    """Nothing goes in check mode, then that goes, and then nothing."""
    if options.get("keep_duration") == "1s":
        time.sleep(1.5)
    before = builds.cache(builder)
    predicted = pruned(builder, options, check=True)
    assert builds.cache(builder) == before
    assert predicted["prediction"] == "exact"
    found = pruned(builder, options)
    assert {**predicted, "prediction": None} == found
    # What is young stays, and so does a layer on which something stands that does not match.
    assert (found["records"] == 0) is (options in ({"keep_duration": "1h"}, {"filters": ["immutable"]}))
    assert pruned(builder, options)["records"] == 0


LIMITS = [
    {"keep_storage": "10MB"},
    {"reserved_space": 10_000_000},
    {"max_used_space": "10MB"},
    {"max_used_space": "12MB", "keep_storage": "10MB"},
]


@pytest.mark.parametrize("options", LIMITS, ids=json.dumps)
def test_limit_leaves_that_much(builder: Daemon, options: dict[str, Any]) -> None:
    """The pruning ends once no more is left than the limit, as check mode said, and another run changes nothing."""
    if is_old(builder) and "max_used_space" in options:
        assert_refused(builder, options)
        return
    limit = 12_000_000 if len(options) > 1 else 10_000_000
    predicted = pruned(builder, options, check=True)
    assert predicted["prediction"] == "estimate"
    found = pruned(builder, options)
    largest = 8_000_000
    for one in (predicted, found):
        assert one["cache_bytes_after"] <= limit
        assert one["cache_bytes_after"] > limit - largest
    assert builds.cache(builder)[1] == pytest.approx(found["cache_bytes_after"], rel=0.01)
    assert pruned(builder, options)["records"] == 0
    assert pruned(builder, options, check=True)["records"] == 0


def test_limit_that_is_not_reached_changes_nothing(builder: Daemon) -> None:
    """Not in check mode either."""
    before = builds.cache(builder)
    assert pruned(builder, {"keep_storage": "10GB"}, check=True)["records"] == 0
    assert pruned(builder, {"keep_storage": "10GB"})["records"] == 0
    assert builds.cache(builder) == before


def assert_refused(daemon: Daemon, options: dict[str, Any]) -> None:
    """The daemon would skip these limits and drop all of its cache, so it is left alone, in check mode too."""
    before = builds.cache(daemon)
    for check in (True, False):
        outcome = prune(daemon, options, check=check)
        assert outcome.failed
        assert outcome.result["changed"] is False
        failure = outcome.result["daemons"][0]["failure"]
        assert failure["kind"] == "version_too_old"
        names = " and ".join(name for name in ("max_used_space", "min_free_space") if name in options)
        assert f"BuildKit v0.13.2+debian, and {names} came with v0.17" in failure["message"]
        assert "keep_storage" in failure["remedy"]
    assert builds.cache(daemon) == before


@pytest.mark.parametrize(
    "options",
    [{"min_free_space": 1}, {"max_used_space": HUGE}, {"min_free_space": 1, "keep_storage": "1GB"}],
    ids=json.dumps,
)
def test_newer_limits_that_are_met_drop_nothing(builder: Daemon, options: dict[str, Any]) -> None:
    """Not one record, as a daemon would that is given a minimum of free space alone; an old one is left alone."""
    if is_old(builder):
        assert_refused(builder, options)
        return
    before = builds.cache(builder)
    assert pruned(builder, options)["records"] == 0
    assert builds.cache(builder) == before


def test_free_space_is_made_down_to_what_is_reserved(builder: Daemon) -> None:
    """More than any disk has is never free, so everything goes but the floor; the prediction says 'at most'."""
    options = {"min_free_space": HUGE, "keep_storage": "10MB"}
    if is_old(builder):
        assert_refused(builder, options)
        return
    predicted = pruned(builder, options, check=True)
    assert predicted["prediction"] == "at_most"
    found = pruned(builder, options)
    assert 2_000_000 < found["cache_bytes_after"] <= 10_000_000
    assert predicted["bytes"] >= found["bytes"]
    assert pruned(builder, options)["records"] == 0


def test_running_build_keeps_what_it_holds(builder: Daemon, tmp_path: Path) -> None:
    """It goes on to a good end, and its records are still there, as predicted."""
    with builds.running(builder, tmp_path) as client:
        predicted = pruned(builder, {"all": True}, check=True)
        found = pruned(builder, {"all": True})
        assert client.poll() is None
        assert found["records"] > 0
        assert found["cache_bytes_after"] > 0
        assert found["by_type"] == predicted["by_type"]
        client.finish()


def test_fleet_is_pruned_at_once(builder: Daemon, authority: Authority, client: Pair) -> None:
    """One that is dead hides no other's result."""
    credentials = {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}
    outcome = run_module("buildkit_prune", {"daemons": [{"address": NOBODY}, {"address": builder.tcp}], **credentials})
    assert outcome.failed
    assert outcome.message.startswith(f"1 of 2 daemons not pruned:\n{NOBODY}: unreachable: ")
    dead, alive = outcome.result["daemons"]
    assert (dead["changed"], dead["bytes"], dead["cache_bytes_before"]) == (False, 0, None)
    assert alive["changed"] is outcome.result["changed"] is True
    assert outcome.result["summary"][1].startswith(f"{builder.tcp}: freed ")
    assert builds.cache(builder) == (0, 0)


def test_pruning_ends_in_time(builder: Daemon) -> None:
    """A daemon that is stopped in the middle answers nothing, and the task ends and says so."""
    builder.process.send_signal(signal.SIGSTOP)
    try:
        outcome = prune(builder, {"connect_timeout": 1, "timeout": 1})
    finally:
        builder.process.send_signal(signal.SIGCONT)
    assert outcome.failed
    assert outcome.result["changed"] is False
    assert outcome.result["daemons"][0]["failure"]["kind"] == "timeout"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_storage": "10G"}, "keep_storage is '10G', which is no size"),
        ({"keep_storage": "10%"}, "keep_storage is '10%', which is no size"),
        ({"max_used_space": "much"}, "max_used_space is 'much', which is no size"),
        ({"min_free_space": "-1"}, "min_free_space is '-1', which is no size"),
        ({"keep_duration": "2 days"}, "keep_duration is '2 days', which is no length of time"),
        ({"max_used_space": "1GB", "keep_storage": "2GB"}, "more would be kept than may be used"),
        ({"filters": ["type"], "timeout": 0}, "timeout is 0"),
        ({"filters": ["type=regular"]}, "Filter 'type=regular' cannot be read"),
        ({"filters": ["type==regular,"]}, "Filter 'type==regular,' cannot be read"),
        ({"filters": [""]}, "Filter '' cannot be read"),
        ({"filters": ["description~=apt"]}, "has the field 'description', which daemons do not look at"),
        ({"filters": ["typ==regular"]}, "has the field 'typ'"),
        ({"filters": ["type==regular,type==internal"]}, "wants type to be regular and internal"),
        ({"keep_storge": "10GB"}, "Unsupported parameters"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused with what to give, and nothing is contacted."""
    outcome = run_module("buildkit_prune", {"address": NOBODY, **options})
    assert outcome.failed
    assert message in outcome.message
    assert "daemons" not in outcome.result


def test_what_the_daemon_cannot_read_is_its_own_message(builder: Daemon) -> None:
    """An expression that is none is refused by the daemon, before anything goes."""
    before = builds.cache(builder)
    outcome = prune(builder, {"filters": ['id~="["']})
    assert outcome.failed or outcome.result["records"] == 0
    assert builds.cache(builder) == before


def playbook(directory: Path, inventory: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buildfarm.buildkit.prune on these hosts, as a user does."""
    path = directory / "inventory.yml"
    path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT), "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", str(path), "buildfarm.buildkit.prune", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


def test_playbook_prunes_every_builder(builder: Daemon, authority: Authority, client: Pair, tmp_path: Path) -> None:
    """One line for each host; bad options are refused before anything goes; a dead host hides no other."""
    tls = tmp_path / "pki" / "clients" / "buildkit-verify"
    tls.mkdir(parents=True)
    for name, source in (("ca", authority.path), ("cert", client.cert), ("key", client.key)):
        (tls / f"{name}.pem").write_bytes(source.read_bytes())
    hosts = {
        "good": {"buildkit_endpoint": builder.tcp},
        "dead": {"buildkit_endpoint": "tcp://127.0.0.1:9"},
    }
    group = {"hosts": {"good": hosts["good"]}, "vars": {"ansible_python_interpreter": sys.executable}}
    inventory: dict[str, Any] = {"all": {"children": {"buildkit_daemons": group}}}

    before = builds.cache(builder)
    for wish in ('{"keep_storge": "10MB"}', '{"keep_storage": null}'):
        run = playbook(tmp_path, inventory, "-e", f'{{"buildkit_prune": {wish}}}')
        assert run.returncode != 0
        assert "keep_storage, max_used_space" in run.stdout
        assert builds.cache(builder) == before

    run = playbook(tmp_path, inventory, "--check", "-e", '{"buildkit_prune": {"keep_storage": "10MB"}}')
    assert run.returncode == 0, run.stdout
    assert f"{builder.tcp}: would free about" in run.stdout
    assert builds.cache(builder) == before

    run = playbook(tmp_path, inventory, "-e", '{"buildkit_prune": {"keep_storage": "10MB"}}')
    assert run.returncode == 0, run.stdout
    assert f"{builder.tcp}: freed " in run.stdout
    assert "changed=1" in run.stdout
    assert 0 < builds.cache(builder)[1] <= 10_100_000

    group["hosts"] = hosts
    run = playbook(tmp_path, inventory)
    assert run.returncode != 0
    assert "tcp://127.0.0.1:9: unreachable" in run.stdout
    assert f"{builder.tcp}: freed " in run.stdout
    assert builds.cache(builder) == (0, 0)
