# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_process, run as Ansible runs it, with real processes."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.host import stand_in
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until

Run = t.Callable[..., Outcome]


class Place:
    """Where the daemon of a test has its files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pid_file = directory / "run" / "daemon.pid"
        self.log = directory / "log" / "daemon.log"
        self.unix = directory / "daemon.sock"

    def recorded(self) -> dict[str, t.Any]:
        """What the pid file says."""
        return json.loads(self.pid_file.read_text())

    def started_last(self) -> int:
        """The number of the stand-in that was started last, whether or not it is still there."""
        return int(Path(f"{self.unix}.pid").read_text())

    def started(self) -> list[int]:
        """The same, or nothing when none has got that far."""
        return [self.started_last()] if Path(f"{self.unix}.pid").exists() else []


@pytest.fixture
def place(tmp_path: Path) -> t.Iterator[Place]:
    """A directory of its own; nothing that ran there stays."""
    here = Place(tmp_path)
    with stand_in.ended_afterwards(here.started):
        yield here


@pytest.fixture
def run(place: Place) -> Run:
    """A function that runs the module there."""

    def once(state: str = "started", *manners: str, check: bool = False, **options: t.Any) -> Outcome:
        wanted = {
            "argv": stand_in.argv(place.unix, *manners),
            "pid_file": str(place.pid_file),
            "log_file": str(place.log),
            "ready_socket": str(place.unix),
            "state": state,
        }
        given = {name: value for name, value in {**wanted, **options}.items() if value is not None}
        return run_module("buildkitd_process", given, check=check, diff=True)

    return once


def test_start_again_restart_and_stop(run: Run, place: Place) -> None:
    """Started once, left alone, restarted when asked, stopped once; the pid file tells of it."""
    first = run()
    assert (first.result["changed"], first.result["pid"]) == (True, place.started_last())
    assert place.recorded() == {
        "pid": first.result["pid"],
        "start_time": int(Path(f"/proc/{first.result['pid']}/stat").read_text().split()[21]),
        "executable": stand_in.PYTHON,
    }
    assert first.result["diff"] == {"before": "buildkitd: stopped\n", "after": "buildkitd: running\n"}
    again = run()
    assert (again.result["changed"], again.result["pid"]) == (False, first.result["pid"])
    restarted = run("restarted")
    assert restarted.result["changed"]
    assert not stand_in.alive(first.result["pid"])
    assert stand_in.alive(restarted.result["pid"])
    stopped = run("stopped")
    assert (stopped.result["changed"], stopped.result["pid"]) == (True, 0)
    assert not stand_in.alive(restarted.result["pid"])
    assert not place.pid_file.exists()
    assert run("stopped").result["changed"] is False


def test_files_are_private_whatever_the_mask(run: Run, place: Place) -> None:
    """Log and pid file, and the directories that are made for them."""
    before = os.umask(0)
    try:
        run()
    finally:
        os.umask(before)
    for path, mode in ((place.pid_file, 0o600), (place.log, 0o600), (place.pid_file.parent, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE(place.log.parent.stat().st_mode) == 0o700


def test_the_daemon_does_not_hang_on_the_module(run: Run, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a session and a directory of its own, the log for output, and only the environment that it was given."""
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    pid = run(environment={"ANSWER": 42}).result["pid"]
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null", *[str(place.log)] * 2]
    environment = proc.environment(pid)
    assert sorted(environment) == ["ANSWER", "HOME", "PATH"]
    assert (environment["ANSWER"], environment["HOME"]) == ("42", pwd.getpwuid(os.getuid()).pw_dir)
    given = run("restarted", environment={"PATH": "/bin", "HOME": "/none"}).result["pid"]
    assert proc.environment(given) == {"PATH": "/bin", "HOME": "/none"}


