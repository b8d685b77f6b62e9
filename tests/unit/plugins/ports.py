# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of loopback that nobody else is given, however long it takes until somebody listens there.

A port is held by a socket that is bound to it and does not listen. Linux gives it to nobody who asks for any port, and
lets those listen on it who name it and set SO_REUSEADDR, as all servers in the tests do.
"""

from __future__ import annotations

import contextlib
import socket
import typing as t


def _bound(address: str = "127.0.0.1") -> socket.socket:
    holding = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holding.bind((address, 0))
    return holding


@contextlib.contextmanager
def held() -> t.Iterator[int]:
    """A port on which nobody listens, held until the end of the block."""
    with _bound() as holding:
        yield int(holding.getsockname()[1])


def kept(address: str = "127.0.0.1") -> int:
    """The same, held until all tests have ended; of another address too."""
    holding = _bound(address)
    port = int(holding.getsockname()[1])
    holding.detach()
    return port
