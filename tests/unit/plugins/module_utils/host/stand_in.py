# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real process that behaves as buildkitd does towards whoever starts and stops it, or fails to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

PYTHON = os.path.realpath(sys.executable)


def argv(unix: Path, *manners: str) -> list[str]:
    """How it is started; ``manners`` as :func:`_main` knows them."""
    return [PYTHON, "-S", "-E", __file__, str(unix), *manners]


def alive(pid: int) -> bool:
    """Whether there is such a process, which is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second: it went between opening and reading
        return False
    return state not in ("Z", "X")


@contextlib.contextmanager
def ended_afterwards(pids: t.Callable[[], t.Iterable[int]]) -> t.Iterator[None]:
    """Leave none of the processes behind that ``pids`` tells of at the end, whatever the test found out."""
    try:
        yield
    finally:
        for pid in pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _main() -> None:
    unix, manners = sys.argv[1], sys.argv[2:]
    print("I was started", flush=True)
    Path(f"{unix}.pid.part").write_text(str(os.getpid()), encoding="ascii")
    Path(f"{unix}.pid.part").rename(f"{unix}.pid")  # whoever finds it finds all of it
    if "stubborn" in manners:
        signal.signal(signal.SIGTERM, lambda *_: print("I am busy", flush=True))
    if "building" in manners:
        step = subprocess.Popen(["sleep", "60"], start_new_session=True)
        Path(f"{unix}.step").write_text(str(step.pid), encoding="ascii")
    if "fails" in manners:
        for number in range(40):
            print(f"line {number}")
        sys.exit("could not lock the root, another instance running?")
    if "silent" not in manners:
        Path(unix).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(unix)
        listener.listen()
    while True:
        time.sleep(0.1)


if __name__ == "__main__":
    _main()
