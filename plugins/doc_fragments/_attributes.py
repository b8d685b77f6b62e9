# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attributes that every module of the collection states, with one wording for all of them."""

from __future__ import annotations


class ModuleDocFragment:
    """Each module adds C(support) and, where it helps, C(details) to every attribute it names."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: >-
      Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff
      mode.
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
"""
