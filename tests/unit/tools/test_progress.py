# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools say, and what they leave alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import sys
from pathlib import Path
import _progress
_progress.HEARTBEAT_S = 0.5
def work():
    _progress.run("Counting", ["sh", "-c", sys.argv[2]], log=Path(sys.argv[1]), hint="count again")
_progress.main(work)
"""


def step(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run one step in a process of its own, as the tools do."""
    import _progress

    env = {**os.environ, "PYTHONPATH": str(Path(_progress.__file__).parent), "FORCE_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path / "log"), script],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def test_a_step_shows_that_it_moves(tmp_path: Path) -> None:
    """Without a terminal there are lines, with the command's last words, and no colour; stdout stays empty."""
    done = step(tmp_path, "echo working on it; sleep 1.6")
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    assert done.stdout == ""
    assert lines[0] == "Counting ..."
    assert any(line.startswith("  Counting: ") and line.endswith("working on it") for line in lines[1:-1])
    assert lines[-1].startswith("Counting: ok (")
    assert "\033" not in done.stderr


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """A failed command's last twenty lines are shown, with the log's place and what to try."""
    done = step(tmp_path, "seq 1 50; exit 7")
    assert done.returncode == 1
    assert "exit code 7" in done.stderr
    assert "\n31\n" in done.stderr
    assert "\n30\n" not in done.stderr
    assert str(tmp_path / "log") in done.stderr
    assert "What to try: count again" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_step_takes_its_command_along(tmp_path: Path) -> None:
    """A tool that is told to stop ends its command and says so."""
    import _progress

    env = {**os.environ, "PYTHONPATH": str(Path(_progress.__file__).parent)}
    ready = tmp_path / "ready"
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            STEP,
            str(tmp_path / "log"),
            f"echo $$ >{ready}.part; mv {ready}.part {ready}; sleep 60",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as tool:
        while not ready.exists():
            assert tool.poll() is None
        tool.terminate()
        _output, errors = tool.communicate(timeout=20)
    assert tool.returncode == 130
    assert "interrupted" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)


def test_only_the_process_that_was_meant_is_stopped() -> None:
    """A process of the same number that started at another time is left alone."""
    import dataclasses

    import _process

    with subprocess.Popen(["sleep", "60"]) as sleeper:
        # Until exec, the child still has this interpreter's executable.
        while not (meant := _process.identify(sleeper.pid)) or not meant.executable.endswith(("sleep", "coreutils")):
            pass
        assert not _process.stop(dataclasses.replace(meant, start=meant.start - 1), timeout=5)
        assert not _process.stop(dataclasses.replace(meant, executable="/usr/bin/other"), timeout=5)
        assert sleeper.poll() is None
        assert _process.stop(meant, timeout=5)
        assert sleeper.wait(timeout=5) == -15
    assert _process.identify(sleeper.pid) is None
