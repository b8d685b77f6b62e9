# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools say while they work, and how they run the commands that take long.

Everything goes to stderr: stdout belongs to a tool's result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator, Mapping, NoReturn, Sequence

TAIL_LINES = 20
HEARTBEAT_S = 10.0
_COLOURS = {"green": "32", "red": "31", "yellow": "33"}


class ToolError(Exception):
    """A failure that a user can act on; `code` is the tool's exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class CommandFailed(ToolError):
    """A command ended with an error; its log's last lines are part of the message."""


def is_tty() -> bool:
    """Tell whether a person watches stderr."""
    return sys.stderr.isatty()


def colour(text: str, name: str) -> str:
    """Return `text` in a colour, or as it is where colours are not wanted (https://no-color.org)."""
    if not is_tty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[name]}m{text}\033[0m"


def say(message: str) -> None:
    """Print one line of progress."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a line that must not be overlooked."""
    say(colour("warning: " + message, "yellow"))


def fit(text: str, width: int) -> str:
    """Cut `text` to `width` columns."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def last_line(log: Path) -> str:
    """Return the last line that a command wrote to its log, without control characters; empty before the first."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(stream.tell() - 2048, 0))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    if not lines or lines[-1].startswith("$ "):
        return ""
    return "".join(char for char in lines[-1] if char.isprintable())


def tail(log: Path, *, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    with log.open(errors="replace") as stream:
        return "".join(deque(stream, maxlen=lines)).rstrip()


class Ticker:
    """Shows that a step still moves: one updating line on a terminal, else a line every ten seconds."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.monotonic()
        self._next = self.start + HEARTBEAT_S
        if not is_tty():
            say(f"{title} ...")

    @property
    def elapsed(self) -> int:
        """Seconds since the step began."""
        return round(time.monotonic() - self.start)

    def tick(self, detail: str = "") -> None:
        """Show the seconds that passed, and `detail`."""
        text = f"{self.title}: {self.elapsed} s" + (f"  {detail}" if detail else "")
        if is_tty():
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + fit(text, width), end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next:
            self._next += HEARTBEAT_S
            say("  " + fit(text, 110))

    def done(self, *, ok: bool = True) -> None:
        """End the step."""
        mark = colour("ok", "green") if ok else colour("failed", "red")
        say(("\r\033[K" if is_tty() else "") + f"{self.title}: {mark} ({self.elapsed} s)")


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal that ends this tool wait until the end of the block: what is started there is known by then.

    Commands do not notice: a handler does not outlive exec.
    """
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda number, _frame: caught.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    for caught_one in caught:
        ours[signal.Signals(caught_one)](caught_one, None)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a command that is still running: politely, then not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(
    title: str,
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Run a command that takes a while, with its output in `log`, and show that it moves.

    Raises CommandFailed with the end of the log and `hint` when it fails. The command dies with this
    process, whatever ends it (setpriv's pdeathsig).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ticker = Ticker(title)
    with log.open("ab") as output, contextlib.ExitStack() as afterwards:
        output.write(f"\n# {title}\n$ {' '.join(argv)}\n".encode())
        output.flush()
        with uninterrupted():
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
            )
            afterwards.callback(end, process)
        while True:
            try:
                code = process.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                ticker.tick(last_line(log))
    ticker.done(ok=code == 0)
    if code:
        raise CommandFailed(
            f"{title} failed (exit code {code}). The last lines of {log}:\n\n{tail(log)}\n"
            + (f"\nWhat to try: {hint}" if hint else "")
        )


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End as on Ctrl-C, so that everything is cleaned up."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(function: Callable[[], None]) -> NoReturn:
    """Run a tool; print a failure that it expected as a message, never as a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    try:
        function()
    except ToolError as error:
        say(colour("error: ", "red") + str(error))
        sys.exit(error.code)
    except KeyboardInterrupt:
        say("\ninterrupted; what was half done has been removed")
        sys.exit(130)
    sys.exit(0)
