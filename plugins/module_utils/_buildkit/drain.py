# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until daemons build nothing. Changes nothing: a daemon accepts new builds all the while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import target
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control, History
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, InputError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.info import (
    describe_builds,
    describe_running,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.options import Daemon
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.units import show_seconds

# The options of the module that say for how long to wait, and for what.
OPTIONS = ("timeout", "poll", "idle_for", "progress")

# What to do about builds that still run then.
ON_TIMEOUT = ("fail", "continue")

# How many names of builds are kept: how many there are must not be up to the daemon.
_MOST_SEEN = 1000


@dataclass(frozen=True)
class Wish:
    """For how long to wait, and for what. All in seconds.

    :param connect_timeout: for a connection, and for each question
    :param timeout: how long to wait; 0 means to look once
    :param poll: pause between two looks
    :param idle_for: how long no build must have been seen
    :param progress: time between two lines that say what still runs; 0 for none
    """

    connect_timeout: float = 10.0
    timeout: float = 600.0
    poll: float = 1.0
    idle_for: float = 0.0
    progress: float = 10.0

    def to_look_once(self) -> Wish:
        """The same without waiting."""
        return replace(self, timeout=0.0, idle_for=0.0)

    def check(self) -> None:
        """Make sure that it can be meant.

        :raises InputError: it cannot
        """
        target.check_seconds(connect_timeout=self.connect_timeout, poll=self.poll)
        target.check_seconds(or_zero=True, timeout=self.timeout, idle_for=self.idle_for, progress=self.progress)
        if 0 < self.progress < 1:
            raise InputError(
                f"progress is {self.progress:g}: give a number of seconds of at least 1, or 0 for no lines"
            )
        if self.idle_for > self.timeout:
            raise InputError(
                f"idle_for is {self.idle_for:g} and timeout is {self.timeout:g}: nobody can be seen idle for longer "
                "than it is looked"
            )


@dataclass
class Report:
    """What was seen of one daemon.

    :param waited: seconds that it took
    :param idle: for how many of the last seconds no build was seen; 0 while one runs
    :param history: what was seen last
    :param seen: the builds that were seen, by their names, as far as there is room
    """

    address: str
    drained: bool = False
    waited: float = 0.0
    idle: float = 0.0
    history: History | None = None
    seen: dict[str, None] = field(default_factory=dict)
    failure: Failure | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form that modules return."""
        return {
            "address": self.address,
            "drained": self.drained,
            "waited_seconds": round(self.waited, 1),
            "idle_seconds": round(self.idle, 1),
            "builds": describe_builds(self.history) if self.history else [],
            "builds_seen": list(self.seen),
            "failure": self.failure.as_dict() if self.failure else None,
        }


def describe(item: Mapping[str, Any]) -> str:
    """What was seen of one daemon, in one line.

    :param item: as :meth:`Report.as_dict` returns it
    """
    failure = item["failure"]
    if failure:
        return f"{item['address']}: {failure['kind']}: {failure['message']}. {failure['remedy']}"
    seen = describe_running([build["age_seconds"] for build in item["builds"]])
    if not item["builds"] and not item["drained"]:
        seen += f", for {show_seconds(item['idle_seconds'])} now"
    return f"{item['address']}: {seen}; waited {show_seconds(item['waited_seconds'])}"


def conclude(items: Sequence[Mapping[str, Any]], *, may_run_on: bool) -> dict[str, Any]:
    """The result of the module.

    :param items: of each daemon, as :meth:`Report.as_dict` returns it
    :param may_run_on: whether builds that still run are no failure
    """
    result: dict[str, Any] = {
        "changed": False,
        "drained": all(item["drained"] for item in items),
        "waited_seconds": max(item["waited_seconds"] for item in items),
        "daemons": list(items),
        "summary": [describe(item) for item in items],
    }
    bad = [item for item in items if item["failure"] or not (item["drained"] or may_run_on)]
    if bad:
        if any(item["failure"] for item in bad):
            ending = ""
        else:
            ending = "\nWait for longer (timeout), or go on all the same (on_timeout: continue)."
        of = f"{len(bad)} of {len(items)} daemons not drained:\n" if len(items) > 1 else ""
        result.update(msg=of + "\n".join(map(describe, bad)) + ending)
    return result


def wait(daemons: Sequence[Daemon], wish: Wish) -> list[Report]:
    """Wait for all daemons at once, for each until it is idle or the time is over.

    :returns: a report for each, in the same order
    :raises InputError: a wish that cannot be meant; nothing was contacted then
    """
    wish.check()
    # All at once: each waits for as long as it has to, and none for another.
    return target.for_each(target.targets(daemons), lambda one: _wait(one, wish), at_once=len(daemons))


async def _wait(daemon: target.Target, wish: Wish) -> Report:
    report = Report(daemon.address)
    began = time.monotonic()
    idle_since: float | None = None
    try:
        # One connection for all looks. It has no call open between them, so it holds up no shutdown.
        async with daemon.connection(timeout=wish.connect_timeout) as connection:
            control = Control(connection.channel, timeout=wish.connect_timeout)
            while True:
                looked = time.monotonic()
                report.history = await control.history(active_only=True, timeout=wish.connect_timeout)
                running = report.history.running
                _remember(report.seen, (build.ref for build in running))
                idle_since = None if running else looked if idle_since is None else idle_since
                now = time.monotonic()
                report.waited = now - began
                report.idle = 0.0 if idle_since is None else now - idle_since
                if idle_since is not None and report.idle >= wish.idle_for:
                    report.drained = True
                    break
                left = wish.timeout - report.waited
                if left <= 0:
                    break
                rest = wish.poll if idle_since is None else wish.idle_for - report.idle
                await asyncio.sleep(min(wish.poll, rest, left))
    except Failure as error:
        report.waited = time.monotonic() - began
        report.failure = error
    return report


def _remember(seen: dict[str, None], refs: Iterable[str]) -> None:
    for ref in refs:
        if len(seen) < _MOST_SEEN:
            seen[ref] = None


class Rounds:
    """One wait made of several calls of the module, between which somebody can say how it goes.

    A daemon that was idle at the end of one call and through the next one was idle all the time, as far as can be seen.

    :param count: how many daemons there are
    :param now: the time, in seconds on any clock, as for the methods
    """

    # The first call is short, so that it is soon known whether there is anything to wait for.
    _FIRST = 1.0

    def __init__(self, count: int, wish: Wish, now: float) -> None:
        self._wish = wish
        self._began = now
        self._items: list[dict[str, Any]] = [{} for _one in range(count)]
        self._idle_since: list[float | None] = [None] * count
        self.pending = list(range(count))

    def next(self, now: float) -> dict[str, float]:
        """How long the next call may wait, and for what, as options of the module."""
        left = max(0.0, self._began + self._wish.timeout - now)
        first = now == self._began
        lengths = [left, self._FIRST if first else self._wish.progress] if self._wish.progress else [left]
        lengths += [
            max(0.0, self._wish.idle_for - (now - since))
            for index, since in enumerate(self._idle_since)
            if index in self.pending and since is not None
        ]
        return {"timeout": min(lengths), "idle_for": min(self._wish.idle_for, *lengths)}

    def add(self, found: Sequence[Mapping[str, Any]], now: float) -> None:
        """Take over what a call found out about the daemons that were pending."""
        over = now - self._began >= self._wish.timeout
        for index, item in zip(list(self.pending), found):
            idle = self._idle(index, item, now)
            seen = dict.fromkeys(self._items[index].get("builds_seen", []))
            _remember(seen, item["builds_seen"])
            drained = not item["failure"] and idle is not None and idle >= self._wish.idle_for
            self._items[index] = {
                **item,
                "drained": drained,
                "waited_seconds": round(now - self._began, 1),
                "idle_seconds": round(idle or 0.0, 1),
                "builds_seen": list(seen),
            }
            if drained or over or item["failure"]:
                self.pending.remove(index)

    def _idle(self, index: int, item: Mapping[str, Any], now: float) -> float | None:
        if item["builds"] or item["failure"]:
            self._idle_since[index] = None
            return None
        since = self._idle_since[index]
        if since is None or item["builds_seen"]:
            since = now - item["idle_seconds"]
        self._idle_since[index] = since
        return now - since

    @property
    def items(self) -> list[dict[str, Any]]:
        """What is known of each daemon, as :meth:`Report.as_dict` returns it."""
        return self._items
