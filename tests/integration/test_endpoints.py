# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of address leads to a real daemon, in the way in which buildctl gets there, and leaves no process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Iterator

import containers
import daemon as daemons
import peers
import pytest
import sshd as sshds
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    endpoint,
    options,
    verify,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, InputError
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.host import stand_in
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import SERVER, Authority, Pair
from daemon import Daemon
from peers import LIMITS
from sshd import Sshd, path_with


def proof_of(*addresses: str, **settings: Any) -> list[dict[str, Any]]:
    """What is proved of daemons by an exec build."""
    wish = verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, "builds": ("exec",), **settings})
    return [report.as_dict() for report in verify.verify([verify.Daemon(one) for one in addresses], wish)]


def failure_of(address: str, **settings: Any) -> dict[str, Any]:
    """Why the daemon at an address is not proved."""
    [report] = proof_of(address, **settings)
    assert report["failure"] is not None, report
    return report["failure"]


def own_children() -> list[int]:
    """Processes that this one started and that are still there, zombies too."""
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, task.read_text(encoding="ascii").split())
    return sorted(found)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever a test does, the programs that it started have ended and were waited for."""
    before = own_children()
    yield
    assert [child for child in own_children() if child not in before] == []


@pytest.fixture(scope="module")
def sshd(mtls: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd in whose sessions buildctl is in PATH and finds the daemon's socket by itself."""
    environment = {"PATH": path_with(mtls.bin), "BUILDKIT_HOST": mtls.unix}
    with sshds.run(tmp_path_factory.mktemp("sshd") / "home", environment=environment) as running:
        yield running


