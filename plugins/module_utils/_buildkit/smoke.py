# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds that prove a builder: they need no image, no registry, no session and no network, and leave no history.

Their content is constant, so that the cache holds one set of it; they run anyway each time, because the step
that runs ignores the cache, but for the build that proves the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import llb, messages, probe
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control, Platform
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    BuildError,
    Failure,
    Kind,
    RpcError,
)

BUILDS = ("exec", "dockerfile", "cache")

# No build of anybody else has a program of this name, so what is in the cache of it is ours.
_NAME = "buildfarm-buildkit-probe"
_PROGRAM = f"/{_NAME}"

# The second stage alone ignores the cache.
_STAGE = "run"
_DOCKERFILE = f"""FROM scratch AS files
COPY {_NAME} {_PROGRAM}
FROM files AS {_STAGE}
RUN ["{_PROGRAM}"]
"""

# What the step of our own graphs is called in the log of the build.
STEP = "[buildfarm.buildkit] run the probe"

# The end of a log, which says why a build failed.
_TAIL_BYTES = 4096
_TAIL_LINES = 10

# What a daemon may send of a build's progress, in bytes, and how many steps it may name: a smoke build prints one line.
# buildkitd itself stops at 2 MiB of log for each step.
_MOST_BYTES = 8 * 2**20
_MOST_STEPS = 1000

# What every refusal of an entitlement has in it, of both generations.
NOT_ALLOWED = "is not allowed"

# What the last part of a log may take to arrive once the build is over, in seconds. It always comes, if late where a
# daemon or this machine is short of time; but of a build that was refused, or never answered, there may be none.
_LOG_DELAY = 30.0
_LOG_DELAY_REFUSED = 1.0

# How long to try to drop what a build left in the cache, and how often, in seconds.
_TIDY_LIMIT = 10.0
_TIDY_PAUSE = 0.02


# How often a build may run again until it comes from the cache. Where somebody else runs the same one at the same time,
# both are one for the daemon, which then says of neither that it came from the cache: so they part, by a random pause
# of up to so many milliseconds.
_REPEATS = 3
_REPEAT_PAUSE_MS = 300


