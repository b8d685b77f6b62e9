# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module buildkitd_host_info, run as Ansible runs it, on this very host."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import types
import typing as t
from pathlib import Path

import cryptography
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc, systemd
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkitd_host_info
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import Outcome, run_module, snapshot

Run = t.Callable[..., Outcome]
ALL_IPV4 = ".".join("0000")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs the module with all its directories below the test's own."""
    options = {name: f"{tmp_path}/{name}" for name in ("install_dir", "bin_dir", "tls_dir", "pid_file")}

    def once(python_path: Path | None = None, python: str = sys.executable, **wanted: t.Any) -> Outcome:
        return run_module("buildkitd_host_info", {**options, **wanted}, python=python, python_path=python_path)

    return once


@pytest.fixture
def listener() -> t.Iterator[t.Callable[[str], int]]:
    """A function that listens on an address, and tells on which port."""
    sockets = []

    def listen(address: str) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sockets.append(socket.socket(family))
        sockets[-1].bind((address, 0))
        sockets[-1].listen()
        return int(sockets[-1].getsockname()[1])

    yield listen
    for one in sockets:
        one.close()


def of_us(outcome: Outcome) -> list[str]:
    """What is said of us; on another address somebody else may have the same port."""
    return [one for one in outcome.result["foreign_listeners"] if one.endswith(f" (process {os.getpid()})")]


def test_a_virgin_host(run: Run, tmp_path: Path) -> None:
    """Nothing is there, nothing fails, nothing is made."""
    result = run(version="0.31.0", port=1).result
    assert result["changed"] is False
    empty = ("installed_sha256", "current_version", "unlinked_programs", "foreign_programs", "foreign_listeners")
    assert not [name for name in (*empty, "tls_files", "process") if result[name]]
    assert (result["machine"], result["python"]) == (os.uname().machine, sys.executable)
    assert result["cryptography"] == cryptography.__version__
    assert result["proof_obstacle"] == ""
    assert set(result["units"]) == {"buildkit.service", "buildkit.socket"}
    assert set(result["other_units"]) == {"buildkit-prune.timer", "buildkit.slice"}
    assert result["network_obstacles"] == []
    assert snapshot(tmp_path) == {}


