# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real builds, by BuildKit's own client and by us: no registry and no internet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import secrets
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterator

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    endpoint,
    llb,
    messages,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from daemon import Daemon

_PROGRAMS = ("/bin/sh", "/bin/sleep", "/bin/dd")

# Layers, an uploaded context and a cache mount; the argument makes each build another one.
WARM = """FROM scratch
COPY . /
RUN --mount=type=cache,target=/cached dd if=/dev/zero of=/cached/file bs=1000000 count=3
ARG content
RUN dd if=/dev/zero of=/layer bs=1000000 count=5; echo "$content" >/content
"""
SLEEP = """FROM scratch
COPY . /
ARG content
RUN sleep {seconds} || true
"""
FAIL = """FROM scratch
COPY . /
RUN exit 3
"""


def context(directory: Path, dockerfile: str) -> Path:
    """A context with some programs of this machine, what they need, and a Dockerfile."""
    for program in _PROGRAMS:
        libraries = re.findall(r"/\S+", subprocess.check_output(["ldd", program], text=True))
        for path in (program, *libraries):
            copy = directory / path[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (directory / "Dockerfile").write_text(dockerfile, encoding="ascii")
    return directory


def command(daemon: Daemon, directory: Path) -> list[str]:
    """How buildctl builds this context on the daemon, through its unix socket, without a hit in the cache."""
    client = [str(daemon.bin / "buildctl"), "--addr", daemon.unix, "build", "--frontend", "dockerfile.v0"]
    where = ["--local", f"context={directory}", "--local", f"dockerfile={directory}"]
    return [*client, *where, "--opt", f"build-arg:content={secrets.token_hex(8)}"]


def build(daemon: Daemon, directory: Path, *, ok: bool = True) -> None:
    """Build it to its end."""
    run = subprocess.run(command(daemon, directory), capture_output=True, text=True, check=False)
    assert (run.returncode == 0) is ok, run.stderr


class Client(subprocess.Popen[bytes]):
    """The client of a build whose step sleeps.

    :param seconds: for how long, which is another time for each, so that the step is found among all others
    """

    seconds = ""

    def steps(self) -> list[int]:
        """The process that sleeps, if it does."""
        return _processes(f"sleep\0{self.seconds}\0")

    def finish(self) -> None:
        """Let the step end now, and the build with it, well."""
        self.end_step()
        assert self.wait(LONG) == 0

    def end_step(self) -> None:
        """Let the step end."""
        for pid in self.steps():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(daemon: Daemon, directory: Path) -> Iterator[Client]:
    """A build that takes an hour; its client is stopped at the end of the block, and the build with it."""
    exactly = f"{3600 + secrets.randbelow(10**6) / 10**9:.9f}"
    path = context(directory, SLEEP.format(seconds=exactly))
    with Client(command(daemon, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        client.seconds = exactly
        try:
            until(lambda: client.steps() or client.poll() is not None, "the step of the build")
            assert client.poll() is None, "the build ended too early"
            yield client
        finally:
            client.terminate()
            client.wait()
            until(lambda: _over(daemon, client), "the end of the build")


def _over(daemon: Daemon, client: Client) -> bool:
    """Whether nothing of a build is left: its step, its place among those that run, what it held of the cache."""
    if daemon.process.poll() is not None:  # one that was killed leaves its steps behind
        client.end_step()
        return not client.steps()
    return not client.steps() and is_settled(daemon)


def is_settled(daemon: Daemon) -> bool:
    """Whether no build runs and all records are free. Both take a moment after a build, when its client has gone.

    A daemon that was told to end cannot be asked; it holds nothing up.
    """
    try:
        running = asyncio.run(_running(daemon))
        return not running and "Reclaimable:\tfalse" not in buildctl(daemon, "du", "--verbose")
    except (Failure, subprocess.CalledProcessError):
        return True


async def _running(daemon: Daemon) -> tuple[control.Build, ...]:
    opened = await channel.open_connection(channel.Peer(endpoint.parse(daemon.unix)), timeout=LONG)
    try:
        client = control.Control(opened.channel, timeout=LONG)
        return (await client.history(active_only=True, timeout=LONG)).running
    finally:
        await opened.close()


def _processes(arguments: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == arguments.encode():
                found.append(int(path.parent.name))
    return found


def buildctl(daemon: Daemon, *arguments: str) -> str:
    """What BuildKit's own client prints, over the unix socket."""
    return subprocess.run(
        [str(daemon.bin / "buildctl"), "--addr", daemon.unix, *arguments], check=True, capture_output=True, text=True
    ).stdout


def cache(daemon: Daemon) -> tuple[int, int]:
    """Records in the cache, and their bytes, as buildctl lists them."""
    listed = buildctl(daemon, "du", "--verbose")
    sizes = [_bytes(size) for size in re.findall(r"^Size:\s+(\S+)$", listed, re.MULTILINE)]
    return len(sizes), sum(sizes)


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+)([kKMGT]?i?B)", text).groups()
    return round(float(number) * 1000 ** ("BKMGT".index(unit[0].upper()) if len(unit) > 1 else 0))


def endless_program() -> bytes:
    """A static program that waits for ever."""
    machine, code = {
        # mov eax, pause; syscall; jump back
        "x86_64": (62, bytes.fromhex("b8220000000f05ebf7")),
        # mov x0..x3, 0; mov x8, ppoll; svc 0; branch back
        "aarch64": (183, struct.pack("<7I", *(0xD2800000 | x for x in range(4)), 0xD2800928, 0xD4000001, 0x17FFFFFA)),
    }[platform.machine()]
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    elf = b"\x7fELF\2\1\1".ljust(16, b"\0")
    elf += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def endless_request() -> tuple[Any, str]:
    """A build that is sent as internal, as our proofs are, and never ends; with the path of the program of its step."""
    program = llb.File(f"/{secrets.token_hex(8)}", endless_program(), mode=0o755)
    graph = llb.definition(llb.run(llb.make_file(program), [program.path], name="wait"))
    request = messages.new("moby.buildkit.v1.SolveRequest", Ref=secrets.token_hex(16), Internal=True, Definition=graph)
    request.Cache.SetInParent()
    return request, program.path


class LateStatus(control.Control):
    """A client that hears of a build only some time after it has ended, as from a daemon that is short of time."""

    async def status(self, ref: str, on_response: Callable[[Any], None], *, timeout: float) -> None:
        """Follow a build, and hear of it when it is over."""
        said: list[Any] = []
        await super().status(ref, said.append, timeout=timeout)
        await asyncio.sleep(1.5)
        for response in said:
            on_response(response)


@contextlib.asynccontextmanager
async def internal(daemon: Daemon) -> AsyncIterator[control.Control]:
    """An internal build that runs until the end of the block."""
    opened = await channel.open_connection(channel.Peer(endpoint.parse(daemon.unix)), timeout=LONG)
    try:
        client = control.Control(opened.channel, timeout=LONG)
        request, program = endless_request()
        build = asyncio.ensure_future(client.solve(request, timeout=3600))
        while not _processes(f"{program}\0"):
            assert not build.done(), build
            await asyncio.sleep(0.02)
        yield client
        build.cancel()
        await asyncio.gather(build, return_exceptions=True)
    finally:
        await opened.close()
