# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts a daemon in a moment in which it builds nothing, or, when none comes in time, as the policy says.

The moment is found on the daemon's own host, and the signal follows its answer at once; see :mod:`watch`. From v0.14 on
SIGTERM lets accepted builds end; before, it kills them.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask, proc, process, sockets
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.line import Line
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.watch import ASK_AGAIN, Watch

GRACEFUL, SKIP, NOW = "graceful", "skip", "now"
# Each for what else there is to say, in :attr:`Outcome.how`.
IDLE, DOWN, ENDING, SKIPPED = "idle", "down", "ending", "skipped"

_POLL = 0.02  # seconds
STARTS = 5.0  # seconds after which a daemon that does not listen is held to be ending, not to be starting
CUT_OFF = 5.0  # seconds for which idle clients may hold up the end of a daemon that builds nothing
_STARTED = 150.0  # seconds for the start, more than the 90 that systemd allows
_FORCED = 2  # how many signals more make buildkitd exit at once; it counts to three


@dataclass(frozen=True)
class Wish:
    """How to restart.

    :param socket: the daemon's unix socket, as the daemon sees it
    :param port: its TCP port; 0 if it has none
    :param hold: whether new clients of that are kept waiting while it ends
    :param policy: what to do at the limit: GRACEFUL, SKIP or NOW; empty for the best that the daemon allows
    :param limit: how long to wait for a moment in which nothing runs, in seconds
    :param waited: how long was waited before, in seconds
    :param stop_timeout: how long accepted builds may take to end after SIGTERM, in seconds
    :param command: what starts the daemon again; empty if the caller does
    :param ending: whether it is known that the daemon was told to end, by a run before that was killed for instance
    """

    socket: str
    port: int = 0
    hold: bool = True
    policy: str = ""
    limit: float = 600.0
    waited: float = 0.0
    stop_timeout: float = 600.0
    command: t.Sequence[str] = ()
    ending: bool = False


@dataclass
class Outcome:
    """What became of it.

    :param how: IDLE, DOWN, ENDING, SKIPPED, or the policy GRACEFUL or NOW
    :param builds: what ran last, by name
    :param problem: why the daemon could not be asked; empty if it could
    :param waited: seconds until the decision
    :param stopped: seconds until it had ended
    """

    how: str
    policy: str
    version: str = ""
    builds: t.List[str] = field(default_factory=list)
    problem: str = ""
    waited: float = 0.0
    stopped: float = 0.0
    killed: bool = False

    @property
    def restarted(self) -> bool:
        """Whether it was, or in check mode would be, restarted."""
        return self.how != SKIPPED

    @property
    def message(self) -> str:
        """The same as a sentence."""
        number = len(self.builds)
        ran = self.problem or f"{number} {'build' if number == 1 else 'builds'} still ran"
        if not self.problem and not number:
            ran = "somebody had just connected each time nothing ran,"
        after = f"after {self.waited:.0f} s"
        if self.how == DOWN:
            return f"It ended by itself, {after}." if self.waited else "It did not run."
        if self.how == ENDING:
            forced = " What it still ran was killed then." if self.killed else ""
            return f"It was ending already; that took {self.stopped:.0f} s more.{forced}"
        if self.how == IDLE:
            forced = " Idle clients held it up, and were cut off." if self.killed else ""
            return f"No build ran; waited {self.waited:.0f} s for that.{forced}"
        if self.how == SKIPPED:
            return (
                f"NOT restarted: {ran} {after}, and the policy is skip. It goes on as it was; what it is to be "
                f"restarted for is in place, and the next run tries again."
            )
        if self.how == GRACEFUL:
            end = "what still held it up was ended" if self.killed else "all of it ended on the old process"
            return f"{ran} {after}; {end}, in {self.stopped:.0f} s more."
        return f"{ran} {after}; killed with all that it ran."


