# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""buildkitd.toml as a typed dictionary: which keys there are, what they may hold, and what is made of them.

Private to this collection. ``keys`` is the data, ``values`` checks one value, ``check`` a whole configuration,
``simple`` turns the simple variables into it, ``gc`` sizes and foretells the garbage collection.
"""
