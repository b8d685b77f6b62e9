# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_kill, run as Ansible runs it, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, process
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.host import stand_in
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until

# A daemon whose step, in a session of its own, goes on starting others; none of them minds SIGTERM.
DAEMON = r"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
step = "import subprocess, time\nwhile True: subprocess.Popen(['sleep', '600']); time.sleep(0.002)"
subprocess.Popen([sys.executable, "-S", "-E", "-c", step], start_new_session=True)
while True: time.sleep(0.1)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> t.Iterator[t.Tuple[subprocess.Popen[bytes], Path]]:
    """A running daemon with a busy step, and its pid file."""
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", DAEMON]) as running:
        until(lambda: len(proc.descendants(running.pid)) >= 5, "what the step starts")
        step = proc.descendants(running.pid)[0].pid

        def started() -> t.Iterator[int]:
            yield step  # who starts others ends first, and then all that it started can be found
            yield running.pid
            yield from in_session(step)

        with stand_in.ended_afterwards(started):
            identity = proc.identify(running.pid)
            assert identity is not None
            process.record(str(tmp_path / "run" / "pid"), identity)
            yield running, tmp_path / "run" / "pid"


def in_session(leader: int) -> t.Iterator[int]:
    """The processes of a session: all that the step started is in the step's, whoever its parent is by now."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.getsid(int(name)) == leader:
                yield int(name)


def run(pid_file: Path, *, check: bool = False) -> Outcome:
    """Run the module."""
    return run_module("buildkitd_kill", {"pid_file": str(pid_file)}, check=check, diff=True)


def test_daemon_and_steps_are_killed_together(daemon: tuple[subprocess.Popen[bytes], Path]) -> None:
    """However many processes a step starts meanwhile; a second run has nothing to do."""
    running, pid_file = daemon
    before = proc.descendants(running.pid)
    outcome = run(pid_file)
    assert outcome.result["changed"]
    assert outcome.result["killed"] >= len(before) + 1
    assert outcome.result["diff"] == {"before": "buildkitd: running\n", "after": "buildkitd: stopped\n"}
    assert running.wait(timeout=LONG) == -signal.SIGKILL
    assert [pid for pid in in_session(before[0].pid) if stand_in.alive(pid)] == []
    again = run(pid_file)
    assert (again.result["changed"], again.result["killed"]) == (False, 0)


def test_check_mode_kills_nobody(daemon: tuple[subprocess.Popen[bytes], Path]) -> None:
    """It says how many it would be."""
    running, pid_file = daemon
    outcome = run(pid_file, check=True)
    assert outcome.result["changed"]
    assert outcome.result["killed"] >= 5
    assert running.poll() is None
    assert stand_in.alive(running.pid)


def test_another_process_of_that_number_lives_on(daemon: tuple[subprocess.Popen[bytes], Path]) -> None:
    """The pid file is stale."""
    running, pid_file = daemon
    pid_file.write_text(pid_file.read_text().replace('"start_time": ', '"start_time": 1'))
    assert run(pid_file).result == {**run(pid_file).result, "changed": False, "killed": 0}
    assert running.poll() is None


@pytest.mark.parametrize("how", [{}, {"unit": "buildkit.service", "pid_file": "/run/pid"}])
def test_exactly_one_way_to_find_it(how: dict[str, str]) -> None:
    """A unit or a pid file."""
    outcome = run_module("buildkitd_kill", how)
    assert outcome.failed
    assert "unit" in outcome.message
    assert "pid_file" in outcome.message
