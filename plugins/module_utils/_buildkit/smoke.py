# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two builds that prove a builder: they need no image, no registry, no session and no network, and leave no
history.

Their content is constant, so that the cache holds one set of it; they run anyway each time, because the step
that runs ignores the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import llb, messages, probe
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.control import Control, Platform
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import (
    BuildError,
    Failure,
    Kind,
    RpcError,
)

BUILDS = ("exec", "dockerfile")

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

# The end of a log, which says why a build failed.
_TAIL_BYTES = 4096
_TAIL_LINES = 10

# What the last part of a log may take to arrive once the build is over, in seconds.
_LOG_DELAY = 1.0


# How long to try to drop what a build left in the cache, and how often, in seconds.
_TIDY_LIMIT = 2.0
_TIDY_PAUSE = 0.02


class _Log:
    """The end of what a build printed."""

    def __init__(self) -> None:
        self._tail = b""

    def add(self, response: Any) -> None:
        for entry in response.logs:
            self._tail = (self._tail + entry.msg)[-_TAIL_BYTES:]

    @property
    def lines(self) -> list[str]:
        return self._tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]


async def run(build: str, control: Control, platform: Platform, *, timeout: float) -> None:
    """Run a smoke build and make sure that its step really ran.

    :param build: one of :data:`BUILDS`
    :param platform: the native platform of the worker
    :param timeout: seconds for all of it; the build is cancelled then
    :raises Failure: it failed, with the end of its log
    """
    if platform.os != "linux":
        raise BuildError(Kind.PLATFORM_MISSING, f"There is no probe program for {platform}, only for linux")
    program = llb.File(_PROGRAM, probe.program(platform.architecture), mode=0o755)
    await run_request(_REQUESTS[build](program), control, name=build, timeout=timeout)


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
    request.Ref = secrets.token_hex(16)
    log = _Log()
    follower = asyncio.ensure_future(control.status(request.Ref, log.add, timeout=timeout))
    try:
        await control.solve(request, timeout=timeout)
        await _finish(follower)
    except Failure as error:
        # A build that was refused before it began has no status, for which the daemon would wait longer.
        await _finish(follower)
        raise _explain(name, error, log, timeout) from error
    finally:
        await _cancel(follower)
    if probe.LOG_LINE not in log.lines:
        raise BuildError(
            Kind.BUILD_FAILED,
            f"The {name} build ended well, but the line that its step prints did not come back",
        )


async def _finish(follower: asyncio.Future[None]) -> None:
    with contextlib.suppress(Failure, asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(follower), _LOG_DELAY)


async def _cancel(follower: asyncio.Future[None]) -> None:
    follower.cancel()
    with contextlib.suppress(Failure, asyncio.CancelledError):
        await follower


def _explain(name: str, error: Failure, log: _Log, timeout: float) -> Failure:
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


def _exec_request(program: llb.File) -> Any:
    step = llb.run(llb.make_file(program), [program.path], name="[buildfarm.buildkit] run the probe")
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


_REQUESTS = {"exec": _exec_request, "dockerfile": _dockerfile_request}
