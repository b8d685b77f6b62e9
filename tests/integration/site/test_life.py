# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder from its first check to its removal, in this order."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import typing as t
from pathlib import Path

import daemon as daemons
import pytest
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until
from certificates import CLIENT, Authority, Pair
from fleet import NAME, Builder, Fleet

# How long a step sleeps, which tells it from those of other runs on this machine.
SECONDS = str(86400 + os.getpid())


def buildctl(fleet: Fleet, *arguments: str, tls: t.Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """The client of the release, which knows nothing of this collection."""
    command = [str(fleet.host / "bin" / "buildctl"), "--addr", fleet.variables["buildkit_endpoint"], *tls, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_check_mode_on_a_virgin_host_changes_nothing(builder: Builder) -> None:
    """It goes to the end, predicts the changes, and leaves neither a PKI nor a file on the host."""
    assert builder.prediction.changed >= 5
    assert builder.left_by_prediction == ["host"]


def test_the_first_run_proves_the_builder(builder: Builder) -> None:
    """And tells the client how to use it."""
    endpoint = builder.fleet.variables["buildkit_endpoint"]
    assert builder.first.changed >= 5
    for part in ("exec build in", "dockerfile build in", "stranger without a client certificate refused"):
        assert re.search(rf"{endpoint}: BuildKit .*{part}", " ".join(builder.first.output.split())), part
    directory = builder.fleet.pki / "clients" / "alice"
    assert f"buildctl --addr {endpoint} --tlsdir {directory} debug workers" in builder.first.output
    assert sorted(os.listdir(directory)) == ["ca.pem", "cert.pem", "env.sh", "key.pem"]


def test_the_second_run_changes_nothing(builder: Builder) -> None:
    """Neither really nor in check mode; and it is the same daemon."""
    fleet = builder.fleet
    before, pid = fleet.state(), fleet.pid()
    assert fleet.play("site").changed == 0
    assert fleet.play("site", "--check", "--diff").changed == 0
    assert fleet.state() == before
    assert fleet.pid() == pid


def test_nothing_secret_is_printed(builder: Builder) -> None:
    """No key, no passphrase, with the diff of the first run too."""
    fleet = builder.fleet
    keys = [path for path in [*fleet.pki.rglob("key.pem"), fleet.host / "tls" / "key.pem"] if path.is_file()]
    secret = {line for key in keys for line in key.read_text().splitlines() if len(line) > 40}
    secret.add(fleet.variables["buildkit_pki_ca_passphrase"])
    assert len(keys) == 4  # of the CA, of two clients, of the daemon
    assert not [line for line in secret if line in builder.first.output + builder.prediction.output]


def test_files_are_for_root_alone(builder: Builder) -> None:
    """Keys, certificates, socket, pid file and log; the key of the daemon is on its host only."""
    fleet = builder.fleet
    for directory in (fleet.pki, fleet.host / "tls", fleet.host / "run", fleet.host / "log"):
        for path in (directory, *directory.rglob("*")):
            state = path.lstat()
            if not path.is_symlink() and path.name not in ("buildkitd.sock", "otel-grpc.sock"):
                assert (state.st_uid, stat.S_IMODE(state.st_mode) & 0o077) == (0, 0), path
    assert sorted(os.listdir(fleet.pki / "daemons" / NAME)) == ["ca.pem", "cert.pem"]


def test_a_client_builds_with_its_files(builder: Builder, tmp_path: Path) -> None:
    """Through env.sh, with buildctl."""
    fleet = builder.fleet
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY hello /\n")
    (tmp_path / "hello").write_text("hello")
    script = '. "$1"/env.sh && buildctl build --frontend dockerfile.v0 --local context=. --local dockerfile=. "$2" "$3"'
    directory = str(fleet.pki / "clients" / "alice")
    built = subprocess.run(
        ["bash", "-c", script, "bash", directory, "--output", f"type=local,dest={tmp_path}/out"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{fleet.host}/bin{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "out" / "hello").read_text() == "hello"


@pytest.mark.parametrize("stranger", ["without TLS", "without a certificate", "of another CA"])
def test_strangers_are_refused(builder: Builder, other_authority: Authority, stranger: str) -> None:
    """As buildctl sees it, which gets through with a client's files."""
    files = builder.fleet.pki / "clients" / "alice"
    ca, good = ["--tlscacert", str(files / "ca.pem")], ["--tlsdir", str(files)]
    assert "PLATFORMS" in buildctl(builder.fleet, "debug", "workers", tls=good).stdout
    other: Pair = other_authority.issue("stranger", CLIENT)
    how = {
        "without TLS": [],
        "without a certificate": ca,
        "of another CA": [*ca, "--tlscert", str(other.cert), "--tlskey", str(other.key)],
    }
    refused = buildctl(builder.fleet, "debug", "workers", tls=how[stranger])
    assert refused.returncode != 0
    assert "PLATFORMS" not in refused.stdout


def test_verify_proves_it_again(builder: Builder) -> None:
    """Without a change."""
    run = builder.fleet.play("verify")
    assert run.changed == 0
    assert "exec build in" in run.output


def test_a_daemon_without_a_ca_is_found_out(builder: Builder, tmp_path: Path) -> None:
    """Deployed with the very certificate of the builder, and open to anyone."""
    fleet = builder.fleet
    tls = fleet.host / "tls"
    with daemons.run(fleet.host / "bin", tmp_path / "open", pair=Pair(tls / "cert.pem", tls / "key.pem")) as daemon:
        run = fleet.play("verify", buildkit_endpoint=daemon.tcp)
    assert run.code != 0
    assert '"kind": "open_to_anyone"' in run.output
    assert "without a client certificate" in run.output
    assert "Traceback" not in run.output


def step_until(fleet: Fleet, task: str, **variables: t.Any) -> str:
    """Run site task by task, kill it when this task is next, and tell what it said."""
    process = fleet.start("site", "--step", stdin=subprocess.PIPE, **variables)
    said = b""
    with process:
        while True:
            byte = process.stdout.read(1)
            said += byte
            question = said.rpartition(b"\n")[2]
            if not byte or (question.endswith(b"(c)ontinue: ") and task.encode() in question):
                break
            if question.endswith(b"(c)ontinue: "):
                said += b"y\n"
                process.stdin.write(b"y\n")
                process.stdin.flush()
        os.killpg(process.pid, signal.SIGKILL)
    return said.decode()


def test_a_run_that_was_killed_before_the_restart_is_made_good(builder: Builder) -> None:
    """The new configuration is there and the daemon does not know it; the next run names that reason and restarts."""
    fleet = builder.fleet
    pid = fleet.pid()
    fleet.variables["buildkitd_config"] = {"debug": True}
    said = step_until(fleet, "Service | End buildkitd")
    assert "Perform task: TASK: buildfarm.buildkit.buildkitd : Service | End buildkitd" in said, said
    assert "debug = true" in (fleet.host / "config" / "buildkitd.toml").read_text()
    assert fleet.pid() == pid
    predicted, made_good = fleet.play("site", "--check"), fleet.play("site")
    for run in (predicted, made_good):
        assert run.changed == 1
        assert "Service | Run buildkitd (configuration changed)" in run.output
    assert fleet.pid() not in (0, pid)


def test_another_version_and_a_new_port(builder: Builder) -> None:
    """The reason is named, the daemon runs the new program at the new address, and is proved there."""
    fleet = builder.fleet
    fleet.variables.update(fleet.release("NEW"))
    fleet.port = ports.kept()
    fleet.variables.update(buildkit_port=fleet.port, buildkit_endpoint=f"tcp://127.0.0.1:{fleet.port}")
    run = fleet.play("site")
    assert run.changed >= 3
    assert "Service | Run buildkitd (binary changed" in run.output
    version = fleet.variables["buildkitd_version"]
    assert f"tcp://127.0.0.1:{fleet.port}: BuildKit v{version}" in run.output
    assert os.readlink(f"/proc/{fleet.pid()}/exe") == f"{fleet.host}/install/{version}/bin/buildkitd"


def environment(fleet: Fleet) -> list[str]:
    """What the running daemon was started with."""
    return Path(f"/proc/{fleet.pid()}/environ").read_text().split("\0")


def test_a_daemon_without_its_pid_file_gets_new_settings(builder: Builder) -> None:
    """In the same run in which it is found."""
    fleet = builder.fleet
    pid = fleet.pid()
    (fleet.host / "run" / "buildkitd.pid").unlink()
    fleet.variables["buildkitd_environment"] = {"COLOUR": "red"}
    run = fleet.play("site")
    assert run.code == 0, run.output
    assert "Service | Run buildkitd (command line changed)" in run.output
    assert fleet.processes() == [fleet.pid()] != [pid]
    assert "COLOUR=red" in environment(fleet)


def test_an_environment_that_breaks_the_daemon_is_taken_back(builder: Builder) -> None:
    """It runs with the one from before, and owes nothing."""
    fleet = builder.fleet
    fleet.variables["buildkitd_environment"] = {"GOMEMLIMIT": "nonsense"}
    broken = fleet.play("site")
    fleet.variables["buildkitd_environment"] = {"COLOUR": "red"}
    said = " ".join(broken.output.split())
    assert broken.code != 0, said
    assert "malformed GOMEMLIMIT" in said
    assert "went back to what was proved last (environment), and that was proved again" in said
    assert "COLOUR=red" in environment(fleet)
    assert fleet.play("site").changed == 0
    del fleet.variables["buildkitd_environment"]


@contextlib.contextmanager
def endless_build(fleet: Fleet, context: Path) -> t.Iterator[int]:
    """A build that goes on for ever; yields the process of its step."""
    libraries = re.findall(r"/\S+", subprocess.check_output(["ldd", "/bin/sleep"], text=True))
    for path in ("/bin/sleep", *libraries):
        (context / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, context / path[1:])
    (context / "Dockerfile").write_text(f'FROM scratch\nCOPY . /\nRUN ["/bin/sleep", "{SECONDS}"]\n')
    where = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    command = [str(fleet.host / "bin" / "buildctl"), "--addr", fleet.variables["buildkit_endpoint"]]
    command += ["--tlsdir", str(fleet.pki / "clients" / "alice"), "build", "--frontend", "dockerfile.v0", *where]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
        try:
            yield until(sleeping, "the step of the build")[0]
        finally:
            client.kill()
            for pid in sleeping():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def sleeping() -> list[int]:
    """The steps of :func:`endless_build` that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"/bin/sleep\0{SECONDS}\0".encode():
                found.append(int(path.parent.name))
    return found


def test_removal_amid_a_build(builder: Builder, tmp_path: Path) -> None:
    """Programs, configuration, keys, processes and mounts go; first the cache stays, then nothing is left to remove."""
    fleet = builder.fleet
    pki = {name: state for name, state in fleet.state().items() if name.startswith("pki")}
    assert fleet.processes()
    with endless_build(fleet, tmp_path):
        assert fleet.play("remove", buildkitd_stop_timeout=1).changed >= 3
        assert sleeping() == []
    assert fleet.processes() == []
    assert [
        name for name, (mode, _content) in fleet.state().items() if not stat.S_ISDIR(mode) and name not in pki
    ] == []
    assert (fleet.host / "cache" / "cache.db").is_file()
    assert fleet.play("remove", buildkitd_purge_cache=True).changed == 1
    assert fleet.mounts() == []
    assert not (fleet.host / "cache").exists()
    assert {name: state for name, state in fleet.state().items() if name.startswith("pki")} == pki
    assert fleet.play("remove", "--check", buildkitd_purge_cache=True).changed == 0
