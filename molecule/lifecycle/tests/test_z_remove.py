# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook remove leaves a host as it was before the first run. The last tests of the scenario."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from virgin import docker, virgin

PROJECT = Path(__file__).resolve().parents[3]
# Everything that a run could leave: names, types, modes, owners and links of all files, and the content of /etc.
SNAPSHOT = r"""
find / /run /tmp /var/lib/buildkit -xdev -printf '%p %y %m %U:%G %l\n'
find /etc -xdev -type f -exec sha256sum {} +
cat /proc/self/mounts | grep -v '^overlay / '
systemctl list-unit-files --no-legend
systemctl list-units --all --no-legend 'buildkit*'
getent passwd; getent group; ls /sys/class/net
"""
# What a running host changes by itself: Ansible, runc and systemd keep their own books, and so do timers of Debian at
# their time of day; the engine gives each container its names.
ITS_OWN = re.compile(
    r"(^|  )/(root/\.ansible|run/(runc|systemd|log|user)|(var/)?tmp/systemd-private-|var/log/"
    r"|var/lib/systemd/(?!timers/stamp-buildkit)|var/backups/|var/cache/apt/|var/lib/apt/daily_lock "
    r"|etc/(hosts|hostname|machine-id|resolv\.conf)$)"
)
# With a certificate; with programs; with units; with a socket, but no daemon behind it.
STAGES = [
    "TLS | Refuse TLS without a CA",
    "Configure | Write configuration",
    "Service | Listen on the network",
    "Service | Run buildkitd",
]
RUNNING = "/bin/sleep 86123"
FAILED_PRUNING = """
mkdir /run/systemd/system/buildkit-prune.service.d
printf '[Service]\\nExecStart=\\nExecStart=false\\n' >/run/systemd/system/buildkit-prune.service.d/fails.conf
systemctl daemon-reload
systemctl start buildkit-prune.service
rm -r /run/systemd/system/buildkit-prune.service.d
systemctl daemon-reload
systemctl is-failed buildkit-prune.service
"""

testinfra_hosts = ["ansible://lifecycle-new"]


def snapshot(name: str) -> set[str]:
    """All that is to be as it was."""
    lines = docker("exec", "-i", name, "sh", input=SNAPSHOT).splitlines()
    return {line for line in lines if not ITS_OWN.search(line)}


def play(inventory: Path, name: str, *arguments: str) -> list[str]:
    """The command of a playbook."""
    return ["ansible-playbook", f"buildfarm.buildkit.{name}", "--inventory", str(inventory), *arguments]


def changed(command: list[str]) -> int:
    """How many tasks changed something in a run that must succeed."""
    run = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return sum(int(count) for count in re.findall(r" changed=(\d+)", run.stdout.partition("PLAY RECAP")[2]))


def killed_before(command: list[str], task: str) -> None:
    """Takes a run task by task, and kills it when this task is next."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--step"],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said = b""
    with process:
        while True:
            byte = process.stdout.read(1)
            assert byte, said.decode()
            said += byte
            if said.endswith(b"(c)ontinue: "):
                if task.encode() in said.rpartition(b"Perform task")[2]:
                    break
                process.stdin.write(b"y\n")
                process.stdin.flush()
        os.killpg(process.pid, signal.SIGKILL)


def test_half_a_builder_is_removed(tmp_path):
    """What runs left that were killed at four stages; check mode finds nothing on a virgin host."""
    scenario = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory.yml"
    inventory = tmp_path / "inventory.yml"
    own = {"lifecycle-half": {"generation": 1, "host_address": "172.29.216.41"}}
    inventory.write_text(scenario.read_text() + f"        lifecycle-half: {json.dumps(own['lifecycle-half'])}\n")
    where = ["--limit", "lifecycle-half", "--extra-vars", json.dumps({"buildkit_pki_dir": f"{tmp_path}/pki"})]
    remove = play(inventory, "remove", *where)
    with virgin("lifecycle-half", "172.29.216.41") as name:
        before = snapshot(name)
        assert changed([*remove, "--check", "--diff"]) == 0
        for stage in STAGES:
            killed_before(play(inventory, "site", *where), stage)
            assert snapshot(name) != before, stage
            assert changed(remove) > 0, stage
            assert snapshot(name) ^ before == set(), stage
        assert changed(remove) == 0


def test_a_whole_builder_is_removed(host, builder, playbook):
    """Amid a build whose daemon was killed: its step ends too. The cache goes last, and another file system never."""
    inventory = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory.yml"
    remove = play(inventory, "remove", "--limit", builder.name)
    purge = [*remove, "--extra-vars", "buildkitd_purge_cache=true"]
    with virgin("lifecycle-virgin", "172.29.216.42") as name:
        before = snapshot(name)
    with step(host, builder):
        daemon = "systemctl show --property MainPID buildkit.service"
        killed = host.check_output(daemon)
        host.check_output("systemctl kill --signal KILL --kill-whom main buildkit.service")
        deadline = time.monotonic() + 600
        while host.check_output(daemon) in (killed, "MainPID=0"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        host.check_output("systemctl start buildkit.service")  # waits until it is ready
        assert host.run(FAILED_PRUNING).stdout == "failed\n"
        installed = {line for line in snapshot(builder.name) if " /etc/" in line or line.startswith("/usr/")}
        assert changed([*remove, "--check", "--diff"]) > 0
        assert installed <= snapshot(builder.name)
        assert host.run(f"pgrep -fx '{RUNNING}'").rc == 0
        host.check_output("mkdir /var/lib/buildkit/foreign && mount -t tmpfs none /var/lib/buildkit/foreign")
        refused = playbook("remove", "--limit", builder.name, "--extra-vars", "buildkitd_purge_cache=true")
        said = refused.stdout + refused.stderr
        assert "below it is mounted what no build step mounts: /var/lib/buildkit/foreign (tmpfs)" in said
        host.check_output("umount /var/lib/buildkit/foreign && rmdir /var/lib/buildkit/foreign")
        assert changed(remove) > 0
        assert host.run(f"pgrep -fx '{RUNNING}'").rc == 1
    left = snapshot(builder.name) - before
    assert any(line.startswith("/var/lib/buildkit/cache.db f ") for line in left)
    assert [line for line in left if not line.startswith("/var/lib/buildkit/")] == []
    assert changed(remove) == 0
    assert changed([*purge, "--check"]) == 1
    assert changed(purge) == 1
    assert snapshot(builder.name) ^ before == set()
    assert changed(purge) == 0


@contextlib.contextmanager
def step(host, builder) -> Iterator[None]:
    """A build whose only step goes on for ever."""
    libraries = re.findall(r"/\S+", subprocess.check_output(["ldd", "/bin/sleep"], text=True))
    for path in ("/bin/sleep", *libraries):
        target = builder.scratch / "context" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-L", path, target], check=True)
    context = builder.scratch / "context"
    (context / "Dockerfile").write_text(f"FROM scratch\nCOPY . /\nRUN {json.dumps(RUNNING.split())}\n")
    builder.buildctl("debug", "workers")  # unpacks it
    command = [str(builder.scratch / "buildctl"), "--addr", builder.endpoint]
    command += ["--tlsdir", str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "pki", "clients", "alice")), "build"]
    command += ["--frontend", "dockerfile.v0", "--local", f"context={context}", "--local", f"dockerfile={context}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
        try:
            deadline = time.monotonic() + 600
            while host.run(f"pgrep -fx '{RUNNING}'").rc:
                assert client.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield
        finally:
            client.kill()
