# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets ansible-test make its virtual environments without a download.

ansible-test bootstraps pip with a script that it fetches from its own server. A stand-in in its cache, which uses the
pip that Python brings (ensurepip), does the same from the package index alone.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

STAND_IN = """\
import subprocess
import sys

# In a process of its own: in this one ensurepip would switch the user's pip configuration off.
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
raise SystemExit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
"""


def pip_version() -> str:
    """The pip version that the installed ansible-test asks for, such as 24.2."""
    found = importlib.util.find_spec("ansible_test")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("error: ansible-test is not installed in this Python environment")
    source = Path(found.submodule_search_locations[0]) / "_internal" / "python_requirements.py"
    version = re.search(r"\bpip='([0-9.]+)'", source.read_text())
    if version is None:
        raise SystemExit(f"error: {source} no longer names its pip as pip='<version>'; adapt this tool")
    return version[1]


def main() -> None:
    """Writes the stand-in where ansible-test looks first, unless the real script is there."""
    script = Path.home() / ".ansible" / "test" / "cache" / f"get_pip_{pip_version().replace('.', '_')}.py"
    if not script.exists():
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(STAND_IN)


if __name__ == "__main__":
    main()
