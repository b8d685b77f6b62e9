# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run jobs side by side, and show the output of each when it has ended.

  run_jobs.py DIRECTORY COMMAND JOB...

Each job is `COMMAND JOB`, with its output in DIRECTORY/JOB.log. They begin in the order given, as many at once as
there are lanes. `JOB@FIRST` begins only when the job FIRST has ended well. Every 20 seconds a line says what runs and
what it said last; the end is one line for each job, and what failed. Exit code 1: a job failed, or could not begin.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import _progress

LANES = 2  # where the command line does not say
STOP_LIMIT_S = 20.0
_POLL_S = 0.1
_SHOWN = 14  # lines of one job that say what failed
# What pytest and ansible-test begin their lines with, and what stands somewhere in those of Ansible.
_FAILURE = re.compile(r"(FAILED|ERROR)[: ](?!- RETRYING)|.*fatal: \[")
_REASON = "E   "  # pytest's, whose first line of several says what was expected
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MARGIN = re.compile(r"^ *│ ?", re.MULTILINE)  # of what Molecule runs


@dataclass
class Job:
    """One command, and what became of it."""

    name: str
    first: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: int = 0
    outcome: str = ""  # ok, FAILED, not run; empty until it has ended

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name.replace("-", " ")

    def start(self, command: str) -> None:
        """Begin, in a session of its own, so that all of it can be stopped."""
        self.began = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [command, self.name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, code: int) -> None:
        """Note how it ended, and show what it said."""
        self.process = None
        self.seconds = round(time.monotonic() - self.began)
        self.outcome = "FAILED" if code else "ok"
        print(f"\n==> {self.title}", flush=True)
        sys.stdout.buffer.write(self.log.read_bytes())
        print(self.result, flush=True)

    @property
    def failures(self) -> list[str]:
        """The lines of its output that say what failed; the last ones, where none does."""
        if self.outcome != "FAILED":
            return []
        text = _MARGIN.sub("", _COLOUR.sub("", self.log.read_text(errors="replace")))
        lines = [line.rstrip() for line in text.splitlines()]
        found = [
            line
            for before, line in zip(["", *lines], lines)
            if _FAILURE.match(line) or (line.startswith(_REASON) and not before.startswith(_REASON))
        ]
        found = found or [line for line in lines if line][-3:]
        return [_progress.fit(line, 300) for line in found[-_SHOWN:]]

    @property
    def result(self) -> str:
        """One line."""
        if self.outcome == "not run":
            return f"{self.title}: not run, since {self.first} failed"
        return f"{self.title}: {self.outcome} ({self.seconds} s)"


def parse(words: Sequence[str], logs: Path) -> list[Job]:
    """Read the jobs from the command line."""
    jobs: list[Job] = []
    for word in words:
        name, _at, first = word.partition("@")
        if first and first not in [job.name for job in jobs]:
            raise _progress.ToolError(f"{name} waits for {first}, which must stand before it")
        jobs.append(Job(name, first, logs / f"{name}.log"))
    return jobs


def run_all(jobs: Sequence[Job], command: str, lanes: int) -> None:
    """Run all jobs; return when each has an outcome."""
    known = {job.name: job for job in jobs}
    waiting = list(jobs)
    running: list[Job] = []
    said = time.monotonic()
    try:
        while waiting or running:
            for job in list(running):
                code = job.process.poll() if job.process else None
                if code is not None:
                    running.remove(job)
                    job.end(code)
                    said = time.monotonic()
            for job in list(waiting):
                before = known[job.first].outcome if job.first else "ok"
                if before in ("FAILED", "not run"):
                    job.outcome = "not run"
                    waiting.remove(job)
                elif before and len(running) < lanes:
                    with _progress.uninterrupted():
                        job.start(command)
                        running.append(job)
                    waiting.remove(job)
            if time.monotonic() - said >= 2 * _progress.HEARTBEAT_S:
                said = time.monotonic()
                for job in running:
                    words = f"{job.title}: {round(said - job.began)} s  {_progress.last_line(job.log)}"
                    print("  " + _progress.fit(words, 110), flush=True)
            time.sleep(_POLL_S)
    finally:
        stop(running)


def stop(jobs: Sequence[Job]) -> None:
    """Stop jobs with all that they started: as Ctrl-C does, which lets tests clean up, then without asking."""
    for number in (signal.SIGINT, signal.SIGKILL):
        alive = [job.process for job in jobs if job.process and job.process.poll() is None]
        for process in alive:
            os.killpg(process.pid, number)
        deadline = time.monotonic() + STOP_LIMIT_S
        while time.monotonic() < deadline and any(process.poll() is None for process in alive):
            time.sleep(_POLL_S)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=LANES, help="how many jobs run at once")
    parser.add_argument("logs", metavar="DIRECTORY", type=Path, help="where each job's output goes")
    parser.add_argument("command", metavar="COMMAND", help="the program that gets a job's name")
    parser.add_argument("jobs", metavar="JOB", nargs="+")
    options = parser.parse_args(arguments)
    options.logs.mkdir(parents=True, exist_ok=True)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; jobs must hear it
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
    jobs = parse(options.jobs, options.logs)
    run_all(jobs, options.command, options.lanes)
    print()
    for job in jobs:
        print(job.result)
    for job in jobs:
        if job.failures:
            print(f"\nWhat failed in {job.title}:")
            print("\n".join(f"  {line}" for line in job.failures))
    failed = [job.title for job in jobs if job.outcome != "ok"]
    if failed:
        sys.stdout.flush()
        raise _progress.ToolError(f"{', '.join(failed)} failed; their output is above, and in {options.logs}")


if __name__ == "__main__":
    _progress.main(run)
