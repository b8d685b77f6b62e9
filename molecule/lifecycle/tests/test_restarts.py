# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts, upgrades and downgrades of builders that are in use."""

from __future__ import annotations

import os

testinfra_hosts = ["ansible://buildkit_daemons"]


def test_builders_run_their_generation(host, builder):
    """Each host runs the generation that the scenario gives it, and builds."""
    version = os.environ["BUILDKIT_OLD_VERSION" if builder.name == "lifecycle-old" else "BUILDKIT_NEW_VERSION"]
    assert host.check_output("readlink /usr/local/lib/buildkit/current") == version
    assert builder.build() == "hello\n"
