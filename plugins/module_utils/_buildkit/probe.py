# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program that prints one line: the smallest thing that a build step can run, without any image.

It is a static ELF of less than 250 bytes with one segment, made here byte by byte, so that a smoke build
needs neither a compiler nor a registry. System call numbers and calling conventions: syscall(2) and the
syscall tables of Linux. Headers: the ELF specification (gABI) and the processor supplements.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Callable

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import BuildError, Kind

# Constant, so that the cache of a daemon holds one set of it however often it is proved.
LOG_LINE = "buildfarm.buildkit: this build step ran"

_BASE = 0x400000
_PAGE = 0x10000  # the largest page of the architectures below
_TEXT_ALIGNMENT = 4


@dataclass(frozen=True)
class _Architecture:
    """How a program looks there.

    :param machine: e_machine
    :param code: from (offset of the text from the start of the code, its address, its length) to machine code
        that writes it to standard output and exits with 0; its length must not depend on the arguments
    """

    machine: int
    code: Callable[[int, int, int], bytes]
    flags: int = 0
    bits: int = 64
    order: str = "<"


def _386(offset: int, address: int, length: int) -> bytes:
    int_0x80 = b"\xcd\x80"
    return b"".join(
        (
            b"\xb8" + struct.pack("<I", 4),  # mov eax, write
            b"\xbb" + struct.pack("<I", 1),  # mov ebx, stdout
            b"\xb9" + struct.pack("<I", address),  # mov ecx, text
            b"\xba" + struct.pack("<I", length),  # mov edx, length
            int_0x80,
            b"\xb8" + struct.pack("<I", 1),  # mov eax, exit
            b"\x31\xdb",  # xor ebx, ebx
            int_0x80,
        )
    )


def _amd64(offset: int, address: int, length: int) -> bytes:
    return b"".join(
        (
            b"\xb8" + struct.pack("<I", 1),  # mov eax, write
            b"\xbf" + struct.pack("<I", 1),  # mov edi, stdout
            b"\xbe" + struct.pack("<I", address),  # mov esi, text
            b"\xba" + struct.pack("<I", length),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8" + struct.pack("<I", 60),  # mov eax, exit
            b"\x31\xff",  # xor edi, edi
            b"\x0f\x05",  # syscall
        )
    )


def _arm(offset: int, address: int, length: int) -> bytes:
    def mov(register: int, value: int) -> int:
        return 0xE3A00000 | register << 12 | value

    svc = 0xEF000000
    # The third instruction reads the program counter, which is two instructions ahead of it.
    add_from_pc = 0xE28F1000 | (offset - 2 * 4 - 8)
    return struct.pack("<8I", mov(7, 4), mov(0, 1), add_from_pc, mov(2, length), svc, mov(7, 1), mov(0, 0), svc)


