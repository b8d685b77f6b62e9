# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What buildkit_info tells of real daemons, beside what BuildKit's own client says of them."""

from __future__ import annotations

import re
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from certificates import CLIENT, Authority, Pair
from daemon import Daemon

NOBODY = "unix:///run/nobody-listens-here.sock"


@pytest.fixture(scope="module")
def builder(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon whose cache and history are ours alone: two good builds, one that failed, one that was given up."""
    directory = tmp_path_factory.mktemp("info")
    with daemons.run(bin_dir, directory, pair=server, ca=authority.path) as running:
        warm = builds.context(directory / "warm", builds.WARM)
        builds.build(running, warm)
        builds.build(running, warm)
        builds.build(running, builds.context(directory / "fail", builds.FAIL), ok=False)
        with builds.running(running, directory / "given-up"):
            pass
        yield running


def credentials(authority: Authority, client: Pair) -> dict[str, Any]:
    """Options that a TCP endpoint needs."""
    return {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}


def info(options: dict[str, Any], **how: Any) -> Outcome:
    """Run the module."""
    return run_module("buildkit_info", {"connect_timeout": LONG, **options}, **how)


def facts(options: dict[str, Any]) -> dict[str, Any]:
    """What it tells of one daemon."""
    outcome = info(options)
    assert not outcome.failed, outcome.message
    assert outcome.result["changed"] is False
    [found] = outcome.result["daemons"]
    return found


def test_daemon_says_what_it_is(builder: Daemon, authority: Authority, client: Pair) -> None:
    """Version, workers and certificate are those that buildctl and openssl tell of."""
    found = facts({"address": builder.tcp, **credentials(authority, client)})
    assert found["reachable"] is True
    assert found["failure"] is None
    assert found["package"] == "github.com/moby/buildkit"
    listed = builds.buildctl(builder, "debug", "workers", "--verbose")
    [worker] = found["workers"]
    assert worker["id"] in listed
    assert worker["platforms"] == re.search(r"^Platforms:\s+(.+)$", listed, re.MULTILINE)[1].split(",")
    assert worker["labels"]["org.mobyproject.buildkit.worker.snapshotter"] == "native"
    assert found["version"] in builds.buildctl(builder, "debug", "info")
    assert worker["gc_policy"][-1]["all"] is True
    assert found["certificate"]["subject"] == "CN=server"
    assert found["certificate"]["days_left"] == 29


def test_disk_usage_is_that_of_buildctl(builder: Daemon) -> None:
    """As many records and bytes as buildctl du lists, each under its type."""
    usage = facts({"address": builder.unix})["disk_usage"]
    records, size = builds.cache(builder)
    assert usage["count"] == records
    assert usage["bytes"] == pytest.approx(size, rel=0.01)
    assert {"regular", "source.local", "exec.cachemount"} <= set(usage["by_type"])
    assert usage["by_type"]["exec.cachemount"]["bytes"] == pytest.approx(3_000_000, rel=0.01)
    for name in ("count", "bytes", "in_use_count", "in_use_bytes", "reclaimable_count", "reclaimable_bytes"):
        assert usage[name] == sum(one[name] for one in usage["by_type"].values())
    assert usage["bytes"] == usage["reclaimable_bytes"]
    assert usage["in_use_count"] == 0


def test_running_build_is_counted(builder: Daemon, tmp_path: Path) -> None:
    """It is there with its age, holds part of the cache, and is gone afterwards."""
    began = time.time()
    with builds.running(builder, tmp_path):
        time.sleep(0.5)
        found = facts({"address": builder.unix})
        waited = time.time() - began
    assert found["active_builds"]["count"] == 1
    [build] = found["active_builds"]["builds"]
    assert 0.5 <= found["active_builds"]["oldest_seconds"] <= waited + 1
    assert build["age_seconds"] == found["active_builds"]["oldest_seconds"]
    assert build["ref"] in builds.buildctl(builder, "debug", "histories")
    assert build["frontend"] is None
    started = datetime.strptime(build["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert began - 1 <= started.timestamp() <= began + waited
    assert found["disk_usage"]["in_use_bytes"] > 0
    assert facts({"address": builder.unix})["active_builds"] == {"count": 0, "oldest_seconds": None, "builds": []}


def test_history_is_summarised(builder: Daemon) -> None:
    """What went well, what failed and what its client gave up are told apart."""
    history = facts({"address": builder.unix})["history"]
    assert history["succeeded"] == 2
    assert history["failed"] == 1
    assert history["cancelled"] >= 1
    assert history["count"] == history["succeeded"] + history["failed"] + history["cancelled"]
    assert history["pinned"] == 0
    assert 0 < history["median_seconds"] <= history["longest_seconds"]
    assert history["first"] <= history["last"] <= datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_clock_is_compared(builder: Daemon, authority: Authority, client: Pair) -> None:
    """A daemon on this machine has this machine's clock, within what the measurement can tell."""
    for address, options in ((builder.tcp, credentials(authority, client)), (builder.unix, {})):
        clock = facts({"address": address, **options})["clock"]
        assert clock["uncertainty_seconds"] >= 0
        assert abs(clock["skew_seconds"]) <= clock["uncertainty_seconds"] + 0.01


def test_only_what_was_asked_for_is_there(builder: Daemon) -> None:
    """What was left out is null, and the clock comes with either question for builds."""
    found = facts({"address": builder.unix, "gather": []})
    assert found["reachable"] is True
    assert found["version"]
    assert [found[name] for name in ("workers", "disk_usage", "active_builds", "history", "clock")] == [None] * 5
    found = facts({"address": builder.unix, "gather": ["builds"]})
    assert found["active_builds"]["count"] == 0
    assert found["clock"] is not None
    assert found["history"] is None
    found = facts({"address": builder.unix, "gather": ["history", "workers"]})
    assert found["history"]["count"] >= 4
    assert found["active_builds"] is None
    assert found["disk_usage"] is None


def test_unreachable_daemon_is_no_failure_unless_asked(builder: Daemon) -> None:
    """The others' facts are there in their order, and the failure of the dead one has its kind."""
    options = {"daemons": [{"address": NOBODY}, {"address": builder.unix}], "gather": []}
    outcome = info(options)
    assert not outcome.failed
    dead, alive = outcome.result["daemons"]
    assert (dead["reachable"], alive["reachable"]) == (False, True)
    assert dead["failure"]["kind"] == "unreachable"
    assert dead["version"] is None
    outcome = info({**options, "fail_on_unreachable": True})
    assert outcome.failed
    assert outcome.message.startswith("1 of 2 daemons not reachable:\n" + NOBODY)
    assert outcome.result["daemons"][1]["version"] == alive["version"]


def test_refused_client_is_told_why(builder: Daemon, authority: Authority, other_authority: Authority) -> None:
    """A certificate of another CA is named in the failure."""
    stranger = other_authority.issue("info-stranger", CLIENT)
    found = facts({"address": builder.tcp, **credentials(authority, stranger)})
    assert found["reachable"] is False
    assert found["failure"]["kind"] == "client_certificate_refused"
    assert "CN=info-stranger, issued by CN=Other CA" in found["failure"]["message"]


def test_silent_daemon_costs_its_time_out(builder: Daemon) -> None:
    """A daemon that is stopped in the middle answers nothing, and the task ends and says so."""
    builder.process.send_signal(signal.SIGSTOP)
    try:
        found = facts({"address": builder.unix, "connect_timeout": 1})
    finally:
        builder.process.send_signal(signal.SIGCONT)
    assert found["reachable"] is False
    assert found["failure"]["kind"] == "timeout"


def test_information_leaves_no_trace(builder: Daemon) -> None:
    """No record in the history, none in the cache."""

    def traces() -> tuple[Any, Any]:
        # What is known of a build: the daemon itself adds to that some seconds after its end, and counts how often.
        listed = builds.buildctl(builder, "debug", "histories").splitlines()
        return builds.cache(builder), [line.split()[:2] for line in listed]

    before = traces()
    facts({"address": builder.unix})
    assert traces() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: address, daemons"),
        ({"daemons": []}, "at least one address"),
        ({"address": "https://builder.example.com"}, "unix://"),
        ({"address": NOBODY, "timeout": 0}, "timeout is 0"),
        ({"address": NOBODY, "connect_timeout": -1}, "connect_timeout is -1"),
        ({"address": NOBODY, "gather": ["all"]}, "workers, disk_usage, builds, history"),
        ({"address": "tcp://x", "client_cert": "/x"}, "go together"),
        ({"address": "tcp://x", "tls_hostname": "y"}, "ca_path is missing"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused with what to give, and nothing is contacted."""
    outcome = info(options)
    assert outcome.failed
    assert message in outcome.message
    assert "daemons" not in outcome.result