def test_variables_from_a_file(run: Run, place: Place, tmp_path: Path) -> None:
    """A secret among them is not in the output; a file that is not there is none."""
    (tmp_path / "proxy.env").write_text("# a proxy\nHTTPS_PROXY=http://user:s3cret@proxy.example.com:3128/?a=b\n")
    started = run(environment={"PATH": "/bin"}, environment_file=f"{tmp_path}/proxy.env")
    assert proc.environment(started.result["pid"])["HTTPS_PROXY"] == "http://user:s3cret@proxy.example.com:3128/?a=b"
    assert "s3cret" not in started.output
    without = run("restarted", environment={"PATH": "/bin", "HOME": "/"}, environment_file=f"{tmp_path}/none").result
    assert proc.environment(without["pid"]) == {"PATH": "/bin", "HOME": "/"}


def test_the_log_is_kept_over_restarts(run: Run, place: Place) -> None:
    """What the last one said is there when one looks for why it ended."""
    run()
    run("restarted")
    assert place.log.read_text() == "I was started\n" * 2


@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
@pytest.mark.parametrize("runs", [False, True])
def test_check_mode_changes_nothing_and_predicts(run: Run, place: Place, state: str, runs: bool) -> None:
    """The prediction is what the real run then says."""
    pid = run().result["pid"] if runs else 0
    before = snapshot(place.directory)
    predicted = run(state, check=True)
    assert {path: before[path] for path in before if "sock" not in path} == {
        path: content for path, content in snapshot(place.directory).items() if "sock" not in path
    }
    assert not runs or stand_in.alive(pid)
    real = run(state)
    assert predicted.result["changed"] is real.result["changed"]
    assert predicted.result["diff"] == real.result["diff"]


def test_a_daemon_that_ends_at_once_is_an_error_with_the_end_of_its_log(run: Run, place: Place) -> None:
    """No pid file, no process, and the lines that matter."""
    outcome = run("started", "fails")
    assert outcome.failed
    assert "ended with 1" in outcome.message
    assert "could not lock the root, another instance running?" in outcome.message
    assert "line 39" in outcome.message
    assert "line 20\n" not in outcome.message
    assert not place.pid_file.exists()
    assert not stand_in.alive(place.started_last())


def test_a_daemon_that_never_answers_is_ended(run: Run, place: Place) -> None:
    """After the time that it was given."""
    for limit in (1, 5, 25):  # in which it has to begin with it at least
        outcome = run("started", "silent", start_timeout=limit)
        if Path(f"{place.unix}.pid").exists():
            break
    assert f"did not answer on {place.unix} within {limit} s" in outcome.message
    assert str(place.log) in outcome.message
    assert not place.pid_file.exists()
    assert not stand_in.alive(place.started_last())


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
def test_somebody_elses_daemon_on_the_socket_is_named_and_left_alone(
    run: Run, place: Place, state: str, check: bool
) -> None:
    """Nothing is started beside it, and nothing is stopped."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.unix))
        other.listen()
        outcome = run(state, argv=["/bin/sleep", "60"], check=check)
    assert outcome.failed is (state != "stopped")
    if outcome.failed:
        assert f"process {os.getpid()} ({stand_in.PYTHON}), which is not /bin/sleep. It was left" in outcome.message
    else:
        assert outcome.result["changed"] is False
    assert not place.log.exists()
    assert not place.pid_file.exists()


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
@pytest.mark.parametrize("pid_file", ["none", "stale"])
def test_our_daemon_without_a_pid_file_is_found(run: Run, place: Place, state: str, check: bool, pid_file: str) -> None:
    """It is recorded, stopped or restarted as if nothing had happened to its pid file, and never forgotten."""
    pid = run().result["pid"]
    stale = json.dumps({**place.recorded(), "start_time": 1})
    place.pid_file.unlink()
    if pid_file == "stale":
        place.pid_file.write_text(stale)
    outcome = run(state, check=check)
    assert outcome.result["changed"]
    assert outcome.result["diff"]["before"] == "buildkitd: running\n"
    if check:
        assert stand_in.alive(pid)
        assert (place.pid_file.read_text() if place.pid_file.exists() else "") == (stale if pid_file == "stale" else "")
        return
    assert stand_in.alive(pid) is (state == "started")
    assert place.pid_file.exists() is (state != "stopped")
    if state == "started":
        assert (outcome.result["pid"], place.recorded()["pid"]) == (pid, pid)
        assert place.log.read_text() == "I was started\n"
        assert run().result["changed"] is False


def test_a_program_that_runs_another_one_is_not_left_behind(run: Run, place: Place) -> None:
    """A wrapper never becomes the daemon's program, so it could not be told apart later: it is an error now."""
    wrapper = place.directory / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nexec {' '.join(stand_in.argv(place.unix))}\n")
    wrapper.chmod(0o755)
    outcome = run(argv=[str(wrapper)])
    assert outcome.failed
    assert not place.pid_file.exists()
    assert not any(map(stand_in.alive, place.started()))


