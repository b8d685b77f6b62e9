# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What build steps can reach and use up, and what becomes of a disk that they fill."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

testinfra_hosts = ["ansible://buildkit_daemons"]

METADATA = "169.254.169.254"
MIB = 1024 * 1024
# A disk for the cache that a test may fill: its size, and a policy that keeps less than that.
SMALL_DISK = "size=400m,nr_inodes=3000"
SMALL_CONFIG = """
root = "/var/lib/buildkit"
[grpc.tls]
ca = "/etc/buildkit/tls/ca.pem"
cert = "/etc/buildkit/tls/cert.pem"
key = "/etc/buildkit/tls/key.pem"
[otel]
socketPath = "/run/buildkit/otel-grpc.sock"
[[worker.oci.gcpolicy]]
all = true
keepBytes = 157286400
maxUsedSpace = 157286400
"""
SMALL_UNIT = """[Service]
ExecStart=
ExecStart=/usr/local/lib/buildkit/current/bin/buildkitd --config /run/small.toml --addr fd:// \
--addr unix:///run/buildkit/buildkitd.sock
"""
# systemd starts no unit more than five times in ten seconds.
PRUNE = "{ systemctl reset-failed buildkit-prune.service 2>/dev/null; systemctl start buildkit-prune.service; }"
LEFT = "the daemon ended or is ending, so nothing more was pruned: the next run does that"
Step = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def wishes(host) -> dict[str, Any]:
    """The host's variables in the inventory."""
    return host.ansible.get_variables()


@pytest.fixture
def neighbour(builder, wishes) -> str:
    """The other host of the scenario."""
    return next(name for name in wishes["groups"]["buildkit_daemons"] if name != builder.name)


@pytest.fixture
def step(builder) -> Step:
    """Runs a shell script as a build step, with nothing but busybox around it."""
    builder.docker("cp", f"{builder.name}:/bin/busybox", str(builder.scratch / "busybox"))

    def run(script: str) -> subprocess.CompletedProcess[str]:
        (builder.scratch / "script").write_text(script)
        (builder.scratch / "Dockerfile").write_text(
            'FROM scratch\nCOPY busybox script /\nRUN ["/busybox", "sh", "/script"]\n'
        )
        context = ("--local", f"context={builder.scratch}", "--local", f"dockerfile={builder.scratch}")
        return builder.buildctl("build", "--no-cache", "--progress", "plain", "--frontend", "dockerfile.v0", *context)

    return run


