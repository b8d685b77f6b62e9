# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts a daemon in a moment in which it builds nothing, or, when none comes in time, as the policy says.

The moment is found on the daemon's own host, and the signal follows its answer at once. A client that has just
connected has not sent its build yet, so nobody may have connected within the last second. From v0.14 on SIGTERM lets
accepted builds end; before, it kills them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import ask, proc, process
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.line import Line

GRACEFUL, SKIP, NOW = "graceful", "skip", "now"
# Each for what else there is to say, in :attr:`Outcome.how`.
IDLE, DOWN, ENDING, SKIPPED = "idle", "down", "ending", "skipped"

SETTLED = 1.0  # seconds after which a client that has connected, but builds nothing, is held to be idle
SILENT = 5.0  # seconds for which a daemon may give no answer, while it starts for instance
_POLL = 0.02  # seconds
_LULL = 15.0  # seconds
_ASK = 0.2  # seconds between two attempts to ask a daemon that is silent
CUT_OFF = 5.0  # seconds for which idle clients may hold up the end of a daemon that builds nothing
_STARTED = 150.0  # seconds for the start, more than the 90 that systemd allows
_FORCED = 2  # how many signals more make buildkitd exit at once; it counts to three
_ESTABLISHED = "01"  # include/net/tcp_states.h
_LISTEN = "0A"
_CONNECTED = "03"  # SS_CONNECTED, include/uapi/linux/net.h
_LISTENS = "00010000"  # __SO_ACCEPTCON, there too


@dataclass(frozen=True)
class Wish:
    """How to restart.

    :param socket: the daemon's unix socket, as the daemon sees it
    :param port: its TCP port; 0 if it has none
    :param policy: what to do at the limit: GRACEFUL, SKIP or NOW; empty for the best that the daemon allows
    :param limit: how long to wait for a moment in which nothing runs, in seconds
    :param waited: how long was waited before, in seconds
    :param stop_timeout: how long accepted builds may take to end after SIGTERM, in seconds
    :param command: what starts the daemon again; empty if the caller does
    :param ending: whether it is known that the daemon was told to end, by a run before that was killed for instance
    """

    socket: str
    port: int = 0
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


def sockets(pid: int) -> t.Set[str]:
    """All sockets of a process, by the number of their inode."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found


def connections(pid: int, port: int) -> t.Set[str]:
    """The TCP connections that a process's network namespace has on a port, by the number of their inode.

    One that is not yet accepted has the number 0. The kernel goes through all its buckets for that, which takes some
    milliseconds, and shows no single moment.
    """
    return _tcp(pid, port, _ESTABLISHED)


def _tcp(pid: int, port: int, state: str) -> t.Set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
                rows = [line.split() for line in lines.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == state and int(row[1].rpartition(":")[2], 16) == port:
                found.add(row[9])
    return found


def local_connections(pid: int, socket: str) -> t.Set[str]:
    """The connections that a process's network namespace has on a unix socket (unix(7)), ours among them, likewise."""
    return _unix(pid, socket, 5, _CONNECTED)


def _unix(pid: int, socket: str, field: int, value: str) -> t.Set[str]:
    try:
        with open(f"/proc/{pid}/net/unix", encoding="utf-8", errors="replace") as lines:
            rows = [line.split(None, 7) for line in lines.readlines()[1:]]
    except OSError:
        return set()
    return {row[6] for row in rows if len(row) == 8 and row[field] == value and row[7].rstrip("\n") == socket}


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
    own = sockets(pid)
    return bool(own & _unix(pid, wish.socket, 3, _LISTENS) or (wish.port and own & _tcp(pid, wish.port, _LISTEN)))


def _serving(daemon: proc.ProcessIdentity, wish: Wish) -> int:
    """The same for a daemon that may be starting. If nobody listens then, it was told to end by a run before."""
    deadline = time.monotonic() + SILENT
    while True:
        pid = server(daemon, wish)
        if pid or time.monotonic() >= deadline or proc.identify(daemon.pid) != daemon:
            return pid
        time.sleep(_ASK)


