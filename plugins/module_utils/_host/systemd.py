# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units as `systemctl show` tells them (systemctl(1), org.freedesktop.systemd1(5))."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t

_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "UnitFileState",
    "MainPID",
    "NeedDaemonReload",
)


def is_running() -> bool:
    """Whether systemd is this host's init, as sd_booted(3) tells it."""
    return os.path.isdir("/run/systemd/system")


def show(unit: str) -> t.Dict[str, str]:
    """The properties of a unit; all empty where systemd is not running."""
    return show_all(unit)[unit]


def show_all(*units: str) -> t.Dict[str, t.Dict[str, str]]:
    """The properties of several units, asked for at once; all empty where systemd is not running."""
    properties = {unit: dict.fromkeys(_PROPERTIES, "") for unit in units}
    if not is_running():
        return properties
    shown = subprocess.run(
        ["systemctl", "show", "--property", ",".join(_PROPERTIES), "--", *units],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    # One paragraph for each, in the order in which they were named.
    for unit, paragraph in zip(units, shown.stdout.split("\n\n")):
        for line in paragraph.splitlines():
            name, _separator, value = line.partition("=")
            if name in properties[unit]:
                properties[unit][name] = value
    return properties


def listens_on(unit: str, port: int) -> bool:
    """Whether a socket unit listens on a TCP port: its property Listen, such as ``[::]:1234 (Stream)``, has it."""
    if not is_running():
        return False
    shown = subprocess.run(
        ["systemctl", "show", "--property", "Listen", "--", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return re.search(rf":{port} \(Stream\)$", shown.stdout, re.MULTILINE) is not None


def main_pid(unit: str) -> t.Optional[int]:
    """The main process of a service; None when it does not run."""
    pid = int(show(unit)["MainPID"] or 0)
    return pid or None
