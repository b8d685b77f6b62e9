# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One key in a file of authorized keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT")."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_KEY = re.compile(r"(?P<type>(?:ssh|ecdsa|sk)-[a-z0-9@.-]+) (?P<blob>[A-Za-z0-9+/]{40,}={0,3})(?: [^\r\n]*)?")


def line_of(key: str, command: str) -> str:
    """The line that lets whoever has a key run one command and nothing else.

    :param key: the public key, as ssh-keygen writes it.
    :raises ClientError: where the key or the command cannot be written in one line.
    """
    _blob(key)
    if re.search(r'["\\\r\n]', command) or not command:
        raise ClientError(f"The command {command!r} must be one line without quotes and backslashes.")
    return f'restrict,command="{command}" {key.strip()}'


def put(text: str, line: str, key: str) -> str:
    """The file with this line for the key in place of any other of the same key; else at its end."""
    lines, blob = text.splitlines(keepends=True), _blob(key)
    if [one.rstrip("\r\n") for one in lines if _has(one, blob)] == [line]:
        return text
    kept = take(text, key)
    return kept + ("\n" if kept and not kept.endswith("\n") else "") + line + "\n"


def take(text: str, key: str) -> str:
    """The file without the key, whatever its options are."""
    blob = _blob(key)
    return "".join(one for one in text.splitlines(keepends=True) if not _has(one, blob))


def _has(line: str, blob: str) -> bool:
    return not line.lstrip().startswith("#") and blob in line.split()


def _blob(key: str) -> str:
    match = _KEY.fullmatch(key.strip())
    if not match:
        raise ClientError("The key is no public key of SSH in one line, such as ssh-ed25519 AAAA... name.")
    return t.cast(str, match.group("blob"))
