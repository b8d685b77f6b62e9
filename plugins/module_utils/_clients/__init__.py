# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools that build on a remote BuildKit keep on their machines; imports and tests without Ansible."""
