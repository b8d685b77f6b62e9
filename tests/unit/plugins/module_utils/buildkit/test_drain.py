# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One wait made of several calls, by a clock of our own, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import drain
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, InputError, Kind

BUILD = {"ref": "a", "frontend": None, "started": "2026-11-21T09:00:00Z", "age_seconds": 65.0}
DEAD = Failure(Kind.UNREACHABLE, "Cannot connect").as_dict()


def found(**fields: Any) -> dict[str, Any]:
    """What a call of the module says of a daemon."""
    item = {
        "address": "unix:///x",
        "drained": False,
        "waited_seconds": 1.0,
        "idle_seconds": 0.0,
        "builds": [],
        "builds_seen": [],
        "failure": None,
    }
    return {**item, **fields}


def busy(*refs: str, waited: float = 1.0) -> dict[str, Any]:
    """A daemon on which these run at the end of a call."""
    builds = [{**BUILD, "ref": ref} for ref in refs]
    return found(builds=builds, builds_seen=list(refs), waited_seconds=waited)


def test_first_call_is_short_and_the_others_last_as_long_as_lines_are_apart() -> None:
    """Until the time is over; the last one gets what is left."""
    rounds = drain.Rounds(1, drain.Wish(timeout=25, progress=10), 100.0)
    assert rounds.next(100.0) == {"timeout": 1.0, "idle_for": 0.0}
    rounds.add([busy("a")], 101.5)
    assert rounds.next(101.5) == {"timeout": 10.0, "idle_for": 0.0}
    rounds.add([busy("a", waited=10)], 112.0)
    rounds.next(112.0)
    rounds.add([busy("a", waited=10)], 122.5)
    assert rounds.next(122.5)["timeout"] == 2.5
    rounds.add([busy("a", waited=2.5)], 125.0)
    assert rounds.pending == []
    [item] = rounds.items
    assert (item["drained"], item["waited_seconds"]) == (False, 25.0)


def test_without_lines_one_call_waits_for_all_of_it() -> None:
    """C(progress: 0) is one call."""
    assert drain.Rounds(1, drain.Wish(timeout=25, progress=0), 0.0).next(0.0) == {"timeout": 25.0, "idle_for": 0.0}


def test_end_of_the_build_ends_the_wait() -> None:
    """With all builds that were seen in any call, each once."""
    rounds = drain.Rounds(1, drain.Wish(), 0.0)
    rounds.next(0.0)
    rounds.add([busy("a", "b")], 2.0)
    rounds.next(2.0)
    rounds.add([found(drained=True, waited_seconds=3.0, builds_seen=["b", "c"])], 5.5)
    assert rounds.pending == []
    [item] = rounds.items
    assert item["drained"] is True
    assert item["builds_seen"] == ["a", "b", "c"]
    assert item["waited_seconds"] == 5.5  # what the calls themselves cost is part of it


def test_idle_time_adds_up_while_nothing_is_seen() -> None:
    """No call waits for longer than what is missing."""
    rounds = drain.Rounds(1, drain.Wish(idle_for=8, progress=5), 0.0)
    assert rounds.next(0.0) == {"timeout": 1.0, "idle_for": 1.0}
    rounds.add([found(idle_seconds=1.0)], 2.0)  # so since 1.0
    assert rounds.pending == [0]
    assert rounds.next(2.0) == {"timeout": 5.0, "idle_for": 5.0}
    rounds.add([found(idle_seconds=5.0, waited_seconds=5.0)], 7.5)
    assert rounds.next(7.5) == {"timeout": 1.5, "idle_for": 1.5}
    rounds.add([found(idle_seconds=1.5, waited_seconds=1.5)], 9.2)
    assert rounds.pending == []
    [item] = rounds.items
    assert (item["drained"], item["idle_seconds"]) == (True, 8.2)


@pytest.mark.parametrize("item", [busy("a"), found(builds_seen=["a"], idle_seconds=0.5)])
def test_build_in_between_starts_the_idle_time_anew(item: dict[str, Any]) -> None:
    """One that runs at the end of the call, and one that came and went."""
    rounds = drain.Rounds(1, drain.Wish(idle_for=4, progress=2), 0.0)
    rounds.next(0.0)
    rounds.add([found(idle_seconds=1.0)], 3.0)
    rounds.next(3.0)
    rounds.add([item], 5.0)
    assert rounds.pending == [0]
    rounds.next(5.0)
    rounds.add([found(idle_seconds=1.0)], 6.5)
    assert rounds.pending == [0]
    assert rounds.items[0]["idle_seconds"] < 4


def test_each_daemon_is_waited_for_by_itself() -> None:
    """Those that are done are not asked again, and one that failed is not either."""
    rounds = drain.Rounds(3, drain.Wish(), 0.0)
    rounds.next(0.0)
    rounds.add([found(drained=True), busy("b"), found(failure=DEAD)], 1.5)
    assert rounds.pending == [1]
    rounds.next(1.5)
    rounds.add([found(drained=True)], 3.0)
    assert rounds.pending == []
    assert [item["drained"] for item in rounds.items] == [True, True, False]


def test_daemon_cannot_fill_the_memory_with_builds() -> None:
    """Names are kept up to a limit."""
    rounds = drain.Rounds(1, drain.Wish(timeout=10**6), 0.0)
    for call in range(5):
        rounds.next(float(call))
        rounds.add([busy(*(f"{call}-{number}" for number in range(400)))], call + 0.5)
    assert len(rounds.items[0]["builds_seen"]) == 1000


@pytest.mark.parametrize(
    ("items", "may_run_on", "message"),
    [
        ([found(drained=True)], False, None),
        ([busy("a")], True, None),
        ([busy("a")], False, "unix:///x: 1 build runs, for 1 min 5 s; waited 1 s\nWait for longer (timeout), or go on"),
        ([found(idle_seconds=3.0)], False, "unix:///x: no build runs, for 3 s now; waited 1 s\nWait"),
        ([found(failure=DEAD)], True, "unix:///x: unreachable: Cannot connect. Check that"),
        (
            [found(drained=True), busy("a", "b")],
            False,
            "1 of 2 daemons not drained:\nunix:///x: 2 builds run, ",
        ),
    ],
)
def test_conclusion(items: list[dict[str, Any]], may_run_on: bool, message: str | None) -> None:
    """Who still builds fails the task unless it may; who cannot be asked fails it in any case."""
    result = drain.conclude(items, may_run_on=may_run_on)
    assert result["changed"] is False
    assert result["drained"] is all(item["drained"] for item in items)
    assert len(result["summary"]) == len(items)
    assert ("msg" in result) is (message is not None)
    if message is not None:
        assert result["msg"].startswith(message)


@pytest.mark.parametrize("name", ["timeout", "poll", "idle_for", "connect_timeout", "progress"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e8])
def test_limits_must_be_limits(name: str, value: float) -> None:
    """What is no number of seconds is refused, and so is more than gRPC can say."""
    with pytest.raises(InputError, match=f"^{name} is .*: give a number of seconds .* at most 99999999$"):
        drain.Wish(**{name: value}).check()


@pytest.mark.parametrize("timeout", [0, 4])
def test_nobody_is_idle_for_longer_than_is_looked(timeout: float) -> None:
    """A wait that could not but fail is refused, a single look too."""
    with pytest.raises(InputError, match=f"^idle_for is 5 and timeout is {timeout}"):
        drain.Wish(timeout=timeout, idle_for=5).check()
