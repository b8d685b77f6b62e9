# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for real builds on real daemons, by the module and by the action plugin."""

from __future__ import annotations

import asyncio
import contextlib
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
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import Authority, Pair
from daemon import Daemon
from turnstile import Turnstile

NOBODY = "unix:///run/nobody-listens-here.sock"
LOOKS = 20  # what a daemon says to some looks; to the greeting and one look it says less


@pytest.fixture(scope="module")
def builder(
    bin_dir: Path, server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon on which nobody else builds."""
    with daemons.run(bin_dir, tmp_path_factory.mktemp("drain"), pair=server, ca=authority.path) as running:
        yield running


def drain(options: dict[str, Any], **how: Any) -> Outcome:
    """Run the module without its action plugin, as it runs on a host."""
    return run_module("buildkit_drain", {"poll": 0.1, "connect_timeout": LONG, **options}, **how)


def test_idle_daemon_is_drained_at_once(builder: Daemon, authority: Authority, client: Pair) -> None:
    """Nothing has changed, nothing was seen, and it took no poll."""
    credentials = {"ca_path": str(authority.path), "client_cert": str(client.cert), "client_key": str(client.key)}
    outcome = drain({"address": builder.tcp, "poll": 600, **credentials})
    assert not outcome.failed, outcome.message
    assert outcome.result["changed"] is False
    assert outcome.result["drained"] is True
    assert outcome.result["waited_seconds"] < 600
    [found] = outcome.result["daemons"]
    assert (found["builds"], found["builds_seen"], found["failure"]) == ([], [], None)
    assert re.fullmatch(rf"{builder.tcp}: no build runs; waited .+", outcome.result["summary"][0])


def test_it_waits_for_the_build(builder: Daemon, tmp_path: Path) -> None:
    """It ends after the build, not before, and names it."""
    between = Turnstile(builder.unix, tmp_path)
    with contextlib.closing(between), builds.running(builder, tmp_path / "build") as client:
        process = module_process("buildkit_drain", {"address": between.address, "poll": 0.1, "connect_timeout": LONG})
        until(lambda: between.answers > LOOKS, "some looks at the daemon")
        assert process.poll() is None
        client.finish()
        outcome = finish(process)
        assert not outcome.failed, outcome.message
    [found] = outcome.result["daemons"]
    assert found["drained"] is True
    assert found["waited_seconds"] > 0.1
    [ref] = found["builds_seen"]
    assert ref in builds.buildctl(builder, "debug", "histories")


@pytest.mark.parametrize("on_timeout", ["fail", "continue"])
def test_time_out_fails_or_goes_on(builder: Daemon, tmp_path: Path, on_timeout: str) -> None:
    """Both say what still runs; the daemons that are idle are drained all the same."""
    with builds.running(builder, tmp_path):
        outcome = drain({"address": builder.unix, "timeout": 1.5, "on_timeout": on_timeout})
    assert outcome.failed is (on_timeout == "fail")
    assert outcome.result["drained"] is False
    [found] = outcome.result["daemons"]
    assert found["waited_seconds"] >= 1.5
    assert found["idle_seconds"] == 0
    [build] = found["builds"]
    assert [build["ref"]] == found["builds_seen"]
    assert re.fullmatch(rf"{builder.unix}: 1 build runs, for .+; waited .+", outcome.result["summary"][0])
    if on_timeout == "fail":
        assert outcome.message.startswith(outcome.result["summary"][0])
        assert "on_timeout: continue" in outcome.message


def test_zero_looks_once(builder: Daemon, tmp_path: Path) -> None:
    """A time-out of 0 is a question, with an answer at once."""
    assert drain({"address": builder.unix, "timeout": 0}).result["drained"] is True
    with builds.running(builder, tmp_path):
        outcome = drain({"address": builder.unix, "timeout": 0, "poll": 600})
    assert outcome.failed
    assert outcome.result["waited_seconds"] < 600


def interrupted(builder: Daemon, directory: Path, idle_for: int) -> Outcome:
    """Wait for an idle time into which a build falls, if the machine is fast enough to begin one meanwhile."""
    directory.mkdir()
    with contextlib.closing(Turnstile(builder.unix, directory)) as between:
        limits = {"connect_timeout": LONG, "idle_for": idle_for}
        process = module_process("buildkit_drain", {"address": between.address, "poll": 0.1, **limits})

        def looks(number: int) -> None:
            until(lambda: between.answers > number or process.poll() is not None, "some looks at the daemon")

        looks(LOOKS)
        with builds.running(builder, directory / "build") as client:
            looks(between.answers + LOOKS)
            client.finish()
        return finish(process)


def test_idle_for_bridges_the_gap_between_builds(builder: Daemon, tmp_path: Path) -> None:
    """A build in the idle time makes it start anew."""
    for idle_for in (4, 20, 80):
        outcome = interrupted(builder, tmp_path / str(idle_for), idle_for)
        assert not outcome.failed, outcome.message
        [found] = outcome.result["daemons"]
        if found["builds_seen"]:
            break
    assert len(found["builds_seen"]) == 1
    assert found["idle_seconds"] >= idle_for
    assert found["waited_seconds"] > found["idle_seconds"] + 0.5


def test_check_mode_looks_and_does_not_wait(builder: Daemon, tmp_path: Path) -> None:
    """It says what runs, and is no failure."""
    with builds.running(builder, tmp_path):
        outcome = drain({"address": builder.unix, "idle_for": 600}, check=True)
    assert not outcome.failed, outcome.message
    assert outcome.result["drained"] is False
    assert len(outcome.result["daemons"][0]["builds"]) == 1
    assert outcome.result["waited_seconds"] < 600
    assert drain({"address": builder.unix, "idle_for": 600}, check=True).result["drained"] is True


def test_internal_builds_are_not_counted(builder: Daemon) -> None:
    """A proof of ours that runs holds up nobody, although the daemon is at work for it."""

    async def look() -> tuple[int, int, Outcome]:
        async with builds.internal(builder) as control:
            steps = len(daemons.children(builder.process))
            counted = len((await control.history(active_only=True, timeout=LONG)).running)
            return steps, counted, await asyncio.to_thread(drain, {"address": builder.unix, "timeout": 0})

    steps, counted, outcome = asyncio.run(look())
    assert steps > 0
    assert counted == 0
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
    own.process.send_signal(signal.SIGTERM)
    own.process.wait(LONG)


def test_shutdown_amid_waiting_is_prompt(own: Daemon, tmp_path: Path) -> None:
    """Not even while it waits; whoever waits is told that the daemon has gone."""
    with contextlib.closing(Turnstile(own.unix, tmp_path)) as between:
        process = module_process("buildkit_drain", {"address": between.address, "poll": 0.5, "idle_for": 600})
        until(lambda: between.answers > LOOKS, "some looks at the daemon")
        own.process.send_signal(signal.SIGTERM)
        own.process.wait(LONG)
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


@pytest.fixture(scope="module")
def newest(server: Pair, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for what concerns Ansible and not the generation of the daemon."""
    programs = daemons.unpack("0.25", tmp_path_factory.mktemp("buildkit-newest"))
    with daemons.run(programs, tmp_path_factory.mktemp("newest"), pair=server, ca=authority.path) as running:
        yield running


class Play:
    """Tasks in a playbook, run by ansible-playbook, so with the action plugin.

    :param tasks: name to the options of the module, with the keywords of the task under C(task)
    """

    def __init__(self, directory: Path, tasks: dict[str, dict[str, Any]]) -> None:
        directory.mkdir(exist_ok=True)
        self._result = directory / "results"
        self._names = list(tasks)
        steps = []
        for number, (name, options) in enumerate(tasks.items()):
            keywords = options.pop("task", {})
            module = {"buildfarm.buildkit.buildkit_drain": {"poll": 0.1, "connect_timeout": LONG, **options}}
            steps.append({"name": name, "register": f"result_{number}", "ignore_errors": True, **module, **keywords})
        content = ", ".join(f"result_{number}" for number in range(len(tasks)))
        copy = {"content": f"{{{{ [{content}] }}}}", "dest": str(self._result)}
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": [*steps, {"name": "Write the results", "ansible.builtin.copy": copy, "no_log": True}],
        }
        (directory / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", str(directory / "play.yml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT), "PYTHONUNBUFFERED": "1"},
        )
        self._lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.append((time.monotonic(), line.rstrip()))

    def wait(self) -> dict[str, dict[str, Any]]:
        """The result of each task."""
        code = self.process.wait(900)
        self._reader.join()
        self.process.stdout.close()
        assert code == 0, self.output
        return dict(zip(self._names, json.loads(self._result.read_text(encoding="utf-8"))))

    @property
    def output(self) -> str:
        """All that was printed."""
        return "\n".join(line for _when, line in self._lines)

    def said(self, task: str) -> list[tuple[float, str]]:
        """The lines that say how it goes with a task, and when each came."""
        found: dict[str, list[tuple[float, str]]] = {}
        current = ""
        for when, line in self._lines:
            header = re.match(r"TASK \[(.+)\] \*", line)
            current = header[1] if header else current
            if line.startswith("buildkit_drain: "):
                found.setdefault(current, []).append((when, line))
        return found.get(task, [])


