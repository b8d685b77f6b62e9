# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One key in a file of authorized keys, and nothing else of it touched."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import authorized
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN"
KEY = f"ssh-ed25519 {BLOB} alice@ws-1"
LINE = authorized.line_of(KEY, "/usr/local/bin/buildctl dial-stdio")
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMc6rq4kRB7xRfMkTnA7Ywp1vJ7dQf7DJJrQ5sQdKyYv bob\n"


def test_the_line_allows_one_command() -> None:
    """sshd runs that, whatever is asked, and forwards nothing."""
    assert LINE.endswith(f" {KEY}")
    assert LINE.partition(" ssh-")[0] == 'restrict,command="/usr/local/bin/buildctl dial-stdio"'


@pytest.mark.parametrize("before", ["", OTHER, OTHER.rstrip("\n"), "# mine\r\n\n" + OTHER])
def test_put_again_and_take(before: str) -> None:
    """Other lines stay to the byte, but for a last line break."""
    after = authorized.put(before, LINE, KEY)
    assert after == before + ("\n" if before and not before.endswith("\n") else "") + LINE + "\n"
    assert authorized.put(after, LINE, KEY) == after
    assert authorized.take(after, KEY) == after[: -len(LINE) - 1]


@pytest.mark.parametrize("loose", [KEY, f'command="ls" {KEY}', f"ssh-ed25519 {BLOB}", f"{LINE}\n{KEY}"])
def test_a_line_with_more_rights_is_replaced(loose: str) -> None:
    """sshd would take the first, so one line is left."""
    assert authorized.put(f"{loose}\n{OTHER}", LINE, KEY) == f"{OTHER}{LINE}\n"
    assert authorized.take(f"{loose}\n{OTHER}", KEY) == OTHER


def test_a_comment_is_no_key() -> None:
    """One that somebody has switched off stays so."""
    off = f"# {KEY}\n"
    assert authorized.take(off, KEY) == off
    assert authorized.put(off, LINE, KEY) == off + LINE + "\n"


@pytest.mark.parametrize(
    ("key", "command"),
    [("AAAA", "x"), (f"{KEY}\n{OTHER}", "x"), (f'command="sh" {KEY}', "x"), (KEY, 'a"b'), (KEY, "a\nb"), (KEY, "")],
)
def test_what_would_be_more_than_one_line_is_refused(key: str, command: str) -> None:
    """No second key and no second command comes in by the way."""
    with pytest.raises(ClientError):
        authorized.line_of(key, command)