def _address(builder, name: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return str(builder.docker("inspect", "--format", template, name).stdout.strip())


@contextmanager
def _listening(builder, name: str, address: str, port: int) -> Iterator[None]:
    """A web server on a host."""
    server = f"http.server --bind {address} {port}"
    builder.docker("exec", "--detach", name, "python3", "-m", *server.split())
    try:
        builder.docker("exec", name, "sh", "-c", f"until ss -ltn | grep -q ':{port} '; do sleep 0.1; done")
        yield
    finally:
        builder.docker("exec", name, "pkill", "-f", server)


def test_what_a_step_reaches(builder, host, step, wishes, neighbour) -> None:
    """On the bridge neither the host nor metadata services, but what is behind; on the host's network, everything."""
    bridged = wishes.get("buildkit_network") == "bridge"
    far = _address(builder, neighbour)
    host.run(f"ip route replace {METADATA} via {far}")
    builder.docker("exec", neighbour, "ip", "address", "replace", f"{METADATA}/32", "dev", "lo")
    anywhere = ".".join("0000")
    targets = {
        "loopback": f"127.0.0.1 {8101}",
        "address": f"{builder.address} {8102}",
        "daemon": f"{builder.address} 1234",
        "published": f"{builder.address} 8104",
        "metadata": f"{METADATA} 8103",
        "neighbour": f"{far} 8103",
    }
    # As engines publish a port of a container: the host passes it on.
    passed_on = f"-d {builder.address} -p tcp --dport 8104 -j DNAT --to-destination {far}:8103"
    for chain in ("PREROUTING", "OUTPUT"):
        host.check_output(f"iptables -t nat -A {chain} {passed_on}")
    expected = {"neighbour"} if bridged else set(targets)
    # What shall be open has all the time of a slow machine.
    connect = "busybox nc -w {} {} </dev/null >/dev/null 2>&1 && echo {} is open"
    tried = [connect.format(60 if name in expected else 2, target, name) for name, target in targets.items()]
    script = "".join(f"/{attempt}\n" for attempt in tried) + "true\n"
    try:
        with ExitStack() as listeners:
            listeners.enter_context(_listening(builder, builder.name, "127.0.0.1", 8101))
            listeners.enter_context(_listening(builder, builder.name, builder.address, 8102))
            listeners.enter_context(_listening(builder, neighbour, anywhere, 8103))
            # Whatever a step is refused below, the host itself reaches.
            for name, target in targets.items():
                assert host.check_output(connect.format(60, target, name)) == f"{name} is open"
            built = step(script)
    finally:
        for chain in ("PREROUTING", "OUTPUT"):
            host.run(f"iptables -t nat -D {chain} {passed_on}")
        host.run(f"ip route delete {METADATA}")
        builder.docker("exec", neighbour, "ip", "address", "delete", f"{METADATA}/32", "dev", "lo")
    assert built.returncode == 0, built.stderr
    reached = set(re.findall(r"(\w+) is open", built.stderr))
    assert reached == expected


def test_limits_bound_steps_and_spare_the_daemon(builder, host, step, wishes) -> None:
    """A step that takes more memory than all may have is killed, the next one runs, and the daemon never noticed."""
    limits = wishes.get("buildkitd_limits")
    daemon = host.check_output("systemctl show --property MainPID buildkit.service")
    assert step("/busybox true").returncode == 0
    # A step in cgroup v2 sees none of its parents, so look from outside: runc leaves the parent of all steps there.
    groups = host.run(
        "cd /sys/fs/cgroup && ls -d buildkit.slice/buildkit memory/buildkit.slice/buildkit"
    ).stdout.split()
    assert len(groups) == (1 if limits else 0)
    if not limits:
        return
    shown = host.check_output("systemctl show --property MemoryMax,TasksMax,CPUQuotaPerSecUSec buildkit.slice")
    assert set(shown.splitlines()) == {f"MemoryMax={512 * MIB}", "TasksMax=256", "CPUQuotaPerSecUSec=1.500000s"}
    # One of them is there: of cgroup v2 or of v1.
    files = ("buildkit.slice/memory.max", "memory/buildkit.slice/memory.limit_in_bytes")
    in_force = host.run(f"cd /sys/fs/cgroup && cat {' '.join(files)}").stdout
    assert int(in_force) == 512 * MIB
    # The limit is of memory: where the machine has swap, a step could go on with that.
    host.run(
        "cd /sys/fs/cgroup; echo 0 >buildkit.slice/memory.swap.max; "
        f"echo {512 * MIB} >memory/buildkit.slice/memory.memsw.limit_in_bytes"
    )
    hungry = step("/busybox dd if=/dev/zero of=/dev/null bs=700M count=1")
    assert hungry.returncode != 0
    assert "exit code: 137" in hungry.stderr
    assert step("/busybox dd if=/dev/zero of=/dev/null bs=100M count=1").returncode == 0
    crowd = step("i=0; while [ $i -lt 400 ]; do /busybox sleep 3600 & i=$((i+1)); done; wait")
    assert "can't fork" in crowd.stderr
    assert host.check_output("systemctl show --property MainPID buildkit.service") == daemon


@contextmanager
def _no_timer(host) -> Iterator[None]:
    """Nothing prunes but the test."""
    host.check_output("systemctl stop buildkit-prune.timer buildkit-prune.service")
    try:
        yield
    finally:
        host.check_output("systemctl start buildkit-prune.timer")


@contextmanager
def _small_disk(builder, host) -> Iterator[None]:
    """The daemon, for a while, with a small cache on a small disk of its own."""
    script = f"""set -e
systemctl stop buildkit.service
mount -t tmpfs -o {SMALL_DISK} tmpfs /var/lib/buildkit
mkdir -p /run/systemd/system/buildkit.service.d
printf '%s' '{SMALL_CONFIG}' >/run/small.toml
printf '%s' '{SMALL_UNIT}' >/run/systemd/system/buildkit.service.d/small.conf
systemctl daemon-reload
systemctl start buildkit.service
{PRUNE}
"""
    try:
        builder.docker("exec", builder.name, "sh", "-c", script)
        yield
    finally:
        host.check_output(
            "systemctl stop buildkit.service; umount -l /var/lib/buildkit; "
            "rm -r /run/small.toml /run/systemd/system/buildkit.service.d; systemctl daemon-reload; "
            "systemctl reset-failed; systemctl start buildkit.socket buildkit.service"
        )


def _cached(host) -> int:
    """Bytes of the cache, as the daemon counts them."""
    sizes = host.check_output("buildctl du --format '{{range .}}{{.Size}} {{end}}'")
    return sum(int(size) for size in sizes.split())


def _free(host, what: str) -> int:
    return int(host.check_output(f"stat -f -c %{what} /var/lib/buildkit"))


def _fill(host, command: str, what: str) -> None:
    """Leave nothing free, nor what the daemon still frees after a build."""
    deadline = time.monotonic() + 300
    while _free(host, what):
        assert time.monotonic() < deadline
        host.run(f"cd /var/lib/buildkit; {command}")


def _told(host) -> str:
    """What pruning said so far, with what the journal was still about to write."""
    return host.check_output("journalctl --sync; journalctl --unit buildkit-prune.service --output cat")


def _prune_a_daemon_that_is_killed(host) -> int:
    """It is killed when it has been asked for its policy. Returns how the unit ended."""
    killed = f"""
kill -STOP $(systemctl show -P MainPID buildkit.service)
{PRUNE} &
until pgrep -f 'buildctl .*debug [w]orkers' >/dev/null; do kill -0 $! || break; sleep 0.1; done
systemctl kill --signal KILL --kill-whom main buildkit.service
wait $!
"""
    return int(host.run(killed).rc)


def test_a_full_disk_recovers(builder, host, step) -> None:
    """An idle daemon is pruned by its own policy; a disk without space or inodes harder, until builds run again."""
    assert host.check_output("systemctl is-active buildkit-prune.timer") == "active"
    with _no_timer(host), _small_disk(builder, host):
        reserve = host.file("/var/lib/buildkit/.reserve")
        assert reserve.size == 4 * MIB

        # The daemon's own collection ran when it started, and does so once a minute at most. On a slow machine that is
        # amid this.
        for name in "abcdefgh":
            assert step(f"/busybox dd if=/dev/zero of=/{name} bs=1M count=100").returncode == 0
            if _cached(host) > 200 * MIB:
                break
        assert _cached(host) > 200 * MIB
        host.check_output(PRUNE)
        assert 100 * MIB < _cached(host) < 150 * MIB

        # More than the policy would allow, for somebody else fills the disk too.
        _fill(host, "cat /dev/zero >>foreign", "a")
        assert "no space left" in step("/busybox true").stderr
        host.check_output(PRUNE)
        assert _cached(host) < 10 * MIB
        assert step("/busybox true").returncode == 0
        assert reserve.exists
        assert re.search(r"less than 5 % are free: \d+ of 102400 blocks", _told(host))

        # It may also end for want of room, as 0.13 does, and is helped to start again.
        host.check_output("rm /var/lib/buildkit/foreign")
        assert step("/busybox dd if=/dev/zero of=/three bs=1M count=100").returncode == 0
        _fill(host, "cat /dev/zero >>foreign", "a")
        assert _prune_a_daemon_that_is_killed(host) == 0
        assert step("/busybox true").returncode == 0

        host.check_output("rm /var/lib/buildkit/foreign")
        many = "i=0; while [ $i -lt 2000 ]; do : >/f$i; i=$((i+1)); done"
        assert step(many).returncode == 0
        _fill(host, "i=0; while : >f$i; do i=$((i+1)); done", "d")
        host.check_output(PRUNE)
        assert _free(host, "d") > 1500
        assert step("/busybox true").returncode == 0

        # What is not the cache cannot be pruned, and that is told.
        host.check_output("rm -f /var/lib/buildkit/f*")
        most = _free(host, "a") * _free(host, "S") // MIB - 10
        host.check_output(f"dd if=/dev/zero of=/var/lib/buildkit/foreign bs=1M count={most}")
        assert host.run(PRUNE).rc != 0
        assert "still less than 5 %: something else fills this disk, or running builds do" in _told(host)


def test_a_stopped_builder_is_left_alone(host) -> None:
    """The timer does not start a daemon that somebody stopped."""
    host.check_output("systemctl stop buildkit.service")
    try:
        host.check_output(PRUNE)
        assert host.run("systemctl is-active buildkit.service").stdout.strip() == "inactive"
    finally:
        host.check_output("systemctl start buildkit.service")


def test_a_daemon_that_ends_meanwhile_is_no_failure(builder, host) -> None:
    """What it would have pruned is left to the next run, which is told."""
    with _no_timer(host), _small_disk(builder, host):
        before = _told(host).count(LEFT)
        assert _prune_a_daemon_that_is_killed(host) == 0
        assert _told(host).count(LEFT) == before + 1


def test_a_daemon_that_does_not_tell_its_policy_is_reported(host) -> None:
    """The unit fails and says so, instead of pruning nothing in silence."""
    socket = "/run/buildkit/buildkitd.sock"
    with _no_timer(host):
        host.check_output(f"mv {socket} {socket}.away")
        try:
            assert host.run(PRUNE).rc != 0
        finally:
            host.check_output(f"mv {socket}.away {socket}; systemctl reset-failed buildkit-prune.service")
    assert "the daemon does not tell its policy, so nothing was pruned" in _told(host)


def test_what_cannot_be_meant_is_refused(builder, playbook, wishes) -> None:
    """All of it at once, and before anything is looked at twice."""
    bridged = wishes.get("buildkit_network") == "bridge"
    bad: dict[str, object] = {
        "buildkitd_limits": {"memory": "lots"},
        "buildkitd_environment": {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"},
        "buildkitd_prune_interval": "10x",
    }
    told = ["memory is a number with K, M, G, T or %", "the unit is no place for secrets", "a time span such as 10min"]
    if bridged:
        bad |= {"buildkitd_network_subnet": f"{builder.address}/32", "buildkitd_network_blocked": ["999.1.1.1"]}
        told += [f"The network {builder.address}/32 of build steps overlaps", "it may hold the word host"]
    else:
        bad |= {"buildkitd_config": {"grpc": {"debugAddress": "unix:///run/buildkit/debug.sock"}}}
        told += ["only BuildKit 0.19.0 and newer take a unix socket there"]
    refused = playbook("site", "--limit", builder.name, "--extra-vars", json.dumps(bad))
    assert refused.returncode != 0
    assert re.search(r"changed=0 .*failed=1", refused.stdout)
    words = " ".join((refused.stdout + refused.stderr).split())
    assert [message for message in told if message not in words] == []
    assert "authorization=secret" not in words
