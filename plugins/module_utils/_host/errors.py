# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expected failures of what runs on a builder host."""

from __future__ import annotations


class HostError(Exception):
    """Something on the host is not as it must be; the text says what, and what to try."""