@pytest.fixture
def ssh(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """The same, with its ssh as the first in PATH."""
    monkeypatch.setenv("PATH", path_with(sshd.path))
    return sshd


class TestSsh:
    """ssh://"""

    def test_default_socket(self, ssh: Sshd) -> None:
        """Without a path it is where buildctl finds the daemon over there."""
        [report] = proof_of(f"ssh://{ssh.address}")
        assert report["failure"] is None
        assert report["ok"] is True
        assert report["version"].startswith("v0.")
        assert report["certificate"] is None
        assert report["refusals"] == {}
        assert report["timings_ms"]["connect"] > 1

    def test_named_socket(self, ssh: Sshd, mtls: Daemon) -> None:
        """A path names the socket."""
        path = mtls.unix[len("unix://") :]
        [report] = proof_of(f"ssh://{ssh.address}{path}")
        assert report["failure"] is None
        assert failure_of(f"ssh://{ssh.address}{path}.not")["kind"] == "helper_failed"

    def test_fleet(self, ssh: Sshd) -> None:
        """Several at once."""
        reports = proof_of(*[f"ssh://{ssh.address}"] * 8)
        assert [report["failure"] for report in reports] == [None] * 8

    def test_socket_is_missing(self, ssh: Sshd, tmp_path: Path) -> None:
        """What buildctl says over there is in the failure, and so is the command."""
        failure = failure_of(f"ssh://{ssh.address}{tmp_path}/none.sock")
        assert failure["kind"] == "helper_failed"
        assert "none.sock: connect: no such file or directory" in failure["message"]
        assert f"-- 127.0.0.1 buildctl --addr unix://{tmp_path}/none.sock dial-stdio ended" in failure["message"]

    def test_host_key_is_unknown(self, ssh: Sshd) -> None:
        """A host that ssh does not know is not trusted, and nobody is asked."""
        known = ssh.known_hosts.read_text(encoding="ascii")
        ssh.known_hosts.write_text("", encoding="ascii")
        try:
            failure = failure_of(f"ssh://{ssh.address}")
        finally:
            ssh.known_hosts.write_text(known, encoding="ascii")
        assert failure["kind"] == "helper_failed"
        assert "ended with exit code 255; ssh said:" in failure["message"]
        assert "Host key verification failed." in failure["message"]

    def test_key_is_refused(self, ssh: Sshd) -> None:
        """A key that is not accepted is said so, and no password is asked for."""
        accepted = ssh.authorized_keys.read_text(encoding="ascii")
        ssh.authorized_keys.write_text("", encoding="ascii")
        try:
            failure = failure_of(f"ssh://{ssh.address}")
        finally:
            ssh.authorized_keys.write_text(accepted, encoding="ascii")
        assert failure["kind"] == "helper_failed"
        assert "Permission denied (publickey)" in failure["message"]

    def test_shell_that_prints(self, ssh: Sshd) -> None:
        """What a login prints on its standard output spoils the stream, and is shown."""
        accepted = ssh.authorized_keys.read_text(encoding="ascii")
        greeting = 'command="echo Welcome home; exec $SSH_ORIGINAL_COMMAND" '
        ssh.authorized_keys.write_text(greeting + accepted, encoding="ascii")
        try:
            failure = failure_of(f"ssh://{ssh.address}")
        finally:
            ssh.authorized_keys.write_text(accepted, encoding="ascii")
        assert failure["kind"] == "helper_failed"
        assert "printed something before the daemon could answer: b'Welcome" in failure["message"]

    def test_buildctl_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine without buildctl is told from one without ssh."""
        with sshds.run(tmp_path / "sshd", environment={"PATH": "/usr/bin:/bin"}) as bare:
            monkeypatch.setenv("PATH", path_with(bare.path))
            failure = failure_of(f"ssh://{bare.address}")
        assert failure["kind"] == "helper_failed"
        assert "exit code 127" in failure["message"]
        assert "buildctl" in failure["message"].partition("; ssh said:")[2]

    def test_ssh_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that is not there is named."""
        monkeypatch.setenv("PATH", str(tmp_path))
        failure = failure_of("ssh://builder.example.com")
        assert failure["kind"] == "helper_failed"
        assert failure["message"] == "ssh cannot be started: No such file or directory"
        assert failure["remedy"].startswith("Install ssh where this runs")

    def test_port_is_closed(self, ssh: Sshd) -> None:
        """Where no sshd is, ssh says so."""
        address = f"tcp://127.0.0.1:{ports.kept()}"
        failure = failure_of(f"ssh://{address[len('tcp://') :]}")
        assert failure["kind"] == "helper_failed"
        assert "Connection refused" in failure["message"]

    def test_silent_port(self, ssh: Sshd) -> None:
        """An ssh that gets no answer ends with our limit, and the failure has the stage and the command."""
        with peers.listening(peers.stay_silent) as address:
            failure = failure_of(f"ssh://{address[len('tcp://') :]}", connect_timeout=LIMITS[0])
        assert failure["kind"] == "timeout"
        assert failure["message"].startswith("The HTTP/2 greeting through ssh -p ")
        assert "was not done within 1 s" in failure["message"]

    def test_connection_that_breaks(self, ssh: Sshd) -> None:
        """A daemon that was there, and whose ssh ends, is reported with what ssh says."""

        async def talk() -> None:
            peer = channel.Peer(endpoint.parse(f"ssh://{ssh.address}"))
            connection = await channel.open_connection(peer, timeout=LONG)
            try:
                asked = control.Control(connection.channel, timeout=LONG)
                await asked.info()
                os.kill(connection.raw.helper.process_id, 15)
                await asked.info()
            finally:
                await connection.close()

        with pytest.raises(Failure) as caught:
            asyncio.run(talk())
        assert caught.value.kind.value == "helper_failed"
        assert "dial-stdio" in caught.value.message

    def test_shared_connection(self, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An ssh that stays as the master of later ones holds nothing up, although it keeps our end of its errors."""
        program, control_path = tmp_path / "ssh", tmp_path / "master"
        shared = f"-o ControlMaster=auto -o ControlPersist=600 -o ControlPath={control_path}"
        program.write_text(f'#!/bin/sh\nexec {sshd.path}/ssh {shared} "$@"\n', encoding="ascii")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", path_with(tmp_path))
        try:
            for _number in range(2):
                [report] = proof_of(f"ssh://{sshd.address}")
                assert report["failure"] is None
            assert control_path.exists()
            # Whoever waits for the end of its errors has a time-out.
            assert failure_of(f"ssh://{sshd.address}{tmp_path}/none.sock")["kind"] == "helper_failed"
        finally:
            end = [
                "ssh",
                "-O",
                "exit",
                "-o",
                f"ControlPath={control_path}",
                "-p",
                sshd.address.rpartition(":")[2],
                "127.0.0.1",
            ]
            subprocess.run(end, check=True, capture_output=True)

    def test_proxy_commands_end_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What ssh itself started does not survive it."""
        proxy, program = tmp_path / "proxy", tmp_path / "ssh"
        proxy.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n", encoding="ascii")
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -o ProxyCommand={proxy} "$@"\n', encoding="ascii")
        proxy.chmod(0o755)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", path_with(tmp_path))
        for limit in LIMITS:
            assert failure_of("ssh://builder.example.com", connect_timeout=limit)["kind"] == "timeout"
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(encoding="ascii"):
                break
        pid = int((tmp_path / "pid").read_text(encoding="ascii"))
        until(lambda: not stand_in.alive(pid), "the end of what ssh started")


@pytest.fixture(scope="module")
def docker(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a Docker container with a daemon."""
    with containers.docker(bin_dir, tmp_path_factory.mktemp("docker")) as name:
        yield name


@pytest.fixture(scope="module")
def podman(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a Podman container with a daemon."""
    with containers.podman(bin_dir, tmp_path_factory.mktemp("podman")) as name:
        yield name


class TestStubbornPrograms:
    """A program that does not do as it should costs no more than the limit, and does not survive."""

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Puts a shell script in the place of podman."""

        def write(script: str) -> None:
            (tmp_path / "podman").write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
            (tmp_path / "podman").chmod(0o755)
            monkeypatch.setenv("PATH", path_with(tmp_path))

        return write

    def test_it_ignores_the_signal(self, install: Callable[[str], None]) -> None:
        """It is killed."""
        install("trap '' TERM; echo waiting >&2; while true; do sleep 0.1; done")
        for limit in LIMITS:
            failure = failure_of("podman-container://builder", connect_timeout=limit)
            assert failure["kind"] == "timeout"
            if "said" in failure["message"]:
                break
        assert failure["message"].endswith(f"was not done within {limit:g} s; podman said: waiting")

    def test_it_never_stops_complaining(self, install: Callable[[str], None]) -> None:
        """Only the end of what it says is kept."""
        install("yes 'no no no no no no no no no no no' | head -c 300000000 >&2; echo the end >&2; exit 3")
        failure = failure_of("podman-container://builder")
        assert failure["kind"] == "helper_failed"
        assert failure["message"].endswith("the end")
        assert len(failure["message"]) < 1000

    def test_it_closes_its_output_and_stays(self, install: Callable[[str], None]) -> None:
        """It does not hold up the failure until the time is over."""
        install("exec >&- <&-; sleep 300")
        failure = failure_of("podman-container://builder")
        assert failure["kind"] == "helper_failed"
        assert "closed its output" in failure["message"]

    def test_it_is_killed(self, install: Callable[[str], None]) -> None:
        """A signal is named."""
        install("kill -9 $$")
        assert "was ended by signal 9" in failure_of("podman-container://builder")["message"]


ADDRESSES = [
    "ssh://builder",
    "ssh://Builder.example.com",
    "ssh://alice@builder:2222",
    "ssh://alice%40example.com@builder",
    "ssh://alice@[2001:db8::1]:22",
    "ssh://builder/run/user/1000/buildkit/buildkitd.sock",
    "docker-container://Builder_1",
    "docker-container://builder?context=far.away",
    "podman-container://builder.1",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_commands_are_those_of_buildctl(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The same program with the same arguments as buildctl runs for the same address."""
    for name in ("ssh", "docker", "podman"):
        script = tmp_path / name
        script.write_text('#!/bin/sh\nprintf \'%s\\n\' "$0" "$@" >>"$CALLS"\nexit 1\n', encoding="ascii")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", path_with(tmp_path))
    calls = tmp_path / "theirs"
    with subprocess.Popen(
        [bin_dir / "buildctl", "--timeout", "600", "--addr", address, "debug", "info"],
        env={**os.environ, "CALLS": str(calls)},
        stderr=subprocess.DEVNULL,
    ) as buildctl:
        until(lambda: calls.exists() and calls.stat().st_size, "a call of buildctl's")
        buildctl.terminate()
    theirs = calls.read_text(encoding="ascii").split("\n")
    monkeypatch.setenv("CALLS", str(tmp_path / "ours"))
    assert failure_of(address)["kind"] == "helper_failed"
    ours = (tmp_path / "ours").read_text(encoding="ascii").split("\n")
    # buildctl may try again.
    assert theirs[: len(ours) - 1] == ours[:-1]


class TestDocker:
    """docker-container://"""

    def test_daemon_is_proved(self, docker: str) -> None:
        """It builds, and nobody dials it from outside."""
        [report] = proof_of(f"docker-container://{docker}")
        assert report["failure"] is None
        assert report["ok"] is True
        assert report["refusals"] == {}

    def test_docker_host_is_respected(self, docker: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The engine is the one that DOCKER_HOST names."""
        monkeypatch.setenv("DOCKER_HOST", "unix:///run/no-engine.sock")
        failure = failure_of(f"docker-container://{docker}")
        assert failure["kind"] == "helper_failed"
        assert "unix:///run/no-engine.sock" in failure["message"]

    def test_docker_host_over_ssh(self, docker: str, ssh: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        """The engine of another machine, by its own ssh."""
        calls = len(ssh.calls)
        monkeypatch.setenv("DOCKER_HOST", f"ssh://{ssh.address}")
        [report] = proof_of(f"docker-container://{docker}")
        assert report["failure"] is None
        assert ssh.calls[calls][-3:] == ["docker", "system", "dial-stdio"]

    def test_context(self, docker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The engine is the one of the context."""
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        host = "host=unix:///var/run/docker.sock"
        subprocess.run(["docker", "context", "create", "far", "--docker", host], check=True, capture_output=True)
        [report] = proof_of(f"docker-container://{docker}?context=far")
        assert report["failure"] is None
        failure = failure_of(f"docker-container://{docker}?context=none")
        assert failure["kind"] == "helper_failed"
        assert '"none"' in failure["message"]

    def test_container_is_missing(self, docker: str) -> None:
        """The engine's own words are in the failure."""
        failure = failure_of(f"docker-container://{docker}-not")
        assert failure["kind"] == "helper_failed"
        assert f"No such container: {docker}-not" in failure["message"]


class TestPodman:
    """podman-container://"""

    def test_daemon_is_proved(self, podman: str) -> None:
        """It builds."""
        [report] = proof_of(f"podman-container://{podman}")
        assert report["failure"] is None
        assert report["ok"] is True

    def test_container_is_missing(self, podman: str) -> None:
        """Podman's own words are in the failure."""
        failure = failure_of(f"podman-container://{podman}-not")
        assert failure["kind"] == "helper_failed"
        assert "no such container" in failure["message"]


class TestTcp:
    """tcp://"""

    def test_ipv6(self, bin_dir: Path, authority: Authority, client: Pair, tmp_path: Path) -> None:
        """An IPv6 address is dialled, looked for in the certificate, and closed to strangers."""
        address = f"tcp://[::1]:{ports.kept('::1')}"
        pair = authority.issue("ipv6", SERVER, sans=("::1",))
        with daemons.run(
            bin_dir, tmp_path / "daemon", pair=pair, ca=authority.path, options=("--addr", address)
        ) as running:
            one = verify.Daemon(address, str(authority.path), str(client.cert), str(client.key))
            [report] = verify.verify([one], verify.Proof(builds=("exec",), connect_timeout=LONG, build_timeout=LONG))
            assert report.as_dict()["failure"] is None
            assert all(refusal.refused for refusal in report.refusals.values())
            assert report.as_dict()["certificate"]["sans"] == ["IP:::1"]
            # The same daemon by its other address, which the certificate does not have.
            other = verify.Daemon(running.tcp, str(authority.path), str(client.cert), str(client.key))
            [report] = verify.verify([other], verify.Proof(builds=("exec",), connect_timeout=LONG, build_timeout=LONG))
        assert report.as_dict()["failure"]["kind"] == "server_name_mismatch"
        assert "it names IP:::1" in report.as_dict()["failure"]["message"]

    def test_proxies_never_apply(
        self, mtls: Daemon, authority: Authority, client: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever proxy the environment names, it hears nothing."""
        met = threading.Event()

        def proxy(_connection: socket.socket) -> None:
            met.set()

        daemon = verify.Daemon(mtls.tcp, str(authority.path), str(client.cert), str(client.key))
        with peers.listening(proxy) as address:
            for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "socks_proxy"):
                monkeypatch.setenv(name, address.replace("tcp://", "http://"))
                monkeypatch.setenv(name.upper(), address.replace("tcp://", "http://"))
            monkeypatch.setenv("no_proxy", "")
            monkeypatch.setenv("NO_PROXY", "")
            [report] = verify.verify([daemon], verify.Proof(connect_timeout=LONG))
            [plain] = proof_of(mtls.unix)
        assert report.as_dict()["failure"] is None
        assert plain["failure"] is None
        assert not met.is_set()


class TestTlsOptions:
    """Options of TLS belong to tcp:// alone."""

    @pytest.mark.parametrize("scheme", ["unix", "ssh", "docker-container", "podman-container"])
    @pytest.mark.parametrize("given", [{"ca_path": "ca.pem"}, {"tls_hostname": "builder"}])
    def test_they_are_refused_elsewhere(self, scheme: str, given: dict[str, str]) -> None:
        """They are never ignored, since whoever gives them expects TLS."""
        address = "unix:///run/x.sock" if scheme == "unix" else f"{scheme}://builder"
        with pytest.raises(InputError, match=rf"{next(iter(given))} cannot be used there: buildkitd speaks TLS on tcp"):
            verify.verify([verify.Daemon(address, **given)], verify.Proof())

    def test_a_fleet_may_share_them(self, mtls: Daemon, authority: Authority, client: Pair) -> None:
        """What is meant for the whole fleet goes to those daemons that have a use for it."""
        shared = {
            "address": None,
            "daemons": [{"address": mtls.tcp}, {"address": mtls.unix}],
            "ca_path": str(authority.path),
            "client_cert": str(client.cert),
            "client_key": str(client.key),
            "tls_hostname": None,
        }
        reports = verify.verify(options.read_daemons(shared), verify.Proof(builds=(), connect_timeout=LONG))
        assert [report.failure for report in reports] == [None, None]
        assert [bool(report.certificate) for report in reports] == [True, False]
