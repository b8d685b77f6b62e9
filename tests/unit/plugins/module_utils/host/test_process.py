# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pid file: whom it names, and whom it does not."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import subprocess
import sys
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, process
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.host import stand_in
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until


@pytest.fixture
def bystander() -> t.Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's daemon."""
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def record(path: Path, identity: proc.ProcessIdentity, **forged: t.Any) -> Path:
    """A pid file, with some of its contents changed."""
    path.write_text(json.dumps({**dataclasses.asdict(identity), **forged}))
    return path


def identity_of(running: subprocess.Popen[bytes]) -> proc.ProcessIdentity:
    """Who it is."""
    identity = proc.identify(running.pid)
    assert identity is not None
    return identity


def test_the_recorded_process_is_found_and_stopped(bystander: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """All three of number, start time and executable match."""
    pid_file = record(tmp_path / "pid", identity_of(bystander))
    assert process.running(str(pid_file)) == identity_of(bystander)
    assert process.stop(str(pid_file), timeout=120) is True
    assert bystander.wait() == -15
    assert not pid_file.exists()


@pytest.mark.parametrize("forged", [{"start_time": 1}, {"executable": "/usr/local/bin/buildkitd"}])
def test_a_number_that_was_given_to_another_process_kills_nobody(
    bystander: subprocess.Popen[bytes], tmp_path: Path, forged: dict[str, t.Any]
) -> None:
    """The start time or the executable differs: it lives on, and the stale file goes."""
    pid_file = record(tmp_path / "pid", identity_of(bystander), **forged)
    assert process.running(str(pid_file)) is None
    assert process.stop(str(pid_file), timeout=120) is False
    assert bystander.poll() is None
    assert not pid_file.exists()


@pytest.mark.parametrize("content", ["", "4711", "[]", "{}", '{"pid": 1, "start_time": "x", "executable": ""}', "\xff"])
def test_a_pid_file_of_somebody_else_is_an_error(
    bystander: subprocess.Popen[bytes], tmp_path: Path, content: str
) -> None:
    """It is neither believed nor removed."""
    pid_file = tmp_path / "pid"
    pid_file.write_text(content.replace("4711", str(bystander.pid)), encoding="latin-1")
    with pytest.raises(HostError, match=r"nothing was killed\. Stop that daemon by hand and remove the file"):
        process.stop(str(pid_file), timeout=1)
    assert bystander.poll() is None
    assert pid_file.exists()


def test_a_pid_file_that_may_not_be_read_is_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may well be ours, so nobody is told to remove it."""

    def denied(*_: t.Any, **__: t.Any) -> t.NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(process, "open", denied, raising=False)
    with pytest.raises(HostError, match=r"failed: Permission denied\. .* Run as root") as caught:
        process.running(str(tmp_path / "pid"))
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "ours"),
    [
        ("lib/2.0.0/bin/daemon", True),
        ("lib/1.0.0/bin/daemon", True),
        ("lib/2.0.0/bin/other", False),
        ("lib/2.0.0/sbin/daemon", False),
        ("elsewhere/2.0.0/bin/daemon", False),
        ("lib/daemon", False),
    ],
)
def test_a_daemon_of_another_version_is_ours(tmp_path: Path, program: str, ours: bool) -> None:
    """The same program, in the same tree, and no other."""
    path, unix = tmp_path / program, str(tmp_path / "unix")
    path.parent.mkdir(parents=True)
    shutil.copy(stand_in.PYTHON, path)
    (tmp_path / "lib").mkdir(exist_ok=True)
    (tmp_path / "lib" / "current").symlink_to("1.0.0")
    wanted = f"{tmp_path}/lib/current/bin/daemon"
    assert process.unrecorded(wanted, unix) is None
    listen = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({unix!r}); s.listen(); time.sleep(600)"
    home = {"PYTHONHOME": sys.base_prefix}
    with subprocess.Popen([str(path), "-S", "-c", listen], env=home) as daemon:
        try:
            until(lambda: process._listening_process(unix), "an open socket")
            if ours:
                assert process.unrecorded(wanted, unix) == identity_of(daemon)
            else:
                with pytest.raises(HostError, match=rf"process {daemon.pid} \({path}\), which is not {wanted}"):
                    process.unrecorded(wanted, unix)
        finally:
            daemon.kill()


def before_exec(one: proc.ProcessIdentity) -> proc.ProcessIdentity:
    """A process as it was while it still had the program of who started it."""
    return dataclasses.replace(one, executable="/usr/bin/starter")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_step_that_becomes_another_program_meanwhile_is_killed_too(
    bystander: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It was seen just before it began the program that it was started for (execve), which no signal stops."""
    with subprocess.Popen(["sleep", "600"]) as step, stand_in.ended_afterwards(lambda: [step.pid]):
        seen = before_exec(identity_of(step))
        monkeypatch.setattr(proc, "descendants", lambda pid: [seen] if pid == bystander.pid else [])
        if how == "killed":
            process.kill_tree(identity_of(bystander))
        else:
            monkeypatch.setattr(process.signal, "SIGTERM", 0)  # a daemon that does not mind it
            process.stop(str(record(tmp_path / "pid", identity_of(bystander))), timeout=0)
        assert bystander.wait(timeout=LONG) == -9
        until(lambda: not stand_in.alive(step.pid), "the end of the step")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_who_waits_for_a_busy_disk_has_time_to_go(
    bystander: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The kernel ends a process that was killed only when what it waits for is done, half a minute later here."""
    now, one = [0.0], identity_of(bystander)
    pid_file = str(record(tmp_path / "pid", one))

    def later(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(process, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=later))
    monkeypatch.setattr(proc, "identify", lambda _pid: one if now[0] < 30 else None)
    monkeypatch.setattr(proc, "descendants", lambda _pid: [])
    assert (process.kill_tree(one) if how == "killed" else process.stop(pid_file, timeout=1)) == 1
    assert 30 <= now[0] < 31


def test_programs_of_the_system_are_in_no_tree_of_versions() -> None:
    """/usr is no version of the directory above it."""
    assert process._of_version("/usr/bin/daemon") != process._of_version("/opt/bin/daemon")


def test_no_pid_file_is_no_daemon(tmp_path: Path) -> None:
    """There is nothing to stop."""
    assert process.running(str(tmp_path / "pid")) is None
    assert process.stop(str(tmp_path / "pid"), timeout=1) is False
