# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What whole runs of `site` cost, first and unchanged, on one host and on several; beside a playbook written by hand.

The one by hand (handwritten/) uses modules of ansible.builtin and community.crypto, and reaches the same state: the
same program behind the same kind of units, mTLS with a CA of its own, a client's certificate, and a timer that prunes.
It ends with `buildctl debug workers`; ours proves each builder with two builds and three strangers, and makes bundles.

Hosts are containers with systemd, on this machine, so they share its processors with Ansible. Both get the same hosts,
connection, forks and pipelining, one after the other, and all hosts at the same time (buildkit_serial 100%).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HANDWRITTEN = CHECKOUT / "tests" / "bench" / "handwritten" / "site.yml"
HOSTS = 5
ROUNDS = 3
AIM = 0.5


@dataclass(frozen=True)
class Run:
    """One run of a playbook: seconds, and per host how many tasks ran and changed something."""

    seconds: float
    tasks: float
    changed: int


@dataclass(frozen=True)
class Runs:
    """The first run on one host, and the medians of unchanged ones on one and on all."""

    first: Run
    one: Run
    all: Run


def docker(*arguments: str) -> str:
    """Runs docker, and returns what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def start(names: list[str]) -> dict[str, str]:
    """Makes new hosts; returns their addresses."""
    stop(names)
    for name in names:
        docker(
            *("run", "--detach", "--name", name, "--hostname", name, "--cgroupns", "private"),
            *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--mount", "type=tmpfs,target=/run", "--mount", "type=tmpfs,target=/tmp"),
            *(
                "--env",
                "container=docker",
                "--volume",
                "/var/lib/buildkit",
                os.environ["BUILDKIT_HOST_IMAGE"],
                "systemd",
            ),
        )
    for name in names:
        deadline = time.monotonic() + 60
        asked = ["docker", "exec", name, "systemctl", "is-system-running"]
        while subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() != "running":
            if time.monotonic() > deadline:
                sys.exit(f"error: the host {name} does not come up")
            time.sleep(0.2)
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return {name: docker("inspect", "--format", form, name) for name in names}


def stop(names: list[str]) -> None:
    """Removes the hosts, if they are there."""
    subprocess.run(["docker", "rm", "--force", "--volumes", *names], capture_output=True, check=False)


def play(playbook: str, inventory: Path, hosts: list[str]) -> Run:
    """Runs a playbook on these hosts."""
    own = {name: value for name, value in os.environ.items() if name != "ANSIBLE_STRATEGY"}
    environment = {**own, "ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "true"}
    command = ["ansible-playbook", "-i", str(inventory), playbook, "--limit", ",".join(hosts)]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    recap = re.findall(r"^\S+\s*: ok=(\d+)\s+changed=(\d+)", done.stdout.partition("PLAY RECAP")[2], re.MULTILINE)
    if done.returncode or len(recap) != len(hosts):
        sys.exit(f"error: {playbook} failed:\n{done.stdout}\n{done.stderr}")
    return Run(took, sum(int(ok) for ok, _changed in recap) / len(hosts), sum(int(one) for _ok, one in recap))


def unchanged(playbook: str, inventory: Path, hosts: list[str]) -> Run:
    """The median of some runs that must not change anything."""
    rounds = [play(playbook, inventory, hosts) for _round in range(ROUNDS)]
    if any(one.changed for one in rounds):
        sys.exit(f"error: {playbook} changed something again")
    return Run(statistics.median(one.seconds for one in rounds), rounds[0].tasks, 0)


def check_state(addresses: dict[str, str], client: Path, buildctl: str) -> None:
    """Both must have reached it: daemons that answer the client, and nobody without a certificate."""
    for name, address in addresses.items():
        dial = [buildctl, "--addr", f"tcp://{address}:1234", "--tlscacert", str(client / "ca.pem")]
        pair = ["--tlscert", str(client / "cert.pem"), "--tlskey", str(client / "key.pem")]
        answered = subprocess.run([*dial, *pair, "debug", "workers"], capture_output=True, check=False)
        stranger = subprocess.run([*dial, "debug", "workers"], capture_output=True, check=False)
        units = docker(
            "exec", name, "systemctl", "is-active", "buildkit.socket", "buildkit.service", "buildkit-prune.timer"
        )
        if answered.returncode or not stranger.returncode or units.split() != ["active"] * 3:
            sys.exit(f"error: {name} is not as it must be: {answered.stderr.decode()} {units}")


def measure(playbook: str, directory: Path, client: str, buildctl: str) -> Runs:
    """New hosts, all runs of one playbook, and the state that they reached."""
    directory.mkdir()
    names = [f"bench-{number}" for number in range(1, HOSTS + 1)]
    addresses = start(names)
    inventory = directory / "inventory.json"
    variables = {
        "ansible_connection": "community.docker.docker",
        "buildkitd_version": os.environ["BUILDKIT_NEW_VERSION"],
        "buildkitd_archive": os.environ["BUILDKIT_NEW_ARCHIVE"],
        "buildkitd_archive_sha256": os.environ["BUILDKIT_NEW_SHA256"],
        "buildkit_clients": ["alice"],
        "buildkit_pki_dir": str(directory / "pki"),
        "buildkit_serial": "100%",
        "buildctl": buildctl,
    }
    hosts = {name: {"buildkit_addresses": [address]} for name, address in addresses.items()}
    inventory.write_text(json.dumps({"buildkit_daemons": {"hosts": hosts, "vars": variables}}))
    try:
        print(f"{playbook} ...", flush=True)
        first = play(playbook, inventory, names[:1])
        one = unchanged(playbook, inventory, names[:1])
        play(playbook, inventory, names)
        every = unchanged(playbook, inventory, names)
        check_state(addresses, directory / "pki" / client, buildctl)
    finally:
        stop(names)
    return Runs(first, one, every)


def main() -> None:
    """Measures and prints the table."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["tar", "-xzf", os.environ["BUILDKIT_NEW_ARCHIVE"], "-C", scratch, "bin/buildctl"], check=True)
        buildctl = f"{scratch}/bin/buildctl"
        ours = measure("buildfarm.buildkit.site", Path(scratch, "ours"), "clients/alice", buildctl)
        theirs = measure(str(HANDWRITTEN), Path(scratch, "theirs"), "alice", buildctl)
    print(f"\n{'':<46} {'site':>9} {'by hand':>9} {'ratio':>7}  tasks per host")
    rows = [
        ("first run, 1 host", ours.first, theirs.first),
        ("unchanged run, 1 host", ours.one, theirs.one),
        (f"unchanged run, {HOSTS} hosts", ours.all, theirs.all),
    ]
    for name, my, their in rows:
        times = f"{my.seconds:>7.1f} s {their.seconds:>7.1f} s {my.seconds / their.seconds:>7.2f}"
        print(f"{name:<46} {times}  {my.tasks:.0f} against {their.tasks:.0f}")
    growth = [runs.all.seconds / runs.one.seconds for runs in (ours, theirs)]
    print(f"{f'  {HOSTS} hosts against 1 (aim: under {HOSTS})':<46} {growth[0]:>9.1f} {growth[1]:>9.1f}")
    print(f"  aim: a ratio of {AIM} or less")


if __name__ == "__main__":
    main()
