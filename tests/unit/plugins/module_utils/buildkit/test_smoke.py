# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of the smoke builds, and what their logs may do."""

from __future__ import annotations

import asyncio
from typing import Iterable

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    control,
    llb,
    messages,
    smoke,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import BuildError, Kind

PROGRAM = llb.File("/probe", b"content", mode=0o755)


def log_of(*pieces: bytes) -> smoke.Log:
    """A log that came in these pieces."""
    log = smoke.Log()
    entries = [messages.new("moby.buildkit.v1.VertexLog", msg=piece) for piece in pieces]
    for entry in entries:
        log.add(messages.new("moby.buildkit.v1.StatusResponse", logs=[entry]))
    return log


@pytest.mark.parametrize("build", smoke._REQUESTS)
def test_requests_are_safe_for_every_daemon(build: str) -> None:
    """A request always has its cache options, without which some daemons panic, and is never part of the history."""
    request = smoke._REQUESTS[build](PROGRAM)
    assert request.HasField("Cache")
    assert request.Internal is True


@pytest.mark.parametrize("build", smoke._REQUESTS)
def test_requests_are_constant(build: str) -> None:
    """Equal content means that the cache keeps one set of it."""
    assert smoke._REQUESTS[build](PROGRAM) == smoke._REQUESTS[build](PROGRAM)


def test_dockerfile_build_brings_its_own_context() -> None:
    """The Dockerfile and its context are inputs, so that no session is needed; its step has no network and no cache."""
    request = smoke._REQUESTS["dockerfile"](PROGRAM)
    assert request.Frontend == "dockerfile.v0"
    assert sorted(request.FrontendInputs) == ["context", "dockerfile"]
    assert request.FrontendAttrs["force-network-mode"] == "none"
    text = request.FrontendInputs["dockerfile"].SerializeToString().decode("latin-1")
    assert f"FROM files AS {request.FrontendAttrs['no-cache']}" in text
    assert "# syntax" not in text
    assert not request.HasField("Definition")


def test_log_may_come_in_pieces() -> None:
    """A line is whole wherever a daemon cuts the log."""
    assert log_of(b"before\nbuild ste", b"p ran", b"\n").lines == ["before", "build step ran"]


def test_endless_log_is_cut() -> None:
    """A daemon that logs without end costs no memory: the end of it is kept."""
    log = log_of(*[b"x" * 100_000 + b"\nlast\n"] * 50)
    assert log.lines[-1] == "last"
    assert sum(map(len, log.lines)) < 5000


def progress_of(**fields: object) -> object:
    """What a daemon tells of a build."""
    return messages.new("moby.buildkit.v1.StatusResponse", **fields)


def vertex(name: str, *, cached: bool = False) -> object:
    """A step."""
    return messages.message_class("moby.buildkit.v1.Vertex")(name=name, cached=cached)


def add_all(log: smoke.Log, progress: Iterable[object]) -> None:
    """Let a daemon tell all of it."""
    for response in progress:
        log.add(response)


@pytest.mark.parametrize(
    "progress",
    [
        progress_of(logs=[messages.new("moby.buildkit.v1.VertexLog", msg=b"x" * 100_000)]),
        progress_of(vertexes=[vertex("x" * 100_000)]),
        progress_of(vertexes=[vertex("x", cached=True)] * 10_000),
    ],
    ids=["one long log", "one long name", "many steps"],
)
def test_a_flood_of_progress_is_not_listened_to(progress: object) -> None:
    """A daemon that sends more than any smoke build can have is given up, before it has cost memory."""
    with pytest.raises(BuildError, match="far more progress"):
        add_all(smoke.Log(), [progress] * 1000)


def test_names_of_steps_are_bounded() -> None:
    """So is a daemon that always tells of new steps."""
    log = smoke.Log()
    with pytest.raises(BuildError, match="far more progress"):
        add_all(log, (progress_of(vertexes=[vertex(str(number))]) for number in range(100_000)))
    assert len(log._cached) < 2000


def test_a_step_is_cached_once_the_daemon_says_so() -> None:
    """A step is told of several times, at first without knowing."""
    log = smoke.Log()
    steps = (vertex("a"), vertex("a", cached=True), vertex("a"), vertex("b"))
    add_all(log, [progress_of(vertexes=[step]) for step in steps])
    assert (log.is_cached("a"), log.is_cached("b"), log.is_cached("c")) == (True, False, False)
    assert (log.has_step("b"), log.has_step("c")) == (True, False)


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        (control.Platform("windows", "amd64"), "windows/amd64, only for linux"),
        (control.Platform("linux", "sparc64"), "'sparc64'"),
    ],
)
def test_platform_without_a_program_is_named(platform: control.Platform, message: str) -> None:
    """Where no program can run, the daemon is not even asked."""
    nobody = control.Control(None, timeout=1)
    with pytest.raises(BuildError, match=message) as caught:
        asyncio.run(smoke.run("exec", nobody, platform, timeout=1))
    assert caught.value.kind is Kind.PLATFORM_MISSING


def test_nothing_to_prune_prunes_nothing() -> None:
    """Without ids no request is sent, because for a daemon no filter means all of its cache."""
    assert asyncio.run(control.Control(None, timeout=1).prune([])) == []
