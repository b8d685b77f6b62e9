# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for real builds on real daemons, by the module and by the action plugin."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import builds
import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import (
    IMPORT_ROOT,
    Outcome,
    finish,
    module_process,
    run_module,
)
from certificates import Authority, Pair
from daemon import Daemon

NOBODY = "unix:///run/nobody-listens-here.sock"


@pytest.fixture(scope="module")
def builder(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon on which nobody else builds."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("drain"), pair=server, ca=authority.path) as running:
        yield running


def drain(options: dict[str, Any], **how: Any) -> Outcome:
    """Run the module without its action plugin, as it runs on a host."""
    return run_module("buildkit_drain", {"poll": 0.1, **options}, **how)


def test_idle_daemon_is_drained_at_once(builder: Daemon, authority: Authority, client: Pair) -> None:
    """Nothing has changed, nothing was seen, and it took no poll."""
    credentials = {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}
    outcome = drain({"address": builder.tcp, "poll": 30, **credentials})
    assert not outcome.failed, outcome.message
    assert outcome.result["changed"] is False
    assert outcome.result["drained"] is True
    assert outcome.result["waited_seconds"] < 5
    [found] = outcome.result["daemons"]
    assert (found["builds"], found["builds_seen"], found["failure"]) == ([], [], None)
    assert outcome.result["summary"] == [f"{builder.tcp}: no build runs; waited 0 s"]


def test_it_waits_for_the_build(builder: Daemon, tmp_path: Path) -> None:
    """It ends soon after the build, not before, and names it."""
    with builds.running(builder, tmp_path, seconds=3) as client:
        outcome = drain({"address": builder.unix})
        assert not outcome.failed, outcome.message
        client.wait(timeout=5)  # it needs a moment to say goodbye
        assert client.returncode == 0
    [found] = outcome.result["daemons"]
    assert found["drained"] is True
    assert 1 < found["waited_seconds"] < 8
    [ref] = found["builds_seen"]
    assert ref in builds.buildctl(builder, "debug", "histories")


@pytest.mark.parametrize("on_timeout", ["fail", "continue"])
def test_time_out_fails_or_goes_on(builder: Daemon, tmp_path: Path, on_timeout: str) -> None:
    """Both say what still runs; the daemons that are idle are drained all the same."""
    with builds.running(builder, tmp_path):
        began = time.monotonic()
        outcome = drain({"address": builder.unix, "timeout": 1.5, "on_timeout": on_timeout})
        assert 1.5 <= time.monotonic() - began < 6
    assert outcome.failed is (on_timeout == "fail")
    assert outcome.result["drained"] is False
    [found] = outcome.result["daemons"]
    assert found["waited_seconds"] == pytest.approx(1.5, abs=0.3)
    assert found["idle_seconds"] == 0
    [build] = found["builds"]
    assert [build["ref"]] == found["builds_seen"]
    assert re.fullmatch(rf"{builder.unix}: 1 build runs, for \d+ s; waited 1 s", outcome.result["summary"][0])
    if on_timeout == "fail":
        assert outcome.message.startswith(outcome.result["summary"][0])
        assert "on_timeout: continue" in outcome.message


def test_zero_looks_once(builder: Daemon, tmp_path: Path) -> None:
    """A time-out of 0 is a question, with an answer at once."""
    assert drain({"address": builder.unix, "timeout": 0}).result["drained"] is True
    with builds.running(builder, tmp_path):
        outcome = drain({"address": builder.unix, "timeout": 0, "poll": 30})
    assert outcome.failed
    assert outcome.result["waited_seconds"] < 2


def test_idle_for_bridges_the_gap_between_builds(builder: Daemon, tmp_path: Path) -> None:
    """A build in the idle time makes it start anew."""
    process = module_process("buildkit_drain", {"address": builder.unix, "poll": 0.1, "idle_for": 3})
    time.sleep(1.5)
    with builds.running(builder, tmp_path, seconds=1) as client:
        client.wait(timeout=30)
    outcome = finish(process)
    assert not outcome.failed, outcome.message
    [found] = outcome.result["daemons"]
    assert len(found["builds_seen"]) == 1
    assert found["idle_seconds"] == pytest.approx(3, abs=0.5)
    assert found["waited_seconds"] > 4


def test_check_mode_looks_and_does_not_wait(builder: Daemon, tmp_path: Path) -> None:
    """It says what runs, and is no failure."""
    with builds.running(builder, tmp_path):
        outcome = drain({"address": builder.unix, "idle_for": 5}, check=True)
    assert not outcome.failed, outcome.message
    assert outcome.result["drained"] is False
    assert len(outcome.result["daemons"][0]["builds"]) == 1
    assert outcome.result["waited_seconds"] < 2
    assert drain({"address": builder.unix, "idle_for": 5}, check=True).result["drained"] is True


def test_internal_builds_are_not_counted(builder: Daemon) -> None:
    """A proof of ours that runs holds up nobody, although the daemon is at work for it."""

    async def look() -> tuple[int, Outcome]:
        async with builds.internal(builder) as control:
            running = len(daemons.children(builder.process))
            assert (await control.history(active_only=True, timeout=5)).running == ()
            return running, await asyncio.to_thread(drain, {"address": builder.unix, "timeout": 0})

    running, outcome = asyncio.run(look())
    assert running > 0
    assert not outcome.failed, outcome.message
    assert outcome.result["drained"] is True


def test_fleet_is_waited_for_at_once(builder: Daemon, tmp_path: Path) -> None:
    """Each daemon has its own answer, and one that is dead is a failure in any case."""
    with builds.running(builder, tmp_path):
        options = {"daemons": [{"address": NOBODY}, {"address": builder.unix}], "timeout": 1}
        outcome = drain({**options, "on_timeout": "continue"})
        assert outcome.failed
        assert outcome.message.startswith(f"1 of 2 daemons not drained:\n{NOBODY}: unreachable: ")
        dead, busy = outcome.result["daemons"]
        assert dead["failure"]["kind"] == "unreachable"
        assert busy["failure"] is None
        assert len(busy["builds"]) == 1
        assert drain(options).message.startswith("2 of 2 daemons not drained:\n")


@pytest.fixture
def own(bin_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that a test may stop."""
    with daemons.run(bin_dir, tmp_path / "own") as running:
        yield running


def test_shutdown_right_after_is_prompt(own: Daemon) -> None:
    """No question of ours is open that 0.13 would wait for."""
    assert drain({"address": own.unix}).result["drained"] is True
    began = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    own.process.wait(10)
    assert time.monotonic() - began < 3


def test_shutdown_amid_waiting_is_prompt(own: Daemon) -> None:
    """Not even while it waits; whoever waits is told that the daemon has gone."""
    process = module_process("buildkit_drain", {"address": own.unix, "poll": 0.5, "idle_for": 60})
    time.sleep(2)
    began = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    own.process.wait(10)
    assert time.monotonic() - began < 3
    outcome = finish(process)
    assert outcome.failed
    failure = outcome.result["daemons"][0]["failure"]
    assert failure["kind"] == "unreachable", failure


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: address, daemons"),
        ({"address": NOBODY, "timeout": -1}, "timeout is -1"),
        ({"address": NOBODY, "timeout": "inf"}, "timeout is inf"),
        ({"address": NOBODY, "poll": 0}, "poll is 0"),
        ({"address": NOBODY, "idle_for": -1}, "idle_for is -1"),
        ({"address": NOBODY, "progress": 0.5}, "progress is 0.5"),
        ({"address": NOBODY, "idle_for": 20, "timeout": 10}, "idle_for is 20 and timeout is 10"),
        ({"address": NOBODY, "on_timeout": "kill"}, "fail, continue"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused with what to give, and nothing is contacted."""
    outcome = drain(options)
    assert outcome.failed
    assert message in outcome.message
    assert "daemons" not in outcome.result


class Play:
    """One task in a playbook, run by ansible-playbook, so with the action plugin."""

    def __init__(self, directory: Path, options: dict[str, Any], *, task: dict[str, Any], arguments: tuple[str, ...]):
        name = "buildfarm.buildkit.buildkit_drain"
        tasks = [
            {"name": "Wait", name: options, "register": "result", "ignore_errors": True, **task},
            {
                "name": "Result",
                "ansible.builtin.copy": {"content": "{{ result }}", "dest": f"{directory}/result"},
                "check_mode": False,
                "no_log": True,
            },
        ]
        (directory / "play.yml").write_text(
            json.dumps(
                [
                    {
                        "hosts": "localhost",
                        "gather_facts": False,
                        "vars": {"ansible_python_interpreter": sys.executable},
                        "tasks": tasks,
                    }
                ]
            ),
            encoding="utf-8",
        )
        self._result = directory / "result"
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", *arguments, str(directory / "play.yml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT), "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def wait(self) -> dict[str, Any]:
        """The result of the task."""
        code = self.process.wait(120)
        self._reader.join()
        self.process.stdout.close()
        assert code == 0, self.output
        return json.loads(self._result.read_text(encoding="utf-8"))

    @property
    def output(self) -> str:
        """All that was printed."""
        return "\n".join(line for _when, line in self.lines)

    @property
    def progress(self) -> list[tuple[float, str]]:
        """The lines that say how it goes, with the time at which each came."""
        return [(when, line) for when, line in self.lines if line.startswith("buildkit_drain: ")]


def play(directory: Path, options: dict[str, Any], *arguments: str, **task: Any) -> Play:
    """Start a play."""
    directory.mkdir(exist_ok=True)
    return Play(directory, {"poll": 0.1, **options}, task=task, arguments=arguments)


def test_progress_is_shown_while_it_waits(builder: Daemon, tmp_path: Path) -> None:
    """Lines come while the build runs, and the result is one of a single wait."""
    with builds.running(builder, tmp_path / "build") as client:
        run = play(tmp_path / "play", {"address": builder.unix, "progress": 1})
        deadline = time.monotonic() + 60
        while len(run.progress) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        stopped = time.monotonic()
        client.terminate()
        client.wait()
        result = run.wait()
    assert len([when for when, _line in run.progress if when <= stopped]) >= 3
    for _when, line in run.progress:
        assert re.fullmatch(rf"buildkit_drain: {builder.unix}: 1 build runs, for \d+ s; waited \d+ s", line)
    assert result["failed"] is False
    assert result["changed"] is False
    assert result["drained"] is True
    [found] = result["daemons"]
    assert len(found["builds_seen"]) == 1
    assert found["waited_seconds"] >= stopped - run.progress[0][0]
    assert result["summary"][0].startswith(f"{builder.unix}: no build runs; waited ")


def test_idle_time_goes_on_through_the_calls_of_the_module(builder: Daemon, tmp_path: Path) -> None:
    """More than one call is needed to see it idle for so long; together they do, and no longer than that."""
    result = play(tmp_path, {"address": builder.unix, "progress": 1, "idle_for": 4}).wait()
    assert result["drained"] is True
    assert 4 <= result["daemons"][0]["idle_seconds"] < 8
    assert result["daemons"][0]["idle_seconds"] <= result["waited_seconds"] + 1


def test_time_out_holds_through_the_calls_of_the_module(builder: Daemon, tmp_path: Path) -> None:
    """It counts from the first call, and the failure says what still runs."""
    daemons_wanted = [{"address": builder.unix}, {"address": NOBODY}, {"address": builder.tcp}]
    with builds.running(builder, tmp_path / "build"):
        result = play(tmp_path / "play", {"daemons": daemons_wanted[:1], "progress": 1, "timeout": 4}).wait()
        assert result["failed"] is True
        assert 4 <= result["waited_seconds"] < 8
        assert len(result["daemons"][0]["builds"]) == 1
        assert "on_timeout: continue" in result["msg"]
        options = {"daemons": daemons_wanted, "progress": 1, "timeout": 3, "on_timeout": "continue"}
        result = play(tmp_path / "play", options).wait()
    assert [bool(found["failure"]) for found in result["daemons"]] == [False, True, True]
    assert result["msg"].startswith("2 of 3 daemons not drained:")
    assert [len(found["builds"]) for found in result["daemons"]] == [1, 0, 0]


def test_check_mode_and_async_need_one_call(builder: Daemon, tmp_path: Path) -> None:
    """Check mode looks once, and an asynchronous task waits in the background; neither shows lines."""
    with builds.running(builder, tmp_path / "build", seconds=8):
        run = play(tmp_path / "play", {"address": builder.unix}, "--check")
        result = run.wait()
        assert (result["drained"], result["failed"]) == (False, False)
        assert run.progress == []
        run = play(tmp_path / "play", {"address": builder.unix}, **{"async": 60, "poll": 1})
        result = run.wait()
        assert result["drained"] is True
        assert run.progress == []


def test_nothing_is_shown_of_a_secret_task(builder: Daemon, tmp_path: Path) -> None:
    """C(no_log) holds for the lines too, and C(progress: 0) shows none."""
    with builds.running(builder, tmp_path / "build"):
        options = {"address": builder.unix, "timeout": 2, "progress": 1, "on_timeout": "continue"}
        run = play(tmp_path / "play", options, no_log=True)
        run.wait()
        assert builder.unix not in run.output
        run = play(tmp_path / "play", {**options, "progress": 0})
        run.wait()
        assert run.progress == []


def test_bad_options_are_refused_by_the_module(tmp_path: Path) -> None:
    """The action plugin leaves it to the module to say what is wrong."""
    for options, message in (
        ({"address": NOBODY, "timeout": "soon"}, "timeout"),
        ({"address": NOBODY, "idle_for": 20, "timeout": 10}, "idle_for is 20 and timeout is 10"),
        ({"daemons": "x"}, "could not parse"),
        ({"daemons": []}, "at least one address"),
        ({"addres": NOBODY}, "Unsupported parameters"),
    ):
        result = play(tmp_path, options).wait()
        assert result["failed"] is True
        assert message in result["msg"]
