# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a BuildKit release can do, by its version.

Private to this collection.
"""

from __future__ import annotations

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import versions

# Reserved, maximal and free space took the place of keepBytes.
THREE_LIMITS = "0.17.0"
# The default rule for what can be had again has a list of filters, not one text that no record fulfils.
MATCHING_DEFAULT = "0.31.0"


def has(since: str, version: str) -> bool:
    """Whether what came with the release ``since`` is in ``version``, such as 0.25.2+debian.

    A version that cannot be read has everything; the roles refuse it elsewhere.
    """
    first, found = versions.parse(since) if since else None, versions.parse(version)
    return first is None or found is None or found >= first
