# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and listeners, as the kernel of this machine shows them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until

OURSELVES = os.path.realpath(sys.executable)
ALL_IPV4 = ".".join("0000")


@pytest.fixture
def program(tmp_path: Path) -> t.Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process of a program whose name would confuse a careless reader of /proc."""
    path = tmp_path / "a) S (b"
    shutil.copy("/bin/sleep", path)
    with subprocess.Popen([str(path), "600"], env={"ANSWER": "4=2", "EMPTY": ""}) as process:
        until(Path(f"/proc/{process.pid}/environ").read_bytes, "the environment of the process")
        yield path, process
        process.kill()


def test_identity_of_a_living_process(program: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """Number, executable, and a start time that fits the clock."""
    path, process = program
    identity = proc.identify(process.pid)
    assert identity is not None
    assert (identity.pid, identity.executable) == (process.pid, str(path))
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    assert uptime - 30 < identity.start_time / os.sysconf("SC_CLK_TCK") <= uptime


def test_an_executable_that_was_replaced_keeps_its_path(program: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """A daemon whose program was exchanged by an upgrade is still the same one."""
    path, process = program
    before = proc.identify(process.pid)
    path.unlink()
    assert proc.identify(process.pid) == before


def test_a_zombie_is_no_process(program: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """One that ended and was not yet waited for has no identity, and neither has one that never was."""
    _path, process = program
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").is_dir()
    assert proc.identify(process.pid) is None
    assert proc.identify(2**22 + 1) is None


def test_environment_that_a_process_was_started_with(program: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """Values with an equals sign and empty ones; nothing where there is no process."""
    _path, process = program
    assert proc.environment(process.pid) == {"ANSWER": "4=2", "EMPTY": ""}
    assert proc.environment(2**22 + 1) == {}


def ours(port: int) -> list[proc.Listener]:
    """How we listen on a port. Somebody else may have the same port on another address, or as soon as we are gone."""
    return [one for one in proc.listeners(port) if one.pid == os.getpid()]


@pytest.mark.parametrize(
    ("family", "bound", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.1.2.3", "127.1.2.3"),
        (socket.AF_INET, ALL_IPV4, ALL_IPV4),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_listener_is_found_with_its_process(family: int, bound: str, shown: str) -> None:
    """Address, port, process and program, in both families."""
    with socket.socket(family) as listener:
        listener.bind((bound, 0))
        port = listener.getsockname()[1]
        assert ours(port) == []
        listener.listen()
        assert ours(port) == [proc.Listener(shown, port, os.getpid(), OURSELVES)]
    assert ours(port) == []


def test_a_connection_is_no_listener() -> None:
    """The local port of a client is used, and not listened on."""
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        assert ours(client.getsockname()[1]) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "", True),
        ("", "", True),
        ("127.0.0.1", ALL_IPV4, True),
        ("127.0.0.1", "::", True),
        ("::", ALL_IPV4, True),
        ("::1", "::1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("::1", "127.0.0.1", False),
        ("::", "fd00::1", True),
        (ALL_IPV4, "fd00::1", False),
        (ALL_IPV4, "", True),
        ("fd00::1", "", True),
    ],
)
def test_overlap_of_addresses(first: str, second: str, expected: bool) -> None:
    """Whoever has all addresses has each of them; those of IPv6 include those of IPv4, and not the other way."""
    for one, other in ((first, second), (second, first)):
        assert proc.overlaps(one, other) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("192.0.2.1", True), ("2001:db8::1", True), ("localhost", False), ("[::1]", False)]
)
def test_what_is_an_address(text: str, expected: bool) -> None:
    """Names and brackets are none."""
    assert proc.is_address(text) is expected