def parse_version(text: str) -> t.Optional[t.Tuple[int, int]]:
    """Major and minor number of a version; None if it names none, as v0.0.0+unknown does not."""
    match = re.match(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text)
    if match is None or match.groups() == ("0", "0", "0"):
        return None
    return int(match.group(1)), int(match.group(2))


def ends_builds(version: str) -> bool:
    """Whether SIGTERM lets the builds of this version end. What is unknown is held to be old."""
    found = parse_version(version)
    return found is not None and found >= (0, 14)


def version_of(daemon: proc.ProcessIdentity, socket: str) -> str:
    """The version of a running daemon, by the directory it was installed into, else by what it says; or empty."""
    parts = daemon.executable.split("/")
    if len(parts) > 3 and parts[-2] == "bin" and parse_version(parts[-3]):
        return parts[-3]
    try:
        with contextlib.closing(Line(daemon.pid, socket)) as line:
            return ask.version(line)
    except HostError:
        return ""


def server(daemon: proc.ProcessIdentity, wish: Wish) -> int:
    """Number of the process that listens: the daemon, or what it started, where it is rootlesskit; 0 if nobody does."""
    if _listens(daemon.pid, wish):
        return daemon.pid
    for one in proc.descendants(daemon.pid):
        if _listens(one.pid, wish):
            return one.pid
    with contextlib.suppress(HostError):  # it may have another name for its socket
        Line(daemon.pid, wish.socket).close()
        return daemon.pid
    return 0


def _listens(pid: int, wish: Wish) -> bool:
    return bool(sockets.local_listening(pid, wish.socket) or sockets.listening(pid, wish.port))


def _serving(daemon: proc.ProcessIdentity, wish: Wish) -> int:
    """The same for a daemon that may be starting. If nobody listens then, it was told to end by a run before."""
    deadline = time.monotonic() + STARTS
    while True:
        pid = server(daemon, wish)
        if pid or time.monotonic() >= deadline or proc.identify(daemon.pid) != daemon:
            return pid
        time.sleep(ASK_AGAIN)


def decide(daemon: t.Optional[proc.ProcessIdentity], wish: Wish, *, look_once: bool = False) -> Outcome:
    """What to do, after waiting for it. Raises HostError for a policy that this daemon does not allow."""
    if daemon is None:
        return Outcome(how=DOWN, policy=wish.policy)
    pid = daemon.pid if wish.ending or wish.policy == NOW else _serving(daemon, wish)
    # Another signal could make a daemon that is ending exit at once, with all that it builds.
    ending = wish.ending or not (pid or proc.identify(daemon.pid) != daemon)
    version = version_of(daemon, wish.socket)
    if wish.policy == GRACEFUL and not ending and not ends_builds(version):
        raise HostError(
            f"The policy graceful was refused: BuildKit {version or 'of unknown version'} kills its builds at SIGTERM, "
            f"which from v0.14 on ends them. Leave the policy out, or choose skip or now."
        )
    policy = wish.policy or (GRACEFUL if ends_builds(version) else SKIP)
    began = time.monotonic()
    watch = Watch(daemon, pid or daemon.pid, wish.socket, wish.port, hold=wish.hold)
    if ending:
        outcome = Outcome(how=ENDING, policy=policy, version=version, waited=wish.waited)
        if not look_once and not _ended(daemon, watch, wish, None, began):
            outcome.killed = True
            process.kill_tree(daemon)
        outcome.stopped = time.monotonic() - began
        return outcome
    try:
        came = watch.look() if look_once else watch.wait(wish.limit)
        gone = not came and proc.identify(daemon.pid) != daemon
        outcome = Outcome(
            how=IDLE if came else DOWN if gone else SKIPPED if policy == SKIP else policy,
            policy=policy,
            version=version,
            builds=watch.builds,
            problem=watch.problem,
            waited=wish.waited + time.monotonic() - began,
        )
        if not look_once and outcome.restarted:
            _stop(daemon, watch, wish, outcome)
    finally:
        watch.close()
    return outcome


