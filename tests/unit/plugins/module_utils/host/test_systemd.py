# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of systemctl; the molecule scenarios run on hosts with a real one."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import systemd


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str], Path]:
    """A function that puts a systemctl with this output into PATH, and tells where it notes how it was called."""

    def put(output: str) -> Path:
        program = tmp_path / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\ncat <<END\n{output}\nEND\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(systemd, "is_running", lambda: True)
        return tmp_path / "called"

    return put


def test_properties_of_a_unit(systemctl: t.Callable[[str], Path]) -> None:
    """Those that were asked for, also with an equals sign, and empty ones for what was not told."""
    called = systemctl("MainPID=42\nResult=exit=code\nUnasked=1\nActiveState=active")
    shown = systemd.show("buildkit.service")
    assert shown == {
        "LoadState": "",
        "ActiveState": "active",
        "SubState": "",
        "Result": "exit=code",
        "UnitFileState": "",
        "MainPID": "42",
        "NeedDaemonReload": "",
    }
    assert called.read_text().endswith("-- buildkit.service\n")


def test_several_units_at_once(systemctl: t.Callable[[str], Path]) -> None:
    """One call; each has what its own paragraph says, also one of which nothing is said."""
    called = systemctl("MainPID=42\nActiveState=active\n\nMainPID=0\nActiveState=inactive")
    shown = systemd.show_all("buildkit.service", "buildkit.socket", "buildkit.slice")
    assert [(unit, one["ActiveState"], one["MainPID"]) for unit, one in shown.items()] == [
        ("buildkit.service", "active", "42"),
        ("buildkit.socket", "inactive", "0"),
        ("buildkit.slice", "", ""),
    ]
    assert called.read_text().endswith("-- buildkit.service buildkit.socket buildkit.slice\n")


@pytest.mark.parametrize(("output", "expected"), [("MainPID=42", 42), ("MainPID=0", None), ("", None)])
def test_main_process(systemctl: t.Callable[[str], Path], output: str, expected: int | None) -> None:
    """Its number, and None for a service that does not run or is not known."""
    systemctl(output)
    assert systemd.main_pid("buildkit.service") == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Listen=[::]:1234 (Stream)", True),
        ("Listen=/run/buildkit/buildkitd.sock (Stream)\nListen=192.0.2.11:1234 (Stream)", True),
        ("Listen=[::]:1234 (Stream)\nListen=/run/buildkit/buildkitd.sock (Stream)", True),
        ("Listen=[::]:12345 (Stream)", False),
        ("Listen=[::]:1234 (Datagram)", False),
        ("Listen=/run/buildkit/buildkitd.sock (Stream)", False),
        ("", False),
    ],
)
def test_port_of_a_socket_unit(systemctl: t.Callable[[str], Path], output: str, expected: bool) -> None:
    """Any of its listeners, and the whole port."""
    called = systemctl(output)
    assert systemd.listens_on("buildkit.socket", 1234) is expected
    assert called.read_text() == "show --property Listen -- buildkit.socket\n"


def test_without_systemd_everything_is_empty(
    systemctl: t.Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A systemctl that lies around is not asked."""
    called = systemctl("MainPID=42")
    monkeypatch.setattr(systemd, "is_running", lambda: False)
    assert set(systemd.show("buildkit.service").values()) == {""}
    assert systemd.main_pid("buildkit.service") is None
    assert systemd.listens_on("buildkit.socket", 1234) is False
    assert not called.exists()


def test_systemd_is_known_by_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of sd_booted(3), and no other."""
    asked: list[str] = []
    monkeypatch.setattr(os.path, "isdir", lambda path: bool(asked.append(path)) or len(asked) == 1)
    assert [systemd.is_running(), systemd.is_running()] == [True, False]
    assert set(asked) == {"/run/systemd/system"}