def test_progress_is_shown_while_it_waits(newest: Daemon, tmp_path: Path) -> None:
    """Lines come while the build runs, and the result is one of a single wait, for the idle time too."""
    tasks = {
        "busy": {"address": newest.unix, "progress": 1},
        # More than one call is needed to see it idle for so long; together they do.
        "idle": {"address": newest.unix, "progress": 1, "idle_for": 4},
    }
    with builds.running(newest, tmp_path / "build") as client:
        run = Play(tmp_path / "play", tasks)
        until(lambda: len(run.said("busy")) >= 3 or run.process.poll() is not None, "three lines on how it goes")
        stopped = time.monotonic()
        client.terminate()
        client.wait()
        results = run.wait()
    lines = run.said("busy")
    assert len([when for when, _line in lines if when <= stopped]) >= 3
    for _when, line in lines:
        assert re.fullmatch(rf"buildkit_drain: {newest.unix}: 1 build runs, for .+; waited .+", line)
    busy, idle = results["busy"], results["idle"]
    assert (busy["failed"], busy["changed"], busy["drained"]) == (False, False, True)
    [found] = busy["daemons"]
    assert len(found["builds_seen"]) == 1
    assert found["waited_seconds"] >= stopped - lines[0][0]
    assert busy["summary"][0].startswith(f"{newest.unix}: no build runs; waited ")
    assert idle["drained"] is True
    assert idle["daemons"][0]["idle_seconds"] >= 4
    assert run.said("idle")
    assert all(re.search(r": no build runs, for .+ now; waited ", line) for _when, line in run.said("idle"))


