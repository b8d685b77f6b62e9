# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expected failures of what sets clients up."""

from __future__ import annotations


class ClientError(Exception):
    """Something is not as it must be; the text says what, and what to try."""
