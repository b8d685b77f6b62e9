# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What whole runs of `site` cost, first and unchanged, on one host and on several; beside a playbook written by hand.

The one by hand (handwritten/) uses modules of ansible.builtin and community.crypto, and reaches the same state: the
same program behind the same kind of units, mTLS with a CA of its own, a client's certificate, and a timer that prunes.
It ends with `buildctl debug workers`; ours proves each builder with two builds and three strangers, and makes bundles.
What that proof takes is shown too: the difference to the same run without it.

Hosts are containers with systemd, on this machine, so they share its processors with Ansible. Both playbooks have hosts
of their own, the same connection, forks and pipelining, and all hosts at the same time (buildkit_serial 100%). They run
in turns, so that what else the machine does falls on both.
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
from dataclasses import dataclass, field, replace
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
class Side:
    """One playbook, its hosts with their addresses, and where it keeps its certificates."""

    name: str
    playbook: str
    directory: Path
    client: str
    addresses: dict[str, str]
    options: tuple[str, ...] = ()
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def play(self, what: str, hosts: int) -> None:
        """Run it on the first hosts, and note what it took."""
        names = list(self.addresses)[:hosts]
        own = {name: value for name, value in os.environ.items() if name != "ANSIBLE_STRATEGY"}
        environment = {**own, "ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "true"}
        command = ["ansible-playbook", "-i", str(self.directory / "inventory.json"), self.playbook, *self.options]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--limit", ",".join(names)], env=environment, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - began
        recap = re.findall(r"^\S+\s*: ok=(\d+)\s+changed=(\d+)", done.stdout.partition("PLAY RECAP")[2], re.MULTILINE)
        if done.returncode or len(recap) != len(names):
            sys.exit(f"error: {self.playbook} failed:\n{done.stdout}\n{done.stderr}")
        changed = sum(int(one) for _ok, one in recap)
        if changed and what.startswith("unchanged"):
            sys.exit(f"error: {self.playbook} changed something again:\n{done.stdout}")
        tasks = sum(int(ok) for ok, _changed in recap) / len(names)
        self.runs.setdefault(what, []).append(Run(took, tasks, changed))
        print(f"{what}: {self.name} {took:.1f} s", flush=True)

    def seconds(self, what: str) -> float:
        """The median of its runs of that kind."""
        return statistics.median(run.seconds for run in self.runs[what])


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
            *("--env", "container=docker", "--volume", "/var/lib/buildkit"),
            *(os.environ["BUILDKIT_HOST_IMAGE"], "systemd"),
        )
    for name in names:
        deadline = time.monotonic() + 300
        asked = ["docker", "exec", name, "systemctl", "is-system-running"]
        while subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() != "running":
            if time.monotonic() > deadline:
                sys.exit(f"error: the host {name} does not come up")
            time.sleep(0.2)
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return {name: docker("inspect", "--format", form, name) for name in names}


def host_names(whose: str) -> list[str]:
    """The names of the hosts of one side."""
    return [f"bench-{whose}-{number}" for number in range(1, HOSTS + 1)]


def stop(names: list[str]) -> None:
    """Removes the hosts, if they are there."""
    subprocess.run(["docker", "rm", "--force", "--volumes", *names], capture_output=True, check=False)


def side(name: str, playbook: str, directory: Path, client: str, buildctl: str) -> Side:
    """New hosts and their inventory, for one playbook."""
    directory.mkdir()
    names = host_names(directory.name)
    addresses = start(names)
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
    inventory = {"buildkit_daemons": {"hosts": hosts, "vars": variables}}
    (directory / "inventory.json").write_text(json.dumps(inventory))
    return Side(name, playbook, directory, client, addresses)


def check_state(one: Side, buildctl: str) -> None:
    """Both must have reached it: daemons that answer the client, and nobody without a certificate."""
    client = one.directory / "pki" / one.client
    for name, address in one.addresses.items():
        dial = [buildctl, "--addr", f"tcp://{address}:1234", "--tlscacert", str(client / "ca.pem")]
        pair = ["--tlscert", str(client / "cert.pem"), "--tlskey", str(client / "key.pem")]
        answered = subprocess.run([*dial, *pair, "debug", "workers"], capture_output=True, check=False)
        stranger = subprocess.run([*dial, "debug", "workers"], capture_output=True, check=False)
        units = docker(
            "exec", name, "systemctl", "is-active", "buildkit.socket", "buildkit.service", "buildkit-prune.timer"
        )
        if answered.returncode or not stranger.returncode or units.split() != ["active"] * 3:
            sys.exit(f"error: {name} is not as it must be: {answered.stderr.decode()} {units}")


def measure(ours: Side, theirs: Side) -> None:
    """All runs, in turns: the first, then unchanged ones on one host, and on all."""
    unproved = replace(ours, options=("-e", '{"buildkitd_verify": false}'))
    for hosts in (1, HOSTS):
        for one in (ours, theirs):
            one.play(f"first, {hosts}", hosts)
        for _round in range(ROUNDS):
            for one in (ours, theirs):
                one.play(f"unchanged, {hosts}", hosts)
            unproved.play(f"unchanged, {hosts}, without proof", hosts)


def show(ours: Side, theirs: Side) -> None:
    """Prints the table."""
    print(f"\n{'':<32} {'site':>9} {'by hand':>9} {'ratio':>7}  tasks per host")
    for name, what in [
        ("first run, 1 host", "first, 1"),
        ("unchanged run, 1 host", "unchanged, 1"),
        (f"unchanged run, {HOSTS} hosts", f"unchanged, {HOSTS}"),
    ]:
        mine, their = ours.seconds(what), theirs.seconds(what)
        tasks = f"{ours.runs[what][0].tasks:.0f} against {theirs.runs[what][0].tasks:.0f}"
        print(f"{name:<32} {mine:>7.1f} s {their:>7.1f} s {mine / their:>7.2f}  {tasks}")
        if f"{what}, without proof" in ours.runs:
            without = ours.seconds(f"{what}, without proof")
            print(f"{'  without its proof':<32} {without:>7.1f} s {'':>9} {without / their:>7.2f}")
    growth = [one.seconds(f"unchanged, {HOSTS}") / one.seconds("unchanged, 1") for one in (ours, theirs)]
    print(f"{f'{HOSTS} hosts against 1':<32} {growth[0]:>9.1f} {growth[1]:>9.1f}")
    print(f"Medians of {ROUNDS} unchanged runs. Aims: a ratio of {AIM} or less, and growth under {HOSTS}.")


def main() -> None:
    """Measures and prints the table."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            archive = os.environ["BUILDKIT_NEW_ARCHIVE"]
            subprocess.run(["tar", "-xzf", archive, "-C", scratch, "bin/buildctl"], check=True)
            buildctl = f"{scratch}/bin/buildctl"
            ours = side("site", "buildfarm.buildkit.site", Path(scratch, "ours"), "clients/alice", buildctl)
            theirs = side("by hand", str(HANDWRITTEN), Path(scratch, "theirs"), "alice", buildctl)
            measure(ours, theirs)
            for one in (ours, theirs):
                check_state(one, buildctl)
            show(ours, theirs)
    finally:
        stop([*host_names("ours"), *host_names("theirs")])


if __name__ == "__main__":
    main()
