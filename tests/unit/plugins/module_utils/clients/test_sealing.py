# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much work it is to try the passphrase of a file."""

from __future__ import annotations

import types

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import sealing

WORDS = "correct horse battery"


@pytest.mark.parametrize(
    ("factors", "taken", "asked"),
    [([19], 19, 1), ([15, 18, 20], 18, 2), ([15, 16, 14, 15, 20], 16, 4)],
    ids=["quiet", "busy for a moment", "slow machine"],
)
def test_a_busy_moment_makes_no_weak_file(
    monkeypatch: pytest.MonkeyPatch, factors: list[int], taken: int, asked: int
) -> None:
    """The library goes by how long something takes it; where that is too little it is asked again, and not for ever."""
    left = list(factors)

    def encrypt(_data: bytes, _passphrase: str) -> bytes:
        return b"age-encryption.org/v1\n-> scrypt c2FsdA %d\nwrapped\n--- mac\nbody" % left.pop(0)

    monkeypatch.setattr(sealing, "pyrage", types.SimpleNamespace(passphrase=types.SimpleNamespace(encrypt=encrypt)))
    sealed = sealing.seal(b"data", recipients=(), passphrase=WORDS)
    assert b" %d\n" % taken in sealed
    assert len(factors) - len(left) == asked