class Log:
    """The end of what a build printed, and what became of its steps."""

    def __init__(self) -> None:
        self._tail = b""
        self._received = 0
        self._cached: dict[str, bool] = {}

    def add(self, response: Any) -> None:
        """Take note of a C(moby.buildkit.v1.StatusResponse).

        :raises BuildError: there is more of it than any smoke build has to say
        """
        self._received += response.ByteSize()
        for entry in response.logs:
            self._tail = (self._tail + entry.msg[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        for step in response.vertexes:
            self._cached[step.name] = self._cached.get(step.name, False) or step.cached
        if self._received > _MOST_BYTES or len(self._cached) > _MOST_STEPS:
            raise BuildError(
                Kind.BUILD_FAILED,
                "The daemon sends far more progress than the build can have, and was not listened to any longer",
            )

    @property
    def lines(self) -> list[str]:
        """The last lines."""
        return self._tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]

    def has_step(self, name: str) -> bool:
        """Whether the daemon took a step of this name in hand."""
        return name in self._cached

    def is_cached(self, name: str) -> bool:
        """Whether a step of this name came from the cache."""
        return self._cached.get(name, False)


async def run(build: str, control: Control, platform: Platform, *, native: bool = True, timeout: float) -> None:
    """Run a smoke build and make sure that it did what it should.

    :param build: one of :data:`BUILDS`
    :param platform: what to build for
    :param native: whether that is the daemon's own platform; another one is for :func:`run` of C(exec) alone
    :param timeout: seconds for all of it; the build is cancelled then
    :raises Failure: it failed, with the end of its log
    """
    if build == "cache":
        await _prove_cache(control, platform, timeout=timeout)
    elif native:
        await run_request(_REQUESTS[build](probe_file(platform)), control, name=build, timeout=timeout)
    else:
        await _prove_platform(control, platform, timeout=timeout)


async def _prove_platform(control: Control, platform: Platform, *, timeout: float) -> None:
    fields = {"OS": platform.os, "Architecture": platform.architecture, "Variant": platform.variant}
    request = exec_request(probe_file(platform), llb.Conditions(platform=fields))
    try:
        await run_request(request, control, name=f"exec {platform}", timeout=timeout)
    except BuildError as error:
        if error.kind is Kind.BUILD_FAILED:
            error.remedy = (
                f"Look at the emulator for {platform}: binfmt_misc on the daemon's host, registered with the flag F, "
                "or a buildkit-qemu program beside buildkitd."
            )
        raise


async def _prove_cache(control: Control, platform: Platform, *, timeout: float) -> None:
    # Another step than that of the other build, which may run at the same time and would be taken for the same one.
    request = exec_request(probe_file(platform), llb.Conditions(ignore_cache=False), argument="cached")
    deadline = time.monotonic() + timeout
    for repeat in range(1 + _REPEATS):
        log = Log()
        await follow(request, control, log, name="cache", timeout=max(0.001, deadline - time.monotonic()))
        if repeat and log.is_cached(STEP):
            return
        if repeat:
            await asyncio.sleep(repeat * secrets.randbelow(_REPEAT_PAUSE_MS) / 1000)
    raise BuildError(Kind.NOT_CACHED, f"The same build ran {1 + _REPEATS} times, and did not once come from the cache")


def probe_file(platform: Platform) -> llb.File:
    """The file that a build makes and runs.

    :raises BuildError: there is no program for this platform
    """
    if platform.os != "linux":
        raise BuildError(Kind.PLATFORM_MISSING, f"There is no probe program for {platform}, only for linux")
    return llb.File(_PROGRAM, probe.program(platform.architecture), mode=0o755)


async def tidy(control: Control) -> None:
    """Drop what the Dockerfile's step wrote, of which the cache would keep another one with each run.

    That is no part of the proof: what cannot be dropped now is dropped the next time, or by the daemon's own
    collection.
    """
    with contextlib.suppress(Failure, asyncio.TimeoutError):
        await asyncio.wait_for(_tidy(control), _TIDY_LIMIT)


async def _tidy(control: Control) -> None:
    while ours := await control.cache_records(f"mount / from exec {_PROGRAM}"):
        if len(await control.prune(ours)) == len(ours):
            return
        await asyncio.sleep(_TIDY_PAUSE)  # a daemon may hold on to the result of a build for a moment


async def run_request(request: Any, control: Control, *, name: str, timeout: float) -> None:
    """Run a build that must print :data:`probe.LOG_LINE`.

    :param request: a C(moby.buildkit.v1.SolveRequest); gets a new C(Ref)
    """
    log = Log()
    await follow(request, control, log, name=name, timeout=timeout)
    if probe.LOG_LINE not in log.lines:
        raise BuildError(
            Kind.BUILD_FAILED,
            f"The {name} build ended well, but the line that its step prints did not come back",
        )


async def follow(request: Any, control: Control, log: Log, *, name: str, timeout: float) -> None:
    """Run a build to its end.

    :param request: a C(moby.buildkit.v1.SolveRequest); gets a new C(Ref)
    :param log: gets what the daemon tells of it, on failure too
    :raises Failure: it failed, with the end of its log
    """
    request.Ref = secrets.token_hex(16)
    follower = asyncio.ensure_future(control.status(request.Ref, log.add, timeout=timeout))
    build = asyncio.ensure_future(control.solve(request, timeout=timeout))
    try:
        await asyncio.wait((build, follower), return_when=asyncio.FIRST_COMPLETED)
        _raise_flood(follower)
        await build
        await _finish(follower, _LOG_DELAY)
        _raise_flood(follower)
    except Failure as error:
        # A build that was refused before it began has no status, for which the daemon would wait longer.
        began = error.kind is Kind.RPC_FAILED and NOT_ALLOWED not in error.message
        await _finish(follower, _LOG_DELAY if began else _LOG_DELAY_REFUSED)
        raise _explain(name, error, log, timeout) from error
    finally:
        await _cancel(follower)
        await _cancel(build)


def _raise_flood(follower: asyncio.Future[None]) -> None:
    """Raise what the log raised; that the status itself ended badly is nothing against the build."""
    if follower.done() and isinstance(follower.exception(), BuildError):
        follower.result()


async def _finish(follower: asyncio.Future[None], limit: float) -> None:
    with contextlib.suppress(Failure, asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(follower), limit)


async def _cancel(call: asyncio.Future[None]) -> None:
    call.cancel()
    with contextlib.suppress(Failure, asyncio.CancelledError):
        await call


def _explain(name: str, error: Failure, log: Log, timeout: float) -> Failure:
    if error.kind is Kind.TIMEOUT:
        return BuildError(Kind.TIMEOUT, f"The {name} build did not end within {timeout:g} s and was cancelled")
    if isinstance(error, RpcError) and error.kind is Kind.RPC_FAILED:
        tail = f"; its log ends with: {' | '.join(log.lines)}" if log.lines else ""
        return BuildError(Kind.BUILD_FAILED, f"The {name} build failed: {error.message}{tail}")
    return error


def _request(**fields: Any) -> Any:
    # Internal: it leaves no entry in the history, and nobody who waits for an idle daemon counts it.
    request = messages.new("moby.buildkit.v1.SolveRequest", Internal=True, **fields)
    # Daemons from v0.17 to v0.21 look into it unchecked, and panic without it.
    request.Cache.SetInParent()
    return request


def exec_request(program: llb.File, conditions: llb.Conditions = llb.DEFAULT_CONDITIONS, *, argument: str = "") -> Any:
    """A build of one step that runs the program.

    :param argument: for the program, which does not care
    :returns: a C(moby.buildkit.v1.SolveRequest)
    """
    arguments = [program.path, argument] if argument else [program.path]
    step = llb.run(llb.make_file(program), arguments, name=STEP, conditions=conditions)
    return _request(Definition=llb.definition(step))


def _dockerfile_request(program: llb.File) -> Any:
    return _request(
        Frontend="dockerfile.v0",
        FrontendInputs={
            "dockerfile": llb.definition(llb.make_file(llb.File("/Dockerfile", _DOCKERFILE.encode()))),
            "context": llb.definition(llb.make_file(program)),
        },
        FrontendAttrs={"no-cache": _STAGE, "force-network-mode": "none"},
    )


_REQUESTS = {"exec": exec_request, "dockerfile": _dockerfile_request}