def test_time_out_check_mode_and_silence(newest: Daemon, tmp_path: Path) -> None:
    """What the module promises holds when the action plugin calls it again and again, or only once."""
    address = {"address": newest.unix}
    fleet = [{"address": newest.unix}, {"address": NOBODY}, {"address": newest.tcp}]
    go_on = {"on_timeout": "continue", "timeout": 2, "progress": 1}
    tasks = {
        "late": {**address, "timeout": 4, "progress": 1},
        "fleet": {"daemons": fleet, **go_on},
        "check": {**address, "idle_for": 600, "task": {"check_mode": True}},
        "background": {**address, **go_on, "task": {"async": 120, "poll": 1}},
        "secret": {**address, **go_on, "task": {"no_log": True}},
        "silent": {**address, **go_on, "progress": 0},
    }
    with builds.running(newest, tmp_path / "build"):
        run = Play(tmp_path / "play", tasks)
        results = run.wait()
    late = results.pop("late")
    assert late["failed"] is True
    assert late["waited_seconds"] >= 4
    assert len(late["daemons"][0]["builds"]) == 1
    assert "on_timeout: continue" in late["msg"]
    found = results.pop("fleet")
    # The TCP endpoint was given no credentials.
    assert [bool(one["failure"]) for one in found["daemons"]] == [False, True, True]
    assert [len(one["builds"]) for one in found["daemons"]] == [1, 0, 0]
    assert found["msg"].startswith("2 of 3 daemons not drained:")
    for name, result in results.items():
        assert (result["failed"], result["drained"]) == (False, False), name
        assert len(result["daemons"][0]["builds"]) == 1
        assert run.said(name) == [], name
    assert results["check"]["waited_seconds"] < 600
    assert newest.unix not in run.output.partition("TASK [secret]")[2].partition("TASK [silent]")[0]


def test_bad_options_are_refused_by_the_module(tmp_path: Path) -> None:
    """The action plugin leaves it to the module to say what is wrong."""
    cases = {
        "timeout": {"address": NOBODY, "timeout": "soon"},
        "idle_for is 20 and timeout is 10": {"address": NOBODY, "idle_for": 20, "timeout": 10},
        "could not parse": {"daemons": "x"},
        "at least one address": {"daemons": []},
        "Unsupported parameters": {"address": NOBODY, "pol": 3},
        "value of on_timeout must be one of": {"address": NOBODY, "on_timeout": "go on"},
    }
    for message, result in Play(tmp_path, cases).wait().items():
        assert result["failed"] is True
        assert message in result["msg"]
