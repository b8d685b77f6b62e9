# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What filters load. Each task of each host loads them again, so they must be light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[4] / "plugins"
FILTERS = sorted(path.stem for path in (PLUGINS / "filter").glob("[!_]*.py"))
LOADED = """
import importlib, sys
importlib.import_module("ansible_collections.buildfarm.buildkit.plugins.filter." + sys.argv[1])
print(*{name.partition(".")[0] for name in sys.modules} & {"asyncio", "cryptography", "google", "grpclib", "h2", "ssl"})
"""


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_loads_no_library_that_only_modules_need(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