def _arm64(offset: int, address: int, length: int) -> bytes:
    def movz(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    svc = 0xD4000001
    adr = 0x10000000 | ((offset - 2 * 4) >> 2) << 5 | 1
    return struct.pack("<8I", movz(8, 64), movz(0, 1), adr, movz(2, length), svc, movz(8, 93), movz(0, 0), svc)


def _loong64(offset: int, address: int, length: int) -> bytes:
    def li(register: int, value: int) -> int:
        return 0x02800000 | value << 10 | register

    a0, a1, a2, a7, syscall = 4, 5, 6, 11, 0x002B0000
    pcaddi = 0x18000000 | ((offset - 2 * 4) >> 2) << 5 | a1
    return struct.pack("<8I", li(a7, 64), li(a0, 1), pcaddi, li(a2, length), syscall, li(a7, 93), li(a0, 0), syscall)


def _mips64(order: str) -> Callable[[int, int, int], bytes]:
    def code(offset: int, address: int, length: int) -> bytes:
        def li(register: int, value: int) -> int:
            return 9 << 26 | register << 16 | value

        v0, a0, a1, a2, syscall = 2, 4, 5, 6, 0x0000000C
        lui = 15 << 26 | a1 << 16 | address >> 16
        ori = 13 << 26 | a1 << 21 | a1 << 16 | address & 0xFFFF
        write = (li(v0, 5001), li(a0, 1), lui, ori, li(a2, length), syscall)
        return struct.pack(f"{order}9I", *write, li(v0, 5058), li(a0, 0), syscall)

    return code


def _ppc64le(offset: int, address: int, length: int) -> bytes:
    def li(register: int, value: int) -> int:
        return 14 << 26 | register << 21 | value

    sc = 0x44000002
    lis = 15 << 26 | 4 << 21 | address >> 16
    ori = 24 << 26 | 4 << 21 | 4 << 16 | address & 0xFFFF
    return struct.pack("<9I", li(0, 4), li(3, 1), lis, ori, li(5, length), sc, li(0, 1), li(3, 0), sc)


def _riscv64(offset: int, address: int, length: int) -> bytes:
    def addi(register: int, source: int, value: int) -> int:
        return value << 20 | source << 15 | register << 7 | 0x13

    a0, a1, a2, a7, ecall = 10, 11, 12, 17, 0x73
    auipc = a1 << 7 | 0x17
    return struct.pack(
        "<9I",
        addi(a7, 0, 64),
        addi(a0, 0, 1),
        auipc,
        addi(a1, a1, offset - 2 * 4),
        addi(a2, 0, length),
        ecall,
        addi(a7, 0, 93),
        addi(a0, 0, 0),
        ecall,
    )


def _s390x(offset: int, address: int, length: int) -> bytes:
    def lghi(register: int, value: int) -> bytes:
        return struct.pack(">HH", 0xA709 | register << 4, value)

    larl = struct.pack(">Hi", 0xC030, (offset - 4) // 2)
    return b"".join((lghi(2, 1), larl, lghi(4, length), b"\x0a\x04", lghi(2, 0), b"\x0a\x01"))


_MIPS64_FLAGS = 0x60000000  # MIPS64, without a suffix that names the n64 ABI

_ARCHITECTURES = {
    "386": _Architecture(3, _386, bits=32),
    "amd64": _Architecture(62, _amd64),
    "arm": _Architecture(40, _arm, flags=0x05000000, bits=32),  # EABI 5
    "arm64": _Architecture(183, _arm64),
    "loong64": _Architecture(258, _loong64, flags=0x41),  # object ABI 1, soft float
    "mips64": _Architecture(8, _mips64(">"), flags=_MIPS64_FLAGS, order=">"),
    "mips64le": _Architecture(8, _mips64("<"), flags=_MIPS64_FLAGS),
    "ppc64le": _Architecture(21, _ppc64le, flags=2),  # ELFv2: the entry point is code, not a descriptor
    "riscv64": _Architecture(243, _riscv64),
    "s390x": _Architecture(22, _s390x, order=">"),
}

ARCHITECTURES = tuple(_ARCHITECTURES)


def program(architecture: str, *, line: str = LOG_LINE) -> bytes:
    """A static ELF executable for Linux that prints the line and exits with 0.

    :param architecture: as Go and OCI name it, such as C(arm64)
    :param line: at most 200 ASCII characters, without the line end
    :raises BuildError: an architecture that we cannot make programs for
    """
    target = _ARCHITECTURES.get(architecture)
    if target is None:
        known = ", ".join(ARCHITECTURES)
        raise BuildError(
            Kind.PLATFORM_MISSING,
            f"There is no probe program for architecture {architecture!r}, only for {known}",
        )
    text = f"{line}\n".encode("ascii")
    headers = (64 + 56) if target.bits == 64 else (52 + 32)
    unaligned = len(target.code(64, _BASE, len(text)))
    offset = unaligned + -unaligned % _TEXT_ALIGNMENT
    code = target.code(offset, _BASE + headers + offset, len(text)).ljust(offset, b"\0")
    return _headers(target, headers, headers + len(code) + len(text)) + code + text


def _headers(target: _Architecture, size: int, total: int) -> bytes:
    wide = target.bits == 64
    identification = b"\x7fELF" + bytes((2 if wide else 1, 1 if target.order == "<" else 2, 1)).ljust(12, b"\0")
    executable, version, readable_executable, load = 2, 1, 5, 1
    elf = struct.pack(
        target.order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
        *(executable, target.machine, version, _BASE + size),
        *(64 if wide else 52, 0, target.flags),  # where the program header starts; there are no sections
        *(64 if wide else 52, 56 if wide else 32, 1, 0, 0, 0),
    )
    if wide:
        segment = struct.pack(
            target.order + "IIQQQQQQ", load, readable_executable, 0, _BASE, _BASE, total, total, _PAGE
        )
    else:
        segment = struct.pack(
            target.order + "IIIIIIII", load, 0, _BASE, _BASE, total, total, readable_executable, _PAGE
        )
    return identification + elf + segment
