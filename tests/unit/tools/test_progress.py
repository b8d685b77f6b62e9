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


def start(tmp_path: Path, script: str, *, before: str = "") -> subprocess.Popen[str]:
    """Begin one step in a process of its own, as the tools do; ``before`` is code that comes before it."""
    import _progress

    code = STEP.replace("_progress.main", f"{before}\n_progress.main")
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log"), script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(_progress.__file__).parent), "FORCE_COLOR": "1"},
    )


def test_a_step_shows_that_it_moves(tmp_path: Path) -> None:
    """Without a terminal there are lines, with the command's last words, and no colour; stdout stays empty."""
    seen = tmp_path / "seen"
    lines = []
    with start(tmp_path, f"echo working on it; until [ -e {seen} ]; do sleep 0.05; done") as tool:
        for line in tool.stderr:
            lines.append(line.rstrip("\n"))
            if line.startswith("  Counting: ") and line.endswith("working on it\n"):
                seen.touch()
        assert tool.stdout.read() == ""
    assert tool.returncode == 0
    assert seen.exists()
    assert lines[0] == "Counting ..."
    assert lines[-1].startswith("Counting: ok (")
    assert "\033" not in "".join(lines)


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """A failed command's last twenty lines are shown, with the log's place and what to try."""
    with start(tmp_path, "seq 1 50; exit 7") as tool:
        _output, said = tool.communicate()
    assert tool.returncode == 1
    assert "exit code 7" in said
    assert "\n31\n" in said
    assert "\n30\n" not in said
    assert str(tmp_path / "log") in said
    assert "What to try: count again" in said
    assert "Traceback" not in said


def test_an_interrupted_step_takes_its_command_along(tmp_path: Path) -> None:
    """A tool that is told to stop ends its command and says so."""
    ready = tmp_path / "ready"
    with start(tmp_path, f"echo $$ >{ready}.part; mv {ready}.part {ready}; exec sleep 600") as tool:
        while not ready.exists():
            assert tool.poll() is None
        tool.terminate()
        _output, errors = tool.communicate(timeout=120)
    assert tool.returncode == 130
    assert "interrupted" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)


AT_ONCE = """
import signal, subprocess
class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        (Path(sys.argv[1]).parent / "pid").write_text(str(self.pid))
        signal.raise_signal(signal.SIGTERM)
subprocess.Popen = Interrupted
"""


def test_a_command_that_has_just_begun_is_taken_along_too(tmp_path: Path) -> None:
    """The signal came before the tool had noted what it started."""
    with start(tmp_path, "exec sleep 600", before=AT_ONCE) as tool:
        _output, errors = tool.communicate(timeout=120)
    assert tool.returncode == 130
    assert "interrupted" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_only_the_process_that_was_meant_is_stopped() -> None:
    """A process of the same number that started at another time is left alone."""
    import dataclasses

    import _process

    with subprocess.Popen(["sleep", "600"]) as sleeper:
        # Until exec, the child still has this interpreter's executable.
        while not (meant := _process.identify(sleeper.pid)) or not meant.executable.endswith(("sleep", "coreutils")):
            pass
        assert not _process.stop(dataclasses.replace(meant, start=meant.start - 1), timeout=5)
        assert not _process.stop(dataclasses.replace(meant, executable="/usr/bin/other"), timeout=5)
        assert sleeper.poll() is None
        assert _process.stop(meant, timeout=120)
        assert sleeper.wait(timeout=120) == -15
    assert _process.identify(sleeper.pid) is None
