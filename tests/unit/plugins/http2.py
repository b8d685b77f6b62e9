# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/2 as tests speak it byte by byte, apart from what they test."""

from __future__ import annotations

import struct


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body