def test_an_installed_version(run: Run, tmp_path: Path) -> None:
    """Its checksum, which version is in use, and what is not linked yet."""
    programs = tmp_path / "install_dir" / "0.31.0" / "bin"
    programs.mkdir(parents=True)
    for name in ("buildkitd", "buildctl", "buildkit-runc", "buildkit-qemu-arm"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (programs.parent / ".sha256").write_text("abc\n")
    current = tmp_path / "install_dir" / "current"
    current.symlink_to("0.30.0")
    (tmp_path / "bin_dir").mkdir()
    (tmp_path / "bin_dir" / "buildctl").symlink_to(current / "bin" / "buildctl")
    (tmp_path / "bin_dir" / "buildkitd").symlink_to("/elsewhere/buildkitd")
    result = run(version="0.31.0").result
    assert (result["installed_sha256"], result["current_version"]) == ("abc", "0.30.0")
    assert result["unlinked_programs"] == ["buildkitd", "buildkit-runc"]
    assert result["runc"] == str(programs / "buildkit-runc")


@pytest.mark.parametrize("kind", ["file", "link to /elsewhere/program"])
@pytest.mark.parametrize("program", ["buildctl", "buildkitd", "buildkit-runc"])
def test_a_foreign_program_is_named_before_anything_is_installed(
    run: Run, tmp_path: Path, program: str, kind: str
) -> None:
    """A file, or a link to somewhere else, where a link is to be."""
    (tmp_path / "bin_dir").mkdir()
    if kind == "file":
        (tmp_path / "bin_dir" / program).write_text("of another package")
    else:
        (tmp_path / "bin_dir" / program).symlink_to("/elsewhere/program")
    [why] = run(version="0.31.0").result["foreign_programs"]
    assert f"Linking {tmp_path}/bin_dir/{program} to BuildKit failed: a {kind} that is not ours is there" in why
    assert "set buildkitd_bin_dir" in why


@pytest.mark.parametrize(
    ("bound", "wanted", "foreign"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "", True),
        ("127.0.0.1", "127.0.0.2", False),
        (ALL_IPV4, "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "", True),
        ("::1", "127.0.0.1", False),
        ("::1", "::1", True),
    ],
)
def test_who_else_listens(run: Run, listener: t.Callable[[str], int], bound: str, wanted: str, foreign: bool) -> None:
    """Address, port, program and process, where the wanted address is concerned."""
    port = listener(bound)
    executable = os.path.realpath(sys.executable)
    expected = [f"{bound}:{port} held by {executable} (process {os.getpid()})"]
    assert of_us(run(port=port, listen_address=wanted)) == (expected if foreign else [])


def test_our_own_daemon_is_no_foreign_listener(run: Run, listener: t.Callable[[str], int]) -> None:
    """A program of the install directory holds the port."""
    port = listener("127.0.0.1")
    install_dir = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    assert of_us(run(port=port, install_dir=install_dir)) == []
    beside = install_dir[:-1]
    assert len(of_us(run(port=port, install_dir=beside))) == 1


@pytest.mark.parametrize("configured", [True, False])
def test_sockets_of_systemd_are_ours_only_on_the_port_of_our_unit(
    monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    """Another unit's port is somebody else's, although process 1 holds both."""
    monkeypatch.setattr(proc, "listeners", lambda port: [proc.Listener("::", port, 1, "/usr/lib/systemd/systemd")])
    monkeypatch.setattr(systemd, "listens_on", lambda unit, port: configured and (unit, port) == ("buildkit.socket", 9))
    wish = {"listen_address": "", "port": 9, "install_dir": "/none", "config_dir": "/none"}
    found = buildkitd_host_info._foreign_listeners(wish)
    assert found == ([] if configured else [":::9 held by /usr/lib/systemd/systemd (process 1)"])


def test_an_old_python_cannot_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, with which one it is."""
    old = types.SimpleNamespace(version_info=(3, 9, 18), executable="/usr/bin/python3.9")
    monkeypatch.setattr(buildkitd_host_info, "sys", old)
    assert "needs Python 3.10 or newer, and /usr/bin/python3.9 on " in buildkitd_host_info._proof_obstacle()


def test_a_host_name_is_no_listen_address(run: Run, listener: t.Callable[[str], int]) -> None:
    """One clear message, whether or not the port is in use."""
    for port in (listener("127.0.0.1"), 0):
        outcome = run(port=port, listen_address="localhost")
        assert "The listen address 'localhost' is no IP address" in outcome.message
        assert "Traceback" not in outcome.output


def test_certificates_that_are_there(run: Run, tmp_path: Path) -> None:
    """Through links too; a directory is none."""
    (tmp_path / "tls_dir" / "ca.pem").mkdir(parents=True)
    (tmp_path / "cert").write_text("x")
    (tmp_path / "tls_dir" / "cert.pem").symlink_to(tmp_path / "cert")
    (tmp_path / "tls_dir" / "key.pem").symlink_to(tmp_path / "none")
    assert run().result["tls_files"] == ["cert.pem"]


def test_the_running_daemon(run: Run, tmp_path: Path) -> None:
    """Its number, and none when that number is another process by now."""
    with subprocess.Popen(["sleep", "60"]) as daemon:
        identity = dataclasses.asdict(t.cast(proc.ProcessIdentity, proc.identify(daemon.pid)))
        (tmp_path / "pid_file").write_text(json.dumps(identity))
        assert run().result["process"] == daemon.pid
        (tmp_path / "pid_file").write_text(json.dumps({**identity, "start_time": 1}))
        assert run().result["process"] == 0
        daemon.kill()


@pytest.mark.parametrize("below", ["", "not/there/yet", "link/there"])
def test_the_disk_that_will_hold_the_cache(run: Run, tmp_path: Path, below: str) -> None:
    """That of the directory, through links, or of its nearest parent that is there; nothing is made."""
    (tmp_path / "link").symlink_to("/proc")
    found = os.statvfs("/proc" if below.startswith("link") else tmp_path)
    assert run(root=str(tmp_path / below)).result["disk_size"] == found.f_frsize * found.f_blocks
    assert run().result["disk_size"] == 0
    assert not (tmp_path / "not").exists()


def test_a_corrupt_pid_file_is_one_clear_message(run: Run, tmp_path: Path) -> None:
    """It names the file."""
    (tmp_path / "pid_file").write_text("x")
    outcome = run()
    assert f"Reading the pid file {tmp_path}/pid_file failed" in outcome.message
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize(
    ("machine", "platform"),
    [("x86_64", "linux-amd64"), ("aarch64", "linux-arm64"), ("armv7l", "linux-arm-v7"), ("i686", ""), ("mips", "")],
)
def test_the_platform_is_what_release_archives_call_it(run: Run, tmp_path: Path, machine: str, platform: str) -> None:
    """Empty where there is no release; the machine's own name is told too."""
    (tmp_path / "sitecustomize.py").write_text(f"import platform\nplatform.machine = lambda: {machine!r}\n")
    result = run(python_path=tmp_path).result
    assert (result["machine"], result["platform"]) == (machine, platform)


def test_missing_libraries_are_no_failure(run: Run, tmp_path: Path) -> None:
    """They are told, with how to install them."""
    for name in ("cryptography", "grpclib"):
        (tmp_path / "empty" / name).mkdir(parents=True)
        (tmp_path / "empty" / name / "__init__.py").write_text("raise ImportError('not here')\n")
    result = run(python_path=tmp_path / "empty").result
    assert result["cryptography"] == ""
    for part in ("the Python library grpclib", "the Python library cryptography", "python3-grpclib", "-m pip install"):
        assert part in result["proof_obstacle"]
    assert run(python_path=tmp_path / "empty", proof=False).result["proof_obstacle"] == ""
