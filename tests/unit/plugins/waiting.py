# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting, on machines of any speed: what a test waits for comes at once, and the limit tells only what never comes."""

from __future__ import annotations

import time
import typing as t

# Seconds in which everything has come that will ever come, however slow and busy the machine is.
LONG = 120.0

T = t.TypeVar("T")


def until(found: t.Callable[[], T], what: str) -> T:
    """Wait until something is true, and return it.

    :param what: what is waited for, to be named when it never comes
    """
    deadline = time.monotonic() + LONG
    while not (value := found()):
        assert time.monotonic() < deadline, f"{LONG:g} s have passed without {what}"
        time.sleep(0.01)
    return value
