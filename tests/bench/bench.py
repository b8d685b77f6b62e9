# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: how long a proven builder takes, what an unchanged run costs, and what the proof costs beside buildctl;
then what whole runs cost beside a playbook written by hand (runs.py), what the certificates of a fleet cost beside
community.crypto (pki.py), the proof of a fleet beside that of one daemon (fleet.py), and restarts those who build
(restarts.py).

Times are of this machine and this moment; the ratios, measured in one run, are what to compare.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fleet
import pki
import restarts
import runs
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import probe

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".cache" / "bench"
HOST = "builder-new"
ENDPOINT = "tcp://172.29.213.12:1234"
ROUNDS = 7


def molecule(step: str) -> None:
    """Runs one step of the scenario `default`, whose systemd host is measured."""
    print(f"molecule {step} ...", flush=True)
    command = ["molecule", "-c", "molecule/config.yml", step, "--scenario-name", "default"]
    log = STATE / f"{step}.log"
    with log.open("w") as output:
        if subprocess.run(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
            sys.exit(f"error: molecule {step} failed, see {log}")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def site() -> tuple[float, int, int]:
    """Runs `site` on the host: {seconds, tasks that ran, tasks that changed something}."""
    inventory = CHECKOUT / "molecule" / "default" / "inventory.yml"
    command = ["ansible-playbook", "-i", str(inventory), "buildfarm.buildkit.site", "--limit", HOST]
    print("ansible-playbook buildfarm.buildkit.site ...", flush=True)
    began = time.monotonic()
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    recap = re.search(rf"^{HOST}\s*: ok=(\d+)\s+changed=(\d+)", run.stdout, re.MULTILINE)
    if run.returncode or not recap or "stranger without TLS refused" not in run.stdout:
        sys.exit(f"error: site failed:\n{run.stdout}\n{run.stderr}")
    return took, int(recap[1]), int(recap[2])


def median(work: Callable[[], object]) -> float:
    """The median of some rounds, after one that warms up."""
    work()
    return statistics.median(seconds(work) for _round in range(ROUNDS))


def write_context(directory: Path) -> None:
    """The Dockerfile that the proof builds too, with the same static program."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    directory.mkdir()
    (directory / "probe").write_bytes(probe.program(machine))
    (directory / "probe").chmod(0o755)
    (directory / "Dockerfile").write_text('FROM scratch\nCOPY probe /probe\nRUN ["/probe"]\n')


def unpack_buildctl(directory: str) -> str:
    """The release's own buildctl."""
    subprocess.run(["tar", "-xzf", os.environ["BUILDKIT_NEW_ARCHIVE"], "-C", directory, "bin/buildctl"], check=True)
    return f"{directory}/bin/buildctl"


@dataclass(frozen=True)
class Proofs:
    """Medians in seconds: the whole proof by its own clock and as a process, and buildctl as a process."""

    own: float
    process: float
    buildctl: float


def proofs() -> Proofs:
    """Two builds and three strangers by buildkit_verify, against one `buildctl build` of the same Dockerfile."""
    client = STATE / "pki" / "clients" / "alice"
    files = {"ca_path": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    arguments = {"address": ENDPOINT, **{option: str(client / name) for option, name in files.items()}}
    module = [sys.executable, "-m", "ansible_collections.buildfarm.buildkit.plugins.modules.buildkit_verify"]
    wish = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    own: list[float] = []

    def verify() -> None:
        proved = subprocess.run(module, input=wish, text=True, check=True, stdout=subprocess.PIPE)
        own.append(json.loads(proved.stdout)["daemons"][0]["timings_ms"]["total"] / 1000)

    with tempfile.TemporaryDirectory() as scratch:
        program = unpack_buildctl(scratch)
        context = Path(scratch, "context")
        write_context(context)
        command = [program, "--addr", ENDPOINT, "--tlsdir", str(client), "build", "--no-cache"]
        command += ["--frontend", "dockerfile.v0", "--local", f"context={context}", "--local", f"dockerfile={context}"]

        def buildctl() -> None:
            subprocess.run(command, check=True, capture_output=True)

        process = median(verify)
        return Proofs(own=statistics.median(own[1:]), process=process, buildctl=median(buildctl))


def main() -> None:
    """Measures and prints the table."""
    STATE.mkdir(parents=True, exist_ok=True)
    os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] = str(STATE)
    subprocess.run(["rm", "-rf", str(STATE / "pki")], check=True)
    molecule("destroy")
    molecule("create")
    try:
        first, first_tasks, first_changed = site()
        second, second_tasks, second_changed = site()
        proof = proofs()
    finally:
        molecule("destroy")
    rows = [
        (
            "site, from bare host to proven builder",
            f"{first:.1f} s",
            f"{first_tasks} tasks, {first_changed} changed",
        ),
        ("site again, unchanged", f"{second:.1f} s", f"{second_tasks} tasks, {second_changed} changed"),
        ("  second against first", f"{second / first:.2f}", "aim: under 0.5, at most 35 tasks"),
        ("buildkit_verify: 2 builds, 3 strangers", f"{proof.own * 1000:.0f} ms", f"its own clock, median of {ROUNDS}"),
        ("  the same as a process", f"{proof.process * 1000:.0f} ms", "with the start of Python"),
        ("buildctl build of the same Dockerfile", f"{proof.buildctl * 1000:.0f} ms", "as a process"),
        ("  proof against buildctl", f"{proof.own / proof.buildctl:.2f}", "aim: no slower, 1.0 or less"),
        ("  processes against each other", f"{proof.process / proof.buildctl:.2f}", ""),
    ]
    print()
    for name, value, note in rows:
        print(f"{name:<46} {value:>9}  {note}")
    print()
    runs.main()
    print()
    pki.main()
    print()
    fleet.main()
    print()
    restarts.main()


if __name__ == "__main__":
    main()
