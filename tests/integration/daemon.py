# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real buildkitd processes for tests: both generations, each with its own root, sockets and log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until
from certificates import Pair

# Generation -> the variable in which `make` names its archive.
GENERATIONS = {"0.13": "BUILDKIT_OLD_ARCHIVE", "0.25": "BUILDKIT_NEW_ARCHIVE"}

_CHECKOUT = Path(__file__).resolve().parents[2]
_STOP_LIMIT = 60.0


def unpack(generation: str, directory: Path) -> Path:
    """Obtain a BuildKit of this generation, and return the directory with its programs."""
    path = os.environ.get(GENERATIONS[generation]) or _obtain(generation)
    subprocess.run(["tar", "-xzf", path, "-C", directory], check=True)
    return directory / "bin"


def _obtain(generation: str) -> str:
    command = [sys.executable, "tools/buildkit_archive.py", "--debian-only", "--generation", generation]
    return str(json.loads(subprocess.check_output(command, cwd=_CHECKOUT))["archive"])


@dataclass(frozen=True)
class Daemon:
    """A running buildkitd: where it listens, for builds and for traces, and what it consists of."""

    tcp: str
    unix: str
    traces: str
    bin: Path
    root: Path
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def run(
    bin_dir: Path,
    directory: Path,
    *,
    pair: Pair | None = None,
    ca: Path | None = None,
    options: tuple[str, ...] = (),
    settings: str = "",
) -> Iterator[Daemon]:
    """Run buildkitd on a free loopback port and a unix socket until the block ends, and leave nothing behind.

    Without a pair it listens in plaintext; with one and no CA it takes any client.

    :param options: more of its command line
    :param settings: more of its configuration, which begins at the top level
    """
    directory.mkdir(parents=True, exist_ok=True)
    root, log, unix = directory / "root", directory / "log", directory / "buildkitd.sock"
    config = directory / "buildkitd.toml"
    config.write_text(f'{settings}\n[otel]\nsocketPath = "{directory}/otel.sock"\n', encoding="utf-8")
    holding = contextlib.ExitStack()
    address = f"127.0.0.1:{holding.enter_context(ports.held())}"
    command = [
        *(str(bin_dir / "buildkitd"), "--config", str(config), "--root", str(root)),
        *("--addr", f"tcp://{address}"),
        *("--containerd-worker=false", "--oci-worker-snapshotter=native"),
        *(("--tlscert", str(pair.cert), "--tlskey", str(pair.key)) if pair else ()),
        *(("--tlscacert", str(ca)) if ca else ()),
        *options,
        *("--addr", f"unix://{unix}"),  # the last: when this answers, all addresses do
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        with holding:
            _wait_until_ready(process, unix, log)
        traces = f"unix://{directory}/otel.sock"
        yield Daemon(f"tcp://{address}", f"unix://{unix}", traces, bin_dir, root, log, process)
    finally:
        _stop(process)
        left = mounts_below(directory)
        for mount in left:
            subprocess.run(["umount", "--lazy", mount], check=False)
    assert not left, f"buildkitd left mounts: {left}"


def mounts_below(directory: Path) -> list[str]:
    """All mount points below a directory, the deepest first."""
    table = Path("/proc/self/mounts").read_text(encoding="utf-8")
    points = [line.split(" ")[1] for line in table.splitlines()]
    return sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True)


def children(process: subprocess.Popen[bytes]) -> list[str]:
    """Process ids of all descendants of a process."""
    found: list[str] = []
    todo = [str(process.pid)]
    while todo:
        with contextlib.suppress(OSError):  # one that ends while its threads are listed, or before they are read
            for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                new = task.read_text(encoding="ascii").split()
                found += new
                todo += new
    return found


def _wait_until_ready(process: subprocess.Popen[bytes], unix: Path, log: Path) -> None:
    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return process.poll() is not None or probe.connect_ex(str(unix)) == 0

    until(answers, f"an answer of buildkitd, whose log is {log}")
    if process.poll() is not None:
        raise RuntimeError(f"buildkitd did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