def test_a_program_that_is_not_there(run: Run, place: Place) -> None:
    """One clear message."""
    outcome = run(argv=[str(place.directory / "none")])
    assert f"Starting {place.directory / 'none'} failed: " in outcome.message
    assert not place.pid_file.exists()


def test_sigkill_comes_only_after_the_time_to_end(run: Run, place: Place) -> None:
    """A daemon that drains is given its time, and no more."""
    for limit in (1, 5, 25):  # in which it has to answer at least
        pid = run("started", "stubborn").result["pid"]
        began = time.monotonic()
        assert run("stopped", stop_timeout=limit).result["changed"]
        assert time.monotonic() - began >= limit
        assert not stand_in.alive(pid)
        if "I am busy" in place.log.read_text():
            break
    assert "I am busy" in place.log.read_text()


def test_what_a_killed_daemon_started_is_killed_with_it(run: Run, place: Place) -> None:
    """A build step in a session of its own, which nobody else would end; others live on."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as bystander:
        run("started", "stubborn", "building")
        step = int(Path(f"{place.unix}.step").read_text())
        assert stand_in.alive(step)
        assert run("stopped", stop_timeout=1).result["changed"]
        until(lambda: not stand_in.alive(step), "the end of the step")
        assert bystander.poll() is None
        bystander.kill()


def test_a_daemon_that_ends_in_time_is_not_waited_for(run: Run) -> None:
    """Stopping takes what it takes, not the limit, which is longer than any module of a test may run."""
    run()
    assert run("stopped", stop_timeout=3600).result["changed"]


@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
def test_the_number_of_another_process_kills_nobody(run: Run, place: Place, state: str) -> None:
    """A pid file whose number was given to somebody else: that process lives on in every state."""
    with subprocess.Popen(["sleep", "600"]) as bystander:
        place.pid_file.parent.mkdir()
        place.pid_file.write_text(json.dumps({"pid": bystander.pid, "start_time": 1, "executable": "/usr/bin/sleep"}))
        outcome = run(state)
        assert outcome.result["changed"] is (state != "stopped")
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
@pytest.mark.parametrize("check", [False, True])
def test_a_corrupt_pid_file_is_an_error(run: Run, place: Place, state: str, check: bool) -> None:
    """Nothing is killed or started, and the message says what to do."""
    place.pid_file.parent.mkdir()
    place.pid_file.write_text(str(os.getpid()))
    outcome = run(state, check=check)
    assert "nothing was killed. Stop that daemon by hand and remove the file" in outcome.message
    assert "Traceback" not in outcome.output
    assert place.pid_file.read_text() == str(os.getpid())
    assert not place.unix.exists()


def test_a_daemon_that_was_killed_is_started_again(run: Run) -> None:
    """Its pid file is no daemon."""
    pid = run().result["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not stand_in.alive(pid), "the end of the daemon")
    outcome = run()
    assert outcome.result["changed"]
    assert stand_in.alive(outcome.result["pid"])


@pytest.mark.parametrize("option", ["argv", "log_file", "ready_socket"])
def test_what_starting_needs_is_asked_for(run: Run, option: str) -> None:
    """Each is named when it is missing; stopping needs none of them."""
    assert f"all of the following are missing: {option}" in run(**{option: None}).message
    assert not run("stopped", **{option: None}).failed
