# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proof leaves behind: nothing that grows, and nothing that holds a daemon up when it is told to stop."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import verify
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import module_process
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import Authority, Pair
from daemon import Daemon

RUNS = 20
EVERYTHING = {
    "builds": verify.BUILDS,
    "entitlements_refused": verify.ENTITLEMENTS,
    "connect_timeout": LONG,
    "build_timeout": LONG,
}


@pytest.fixture
def fresh(bin_dir: Path, server: Pair, authority: Authority, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that has never built, and that a test may stop."""
    with daemons.run(bin_dir, tmp_path / "daemon", pair=server, ca=authority.path) as running:
        yield running


def wish(daemon: Daemon, authority: Authority, client: Pair) -> verify.Daemon:
    """The daemon by TCP, with the good credentials."""
    return verify.Daemon(daemon.tcp, str(authority.path), str(client.cert), str(client.key))


def usage(daemon: Daemon) -> tuple[int, list[str]]:
    """How many records its cache has, and their sizes together, once the last build has let go of all of them."""

    def read() -> tuple[int, list[str]]:
        command = [str(daemon.bin / "buildctl"), "--addr", daemon.unix, "du"]
        lines = subprocess.check_output(command, text=True).splitlines()
        return len(lines), [line.split()[1] for line in lines if line.startswith(("Reclaimable:", "Total:"))]

    def settled() -> tuple[int, list[str]] | None:
        records, sizes = read()
        return (records, sizes) if len(set(sizes)) == 1 else None

    found = until(settled, "a cache that nobody uses")
    assert found is not None
    return found


def stop(daemon: Daemon) -> None:
    """End it by SIGTERM. One that is held up by a stream that is open never ends."""
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(LONG)


def test_cache_does_not_grow(fresh: Daemon, authority: Authority, client: Pair) -> None:
    """After twenty proofs of everything the cache is as it was after the first."""
    daemon, proof = wish(fresh, authority, client), verify.Proof(**EVERYTHING)
    assert verify.verify([daemon], proof)[0].failure is None
    first = usage(fresh)
    for _run in range(RUNS):
        assert verify.verify([daemon], proof)[0].failure is None
    assert usage(fresh) == first


def test_daemon_stops_right_after_a_proof(fresh: Daemon, authority: Authority, client: Pair) -> None:
    """No stream is left open that a daemon would wait for."""
    [report] = verify.verify([wish(fresh, authority, client)], verify.Proof(**EVERYTHING))
    assert report.failure is None
    stop(fresh)


def test_daemon_stops_after_proofs_that_were_killed(fresh: Daemon, authority: Authority, client: Pair) -> None:
    """Nor does one that was killed in the middle of its builds leave any, nor a step that goes on."""
    options = {
        "address": fresh.tcp,
        "ca_path": str(authority.path),
        "client_cert": str(client.cert),
        "client_key": str(client.key),
        "builds": list(verify.BUILDS),
    }
    delays = itertools.cycle((0.0, 0.01, 0.02, 0.03, 0.05, 0.08))
    in_the_middle = 0
    for _try in range(60):  # whoever is late finds a proof that is over
        with module_process("buildkit_verify", options) as process:
            wait_for_a_step(fresh, process)
            time.sleep(next(delays))
            in_the_middle += process.poll() is None
            process.kill()
        if in_the_middle == 5:
            break
    assert in_the_middle == 5
    steps = daemons.children(fresh.process)
    stop(fresh)
    until(lambda: not [step for step in steps if Path("/proc", step).exists()], "the end of all steps")


def wait_for_a_step(daemon: Daemon, process: subprocess.Popen[str]) -> None:
    """Until the daemon runs a step for this client, or the client has ended."""
    while not daemons.children(daemon.process) and process.poll() is None:
        time.sleep(0.001)
