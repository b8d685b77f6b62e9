# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How jobs run side by side, and what is seen of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Mapping

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until

# A job notes its begin and its end in the file "times". Its name says how it ends, or until what begins it lasts.
COMMAND = """#!/bin/sh
cd "$(dirname "$0")"
echo "$1 begins" >>times
echo "words of $1"
case $1 in
  until-*) until grep -q "^${1#until-} begins" times; do sleep 0.05; done ;;
  endless*) trap 'echo "$1 cleans up" >>times; kill $!; exit 1' INT; echo $$ >pid; sleep 600 & wait $! ;;
  bad* | molecule*) cat "$1.txt"; exit 3 ;;
  mute*) echo "its last words"; exit 3 ;;
esac
echo "$1 ends" >>times
"""
# What happens to the tool right after it has started a job, and before it knows.
AT_ONCE = """
import pathlib, signal, subprocess
class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        pathlib.Path(__file__).with_name("job").write_text(str(self.pid))
        signal.raise_signal(signal.SIGTERM)
subprocess.Popen = Interrupted
"""
SAID = {
    "bad": "\033[31mE   assert 1\033[0m\nE    more\nFAILED a_test.py::one\nERROR: the other\nother words\n",
    "molecule": "  │ FAILED - RETRYING: x\n  \033[2m│\033[0m FAILED b_test.py::two\n  │ fatal: [a host]: x\n  │ word\n",
}


def start(directory: Path, *jobs: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the tool with these jobs."""
    import run_jobs

    command = directory / "command"
    command.write_text(COMMAND)
    command.chmod(0o755)
    for name, text in SAID.items():
        (directory / f"{name}.txt").write_text(text)
    return subprocess.Popen(
        [sys.executable, run_jobs.__file__, str(directory / "logs"), str(command), *jobs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, output and errors."""
    output, errors = process.communicate(timeout=LONG)
    return process.returncode, output, errors


def times(directory: Path) -> list[str]:
    """What the jobs noted, in its order."""
    return (directory / "times").read_text().splitlines()


def test_two_jobs_run_at_once_and_no_third(tmp_path: Path) -> None:
    """The third begins when the first of the two has ended; the exit code is 0, the results are in the order given."""
    code, output, errors = finish(start(tmp_path, "until-three", "two", "three"))
    assert (code, errors) == (0, "")
    assert times(tmp_path).index("three begins") > times(tmp_path).index("two ends")
    assert times(tmp_path).index("three begins") < times(tmp_path).index("until-three ends")
    assert [line.split(" (")[0] for line in output.splitlines()[-3:]] == ["until three: ok", "two: ok", "three: ok"]


def test_the_output_of_each_is_shown_whole_and_kept(tmp_path: Path) -> None:
    """Below its name, followed by its result."""
    _code, output, _errors = finish(start(tmp_path, "until-two", "two"))
    assert "==> two\nwords of two\ntwo: ok (" in output
    assert (tmp_path / "logs" / "two.log").read_text() == "words of two\n"


def test_one_failure_fails_all_and_stops_only_what_waits_for_it(tmp_path: Path) -> None:
    """What waits for a failed job is not run, nor what waits for that; the rest is."""
    code, output, errors = finish(start(tmp_path, "bad", "waiting@bad", "next@waiting", "good"))
    assert code == 1
    assert sorted(times(tmp_path)) == ["bad begins", "good begins", "good ends"]
    results = output.partition("\n\nWhat failed in ")[0].splitlines()[-4:]
    assert [line.split(" (")[0] for line in results] == [
        "bad: FAILED",
        "waiting: not run, since bad failed",
        "next: not run, since waiting failed",
        "good: ok",
    ]
    assert "bad, waiting, next failed" in errors
    assert "Traceback" not in errors


def test_what_failed_is_said_again_at_the_end(tmp_path: Path) -> None:
    """By the lines that name it, without colour; by the last ones, where none does."""
    _code, output, _errors = finish(start(tmp_path, "bad", "two", "molecule", "mute"))
    end = output.partition("\nWhat failed in ")[2].splitlines()
    assert end == [
        *("bad:", "  E   assert 1", "  FAILED a_test.py::one", "  ERROR: the other", ""),
        *("What failed in molecule:", "  FAILED b_test.py::two", "  fatal: [a host]: x", ""),
        *("What failed in mute:", "  words of mute", "  its last words"),
    ]


def test_what_waits_begins_after_what_it_waits_for(tmp_path: Path) -> None:
    """Even when a lane is free meanwhile; others use the lane."""
    code, _output, _errors = finish(start(tmp_path, "until-light", "real@until-light", "light"))
    assert code == 0
    assert times(tmp_path).index("real begins") > times(tmp_path).index("until-light ends")
    assert times(tmp_path).index("light begins") < times(tmp_path).index("until-light ends")


def test_an_unknown_first_job_is_refused(tmp_path: Path) -> None:
    """A job that would wait for ever."""
    code, _output, errors = finish(start(tmp_path, "real@bed"))
    assert code == 1
    assert "real waits for bed, which must stand before it" in errors


def test_an_end_from_outside_ends_the_jobs(tmp_path: Path) -> None:
    """They get the signal of Ctrl-C, so that they clean up, and none is left."""
    process = start(tmp_path, "endless")
    pid = tmp_path / "pid"
    until(lambda: pid.exists() and pid.read_text().strip(), "the job")
    process.send_signal(signal.SIGTERM)
    code, _output, errors = finish(process)
    assert code == 130
    assert "interrupted" in errors
    assert times(tmp_path) == ["endless begins", "endless cleans up"]
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


def test_a_job_that_has_just_begun_is_ended_too(tmp_path: Path) -> None:
    """The signal came before the tool had noted what it started."""
    (tmp_path / "sitecustomize.py").write_text(AT_ONCE)
    _code, _output, errors = finish(start(tmp_path, "endless", env={**os.environ, "PYTHONPATH": str(tmp_path)}))
    assert "interrupted" in errors
    assert not os.path.exists(f"/proc/{(tmp_path / 'job').read_text()}")