class _Watch:
    """Looks at one daemon until nothing runs.

    ``builds`` are what ran last, by name; ``problem`` is why the daemon cannot be asked, or empty.
    """

    def __init__(self, daemon: proc.ProcessIdentity, pid: int, wish: Wish) -> None:
        self._daemon = daemon
        self._pid = pid  # of what listens
        self._wish = wish
        self._since: t.Dict[str, float] = {}  # sockets of its clients, and when they were seen first
        self._others: t.Optional[t.Set[str]] = None  # sockets that it had before, and are no clients
        self._ours: t.Set[str] = set()
        self._begun: t.Dict[str, float] = {}  # builds that run, likewise
        self.line: t.Optional[Line] = None
        self.builds: t.List[str] = []
        self.problem = ""

    def look(self) -> bool:
        """Whether nothing runs."""
        self.builds = []
        try:
            now = time.monotonic()
            before = sockets(self._pid) if self.line is None else None
            if self.line is None:
                self.line = Line(self._daemon.pid, self._wish.socket)
            self._begun = {one: self._begun.get(one, now) for one in ask.builds(self.line)}
            if before is not None:
                more = sockets(self._pid) - before
                self._ours = more if len(more) == 1 else set()  # somebody else connected too, and we are one of them
            self.builds = sorted(self._begun)
            self.problem = ""
        except HostError as error:
            self.close()
            self.problem = str(error)
        return not self.problem and not self.builds

    def idle(self) -> bool:
        """Whether this is the moment."""
        nothing, settled = self.look(), self._nobody_new()
        if not (nothing and settled) or self._somebody_waits():
            return False
        # What was read is of no single moment: who connects while the one before hangs up is seen the second time.
        return self._nobody_new() and self.look()

    def _nobody_new(self) -> bool:
        """Whether nobody has just connected."""
        now = time.monotonic()
        present = sockets(self._pid)
        if self._others is None:
            clients = connections(self._pid, self._wish.port) if self._wish.port else set()
            self._others = present - clients - local_connections(self._pid, self._wish.socket)
        known = self._others | self._ours
        self._since = {one: self._since.get(one, now) for one in present - known}
        return all(now - since >= SETTLED for since in self._since.values())

    def _somebody_waits(self) -> bool:
        """Whether a client has connected that the daemon has not accepted yet."""
        return bool(self._wish.port) and "0" in connections(self._pid, self._wish.port)

    def wait(self) -> bool:
        """Wait for the moment; whether it came before the limit. A daemon that is silent is not waited for as long."""
        began = answered = time.monotonic()
        while not self.idle():
            now = time.monotonic()
            if not self.problem:
                answered = now
            if proc.identify(self._daemon.pid) != self._daemon:
                return False  # it ended by itself
            if now - began >= self._wish.limit or now - answered >= SILENT:
                return False
            time.sleep(_ASK if self.problem else _POLL)
        return True

    def lull(self) -> bool:
        """Wait, not for long, until no build has just begun and nobody has just connected; whether nothing runs at all.

        buildctl and buildx call more than once for a build, until its frontend has read the Dockerfile, and a daemon
        that was told to end takes no more calls.
        """
        deadline = time.monotonic() + _LULL
        while not self.idle():
            now = time.monotonic()
            if self.problem or now >= deadline:
                return False
            if all(now - since >= SETTLED for since in [*self._begun.values(), *self._since.values()]):
                return False
            time.sleep(_POLL)
        return True

    def close(self) -> None:
        """Hang up."""
        if self.line:
            self.line.close()
            self.line = None


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
    if ending:
        outcome = Outcome(how=ENDING, policy=policy, version=version, waited=wish.waited)
        if not look_once and not _ended(daemon, daemon.pid, wish, None):
            outcome.killed = True
            process.kill_tree(daemon)
        outcome.stopped = time.monotonic() - began
        return outcome
    watch = _Watch(daemon, pid or daemon.pid, wish)
    try:
        came = watch.look() if look_once else watch.wait()
        if not came and policy == GRACEFUL and not look_once:
            came = watch.lull()
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
            _stop(daemon, pid or daemon.pid, wish, outcome, watch.line)
    finally:
        watch.close()
    return outcome


def _stop(daemon: proc.ProcessIdentity, pid: int, wish: Wish, outcome: Outcome, line: t.Optional[Line]) -> None:
    """End the daemon, as was decided."""
    began = time.monotonic()
    if outcome.how == NOW:
        process.kill_tree(daemon)
        return
    _signal(daemon, signal.SIGTERM)
    rest = ask.Rest(line) if line else None  # else all that is left is to wait for the daemon
    if not _ended(daemon, pid, wish, rest):
        outcome.killed = True
        if rest is None or not rest.none or proc.descendants(pid) or not _force(daemon):
            process.kill_tree(daemon)
    outcome.stopped = time.monotonic() - began


def _ended(daemon: proc.ProcessIdentity, pid: int, wish: Wish, rest: t.Optional[ask.Rest]) -> bool:
    """Whether it ends within its time.

    A stream that a client holds open keeps it from that without end, so it is waited for only as long as it builds, and
    some seconds more. When that is not known, it gets all of its time.
    """
    deadline = built = time.monotonic()
    deadline += wish.stop_timeout
    last = False  # whether nothing more can come
    held: t.Set[str] = set()
    while proc.identify(daemon.pid) == daemon:
        now = time.monotonic()
        if rest is None or rest.line.dead:
            time.sleep(_POLL)
        else:
            with contextlib.suppress(HostError):  # then what is known by now is all
                rest.update(_POLL)
            last = rest.line.over
        if rest is None or not rest.none or proc.descendants(pid):
            built = now
        elif rest.line.told and not rest.line.dead:
            before, held = held, sockets(pid)
            if held != before and _alone(pid, wish):
                rest.line.close()  # it waits for nobody else
                last = True
        if now >= deadline or (last and now - built >= CUT_OFF):
            return False
    return True


def _alone(pid: int, wish: Wish) -> bool:
    """Whether nobody but us is connected. Who is not yet accepted, and has no number, waits for the next daemon."""
    others = connections(pid, wish.port) - {"0"} if wish.port else set()
    return not others and len(local_connections(pid, wish.socket)) <= 1


def _force(daemon: proc.ProcessIdentity) -> bool:
    """End a daemon that builds nothing any more, as its own command line does; whether that helped."""
    for _more in range(_FORCED):
        _signal(daemon, signal.SIGTERM)
        time.sleep(_POLL)  # two of the same that wait at the same time are one
    deadline = time.monotonic() + CUT_OFF
    while proc.identify(daemon.pid) == daemon:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _signal(daemon: proc.ProcessIdentity, number: signal.Signals) -> None:
    if proc.identify(daemon.pid) == daemon:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, number)


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