def _stop(daemon: proc.ProcessIdentity, watch: Watch, wish: Wish, outcome: Outcome) -> None:
    """End the daemon, as was decided."""
    began = time.monotonic()
    if outcome.how == NOW:
        process.kill_tree(daemon)
        return
    if outcome.how == GRACEFUL:
        # Half of the time, so that what a client that stays connected begins at last has the other half.
        watch.drain(wish.stop_timeout / 2)
        if proc.identify(daemon.pid) != daemon:
            outcome.how, outcome.waited = DOWN, outcome.waited + time.monotonic() - began
    proc.send(daemon, signal.SIGTERM)
    rest = ask.Rest(watch.line) if watch.line else None  # else all that is left is to wait for the daemon
    if not _ended(daemon, watch, wish, rest, began):
        outcome.killed = True
        if rest is None or not rest.none or proc.descendants(watch.pid) or not _force(daemon):
            process.kill_tree(daemon)
    outcome.stopped = time.monotonic() - began


def _ended(daemon: proc.ProcessIdentity, watch: Watch, wish: Wish, rest: t.Optional[ask.Rest], began: float) -> bool:
    """Whether it ends within its time, which began then.

    A stream that a client holds open keeps it from that without end, so it is waited for only as long as it builds, and
    some seconds more. When that is not known, it gets all of its time.
    """
    deadline = began + wish.stop_timeout
    built = time.monotonic()
    last = False  # whether nothing more can come
    held: t.Set[str] = set()
    while proc.identify(daemon.pid) == daemon:
        now = time.monotonic()
        if watch.door.closed and not watch.door.needed:
            watch.door.open()  # who connects now waits for the next daemon
        if rest is None or rest.line.dead:
            time.sleep(_POLL)
        else:
            with contextlib.suppress(HostError):  # then what is known by now is all
                rest.update(_POLL)
            last = rest.line.over
        if rest is None or not rest.none or proc.descendants(watch.pid):
            built = now
        elif rest.line.told and not rest.line.dead:
            before, held = held, sockets.of(watch.pid)
            if held != before and _alone(watch.pid, wish):
                rest.line.close()  # it waits for nobody else
                last = True
        if now >= deadline or (last and now - built >= CUT_OFF):
            return False
    return True


def _alone(pid: int, wish: Wish) -> bool:
    """Whether nobody but us is connected. Who is not yet accepted, and has no number, waits for the next daemon."""
    others = sockets.connections(pid, wish.port) - {"0"}
    return not others and len(sockets.local_connections(pid, wish.socket)) <= 1


def _force(daemon: proc.ProcessIdentity) -> bool:
    """End a daemon that builds nothing any more, as its own command line does; whether that helped."""
    for _more in range(_FORCED):
        proc.send(daemon, signal.SIGTERM)
        time.sleep(_POLL)  # two of the same that wait at the same time are one
    deadline = time.monotonic() + CUT_OFF
    while proc.identify(daemon.pid) == daemon:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def start(command: t.Sequence[str], unit: str = "") -> None:
    """Start the daemon again. Raises HostError with the end of the unit's log when it does not."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_STARTED,
            check=False,
        )
        if done.returncode == 0:
            return
        said = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    raise HostError(f"Starting buildkitd with `{' '.join(command)}` failed: {said}{_log(unit)}")


def _log(unit: str) -> str:
    """The last lines of a unit's log."""
    if not unit:
        return ""
    try:
        done = subprocess.run(
            ["journalctl", "--unit", unit, "--lines", "60", "--output", "cat", "--no-pager"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.splitlines()
    # A program in Go ends with a stack: a line for each function, and an indented one for where that is.
    told = [
        one for one, after in zip(lines, [*lines[1:], ""]) if not one.startswith("\t") and not after.startswith("\t")
    ]
    return "\nThe end of its log:\n" + "\n".join(told[-6:])
