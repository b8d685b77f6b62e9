# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proof of a whole fleet costs beside that of one daemon, and that of one beside buildctl.

The daemons are real, each a process of its own on this machine. So all their builds share its processors with the
proof, which those of a fleet do not: there the controller does the module's own work, while each daemon does its own.
That work is measured as the processor time of the module's process, and once more without builds.

The module runs as a process with its options on standard input, as Ansible runs it on the controller; the start of
Python and of Ansible's own part is counted. buildctl is given as processes what a script would run: `debug workers`,
then `build` of the same Dockerfile without its cache. It sends no strangers.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import probe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

import daemon as daemons
from certificates import CLIENT, SERVER, Authority

SIZE = 50
MEMORY = 100 * 2**20  # more than a daemon takes while it builds
ROUNDS = 7
TIMEOUT = 5.0
AIM = 5
MODULE = [sys.executable, "-m", "ansible_collections.buildfarm.buildkit.plugins.modules.buildkit_verify"]


def room() -> int:
    """How many daemons the memory that is free has room for, at most as many as are wished."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    [available] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(SIZE, available // MEMORY)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def medians(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median of some rounds of each, in turn, so that a busy moment meets all of them; after one to warm up."""
    rounds = [{name: seconds(work) for name, work in works.items()} for _round in range(1 + ROUNDS)][1:]
    return {name: statistics.median(one[name] for one in rounds) for name in works}


def processor_time() -> float:
    """Seconds that processors worked for our child processes that have ended, daemons not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Client:
    """Proves daemons by the module, and builds by buildctl, with the same credentials."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        pair = authority.issue("client", CLIENT)
        self._tls = {"ca_path": str(authority.path), "client_cert": str(pair.cert), "client_key": str(pair.key)}
        self._context = directory / "context"
        self._context.mkdir()
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        (self._context / "probe").write_bytes(probe.program(machine))
        (self._context / "probe").chmod(0o755)
        (self._context / "Dockerfile").write_text('FROM scratch\nCOPY probe /probe\nRUN ["/probe"]\n')
        self.own: list[float] = []
        self.processor: list[float] = []

    def verify(self, addresses: list[str], dead: int = 0, **options: Any) -> None:
        """Prove all of them, of which so many are known to be dead."""
        options = {"daemons": [{"address": one} for one in addresses], "connect_timeout": TIMEOUT, **options}
        wish = json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **self._tls}})
        used = processor_time()
        done = subprocess.run(MODULE, input=wish, text=True, check=False, stdout=subprocess.PIPE)
        self.processor.append(processor_time() - used)
        results = json.loads(done.stdout)["daemons"]
        if sum(not one["ok"] for one in results) != dead:
            sys.exit(f"error: not proved: {[one['failure'] for one in results if not one['ok']]}")
        self.own.append(max(one["timings_ms"]["total"] for one in results) / 1000)

    def buildctl(self, program: Path, address: str) -> None:
        """Ask for the workers, then build."""
        names = {"ca_path": "--tlscacert", "client_cert": "--tlscert", "client_key": "--tlskey"}
        tls = [part for name, flag in names.items() for part in (flag, self._tls[name])]
        local = [part for name in ("context", "dockerfile") for part in ("--local", f"{name}={self._context}")]
        for command in (["debug", "workers"], ["build", "--no-cache", "--frontend", "dockerfile.v0", *local]):
            subprocess.run([program, "--addr", address, *tls, *command], check=True, capture_output=True)


def start_nothing() -> None:
    """What every module of Ansible begins with."""
    subprocess.run([sys.executable, "-c", "import ansible.module_utils.basic"], check=True)


def measure(directory: Path) -> list[tuple[str, str, str]]:
    """The rows of the table."""
    size = room()
    authority = Authority(directory / "authority", "Builders CA")
    server = authority.issue("server", SERVER, sans=("localhost", "127.0.0.1"))
    client = Client(directory, authority)
    programs = daemons.unpack("0.25", directory)
    with contextlib.ExitStack() as stack:
        print(f"starting {size} daemons ...", flush=True)
        fleet = [
            stack.enter_context(daemons.run(programs, directory / str(number), pair=server, ca=authority.path))
            for number in range(size)
        ]
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses = [one.tcp for one in fleet]
        dead = [f"tcp://127.0.0.1:{silent.getsockname()[1]}", *addresses[1:]]
        client.verify(addresses)  # so that each has its cache
        client.own.clear()
        one = medians(
            {
                "one": lambda: client.verify(addresses[:1]),
                "buildctl": lambda: client.buildctl(fleet[0].bin / "buildctl", addresses[0]),
                "start": start_nothing,
            }
        )
        own = statistics.median(client.own)
        client.processor.clear()
        many = medians({"all": lambda: client.verify(addresses)})
        processor = statistics.median(client.processor)
        many |= medians(
            {
                "dead": lambda: client.verify(dead, dead=1, builds=[]),
                "asked": lambda: client.verify(addresses, builds=[]),
                "asked one": lambda: client.verify(addresses[:1], builds=[]),
            }
        )
    note = f"median of {ROUNDS}, {os.cpu_count()} processors"
    times = {**one, **many}
    return [
        ("buildkit_verify, 1 daemon, as a process", f"{times['one'] * 1000:.0f} ms", note),
        (f"buildkit_verify, {size} daemons", f"{times['all'] * 1000:.0f} ms", ""),
        (f"  {size} against 1", f"{times['all'] / times['one']:.1f}", "their builds share these processors"),
        ("  its own processor time against 1", f"{processor / times['one']:.1f}", f"as for a fleet; aim: under {AIM}"),
        (f"  {size} against 1, without builds", f"{times['asked'] / times['asked one']:.1f}", f"aim: under {AIM}"),
        ("  the same with a dead one among them", f"{times['dead'] * 1000:.0f} ms", f"its time-out: {TIMEOUT:g} s"),
        ("buildctl debug workers, buildctl build", f"{times['buildctl'] * 1000:.0f} ms", "2 processes, 1 build"),
        ("  proof by its own clock against buildctl", f"{own / times['buildctl']:.2f}", "2 builds, 3 strangers"),
        ("  proof as a process against buildctl", f"{times['one'] / times['buildctl']:.2f}", "aim: under 1"),
        ("  of which the start of any module", f"{times['start'] / times['buildctl']:.2f}", "Python and Ansible"),
    ]


def main() -> None:
    """Measures and prints the table."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch))
    print()
    for name, value, note in rows:
        print(f"{name:<46} {value:>9}  {note}")


if __name__ == "__main__":
    main()
