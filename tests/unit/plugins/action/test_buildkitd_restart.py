# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the action plugin buildkitd_restart calls its module, of which the clock and the answers are ours here."""

from __future__ import annotations

import types
import typing as t

import pytest
from ansible_collections.buildfarm.buildkit.plugins.action import buildkitd_restart as plugin
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import restart, watch


class Waiting(plugin.ActionModule):
    """A task that is answered in our time.

    :param answer: what the daemon does after so many seconds: the time that the call took, and what it said
    """

    def __init__(self, answer: t.Callable[[float, float], tuple[float, dict[str, t.Any]]]) -> None:
        self._task = types.SimpleNamespace(no_log=True)
        self._answer = answer
        self.now = 0.0
        self.calls: list[tuple[str, float]] = []

    def wait(self, limit: float, progress: float = 10.0, policy: str = "now") -> dict[str, t.Any]:
        """Run it."""
        return self._wait({"policy": policy}, limit, progress, {"inventory_hostname": "one"})

    def _call(self, options: dict[str, t.Any], task_vars: t.Any) -> dict[str, t.Any]:
        self.calls.append((options["policy"], options["limit"]))
        took, said = self._answer(self.now, options["limit"])
        self.now += took
        how = restart.SKIPPED if options["policy"] == restart.SKIP else options["policy"]
        return {"how": how, "problem": "", "version": "0.25.2", "builds": [], "waited_seconds": self.now, **said}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> t.Callable[[t.Any], Waiting]:
    """Make such a task."""

    def made(answer: t.Any) -> Waiting:
        task = Waiting(answer)
        monkeypatch.setattr(plugin, "time", types.SimpleNamespace(monotonic=lambda: task.now))
        return task

    return made


def test_a_daemon_that_starts_is_given_time(run: t.Callable[[t.Any], Waiting]) -> None:
    """One that cannot be asked for two seconds is not handled as the policy says, but asked again."""

    def starts(now: float, limit: float) -> tuple[float, dict[str, t.Any]]:
        return (limit, {"problem": "no answer"}) if now < 1 else (1.0, {"how": restart.IDLE})

    task = run(starts)
    assert task.wait(limit=600.0)["how"] == restart.IDLE
    assert [policy for policy, _limit in task.calls] == ["skip", "skip"]


def test_a_silent_daemon_is_not_waited_for(run: t.Callable[[t.Any], Waiting]) -> None:
    """After the time that the module itself gives it, the policy holds."""
    task = run(lambda now, limit: (min(limit, watch.SILENT), {"problem": "no answer"}))
    assert task.wait(limit=600.0)["how"] == "now"
    assert watch.SILENT <= task.now <= watch.SILENT + 2
    assert task.calls[-1] == ("now", 0.0)


def test_the_limit_holds_for_a_silent_daemon_too(run: t.Callable[[t.Any], Waiting]) -> None:
    """Nor is it asked for longer than the whole wait."""
    task = run(lambda now, limit: (min(limit, watch.SILENT), {"problem": "no answer"}))
    assert task.wait(limit=3.0)["how"] == "now"
    assert task.now == 3.0


def test_idle_clients_settle_within_a_call(run: t.Callable[[t.Any], Waiting]) -> None:
    """However often somebody wants to read a line: each call counts anew for how long they have been idle."""
    settles = watch.SETTLED + 0.5
    task = run(lambda now, limit: (settles, {"how": restart.IDLE}) if limit > settles else (limit, {}))
    assert task.wait(limit=600.0, progress=1.0)["how"] == restart.IDLE
    assert task.now < 5
