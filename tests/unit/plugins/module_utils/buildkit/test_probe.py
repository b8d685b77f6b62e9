# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that smoke builds run."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import probe
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import BuildError, Kind

NATIVE = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}

# Of each program as it ran under qemu-user (Debian 12, 7.2) and printed its line.
TRIED = {
    "386": "97a1a831e469c8d90399e16bf08036d3cc9c6a3cefc22ee1b450600a8d5cd9ed",
    "amd64": "3f31e588bfd0853273cf72afbd092b33eae89941701503cb99e5a86502ed4370",
    "arm": "c7b4100859a1e366f8b455c22db7cfb52031e33e533fc661f7088ff827e343ba",
    "arm64": "97513d777d8b31407dc54cd98f73209f98e5d49114095cfb2368858bdceb2967",
    "loong64": "35f4439e8a51dfae9c50762a65b6e79e8b9cacb142929e55232817c77ae618dd",
    "mips64": "5b0ad0fd386a4f172f5474ac2b85c43b7c9d1e1fa620ecdb2cb1cc5f238b6be4",
    "mips64le": "5e39ce2e2fe28e84938b316d6b0b9ed9a8eb0dd38e6a9815bd9a8c474ba221d8",
    "ppc64le": "a0936cb28687b6fa58660dc2b4b84b1478a86da6e4e1cbd0da954c08261d46a1",
    "riscv64": "f3a83a2050c147a623e97b5bffe3e6475b9048e797b6b2817f4088a3a1e48950",
    "s390x": "98e3efcb2005a10f9679cdd00adfadecc731666a8117c51095f76fd4c1c11712",
}

MACHINES = {
    "386": ("ELF32", "little", "Intel 80386"),
    "amd64": ("ELF64", "little", "X86-64"),
    "arm": ("ELF32", "little", "ARM"),
    "arm64": ("ELF64", "little", "AArch64"),
    "loong64": ("ELF64", "little", "LoongArch"),
    "mips64": ("ELF64", "big", "MIPS R3000"),
    "mips64le": ("ELF64", "little", "MIPS R3000"),
    "ppc64le": ("ELF64", "little", "PowerPC64"),
    "riscv64": ("ELF64", "little", "RISC-V"),
    "s390x": ("ELF64", "big", "S/390"),
}


def test_native_program_runs(tmp_path: Path) -> None:
    """The program of this machine prints its line and ends well, with nothing of a system around it."""
    program = tmp_path / "probe"
    program.write_bytes(probe.program(NATIVE[platform.machine()]))
    program.chmod(0o755)
    done = subprocess.run([str(program)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{probe.LOG_LINE}\n".encode(), b"")


def test_line_can_be_another(tmp_path: Path) -> None:
    """A program prints the line that it was made for, long ones too."""
    program = tmp_path / "probe"
    program.write_bytes(probe.program(NATIVE[platform.machine()], line="x" * 200))
    program.chmod(0o755)
    assert subprocess.check_output([str(program)]) == b"x" * 200 + b"\n"


@pytest.mark.parametrize("architecture", probe.ARCHITECTURES)
def test_headers_are_right(architecture: str, tmp_path: Path) -> None:
    """readelf finds a complete executable of the right machine, with one segment that may be read and run."""
    program = tmp_path / "probe"
    content = probe.program(architecture)
    program.write_bytes(content)
    done = subprocess.run(
        ["readelf", "--wide", "-h", "-l", str(program)],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == ""
    assert all(part in done.stdout for part in MACHINES[architecture])
    assert "EXEC (Executable file)" in done.stdout
    [segment] = re.findall(
        r"^  LOAD +0x0+ 0x0*400000 0x0*400000 0x([0-9a-f]+) 0x([0-9a-f]+) R E 0x10000", done.stdout, re.M
    )
    assert [int(size, 16) for size in segment] == [len(content), len(content)]
    entry = int(re.findall(r"Entry point address: +0x([0-9a-f]+)", done.stdout)[0], 16)
    assert entry == 0x400000 + (84 if "ELF32" in done.stdout else 120)


@pytest.mark.parametrize("architecture", probe.ARCHITECTURES)
def test_program_is_the_one_that_was_tried(architecture: str) -> None:
    """Each program is, byte for byte, the one that ran under an emulator; a change must be tried again."""
    assert hashlib.sha256(probe.program(architecture)).hexdigest() == TRIED[architecture]


def test_every_released_platform_has_a_program() -> None:
    """All Linux platforms for which BuildKit is released can be proved, and those that it finds emulators for."""
    released = {"amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x"}
    assert set(probe.ARCHITECTURES) == released | {"386", "loong64", "mips64", "mips64le"}


def test_unknown_architecture_is_named() -> None:
    """An architecture without a program is a failure with those that have one."""
    with pytest.raises(BuildError, match="'sparc64', only for 386, amd64") as caught:
        probe.program("sparc64")
    assert caught.value.kind is Kind.PLATFORM_MISSING
