# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What downloads is tried again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

AGAIN = Path(__file__).resolve().parents[3] / "tools" / "again.sh"


@pytest.mark.parametrize(("failures", "code", "tried"), [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 7, 3)])
def test_a_download_is_tried_three_times(tmp_path: Path, failures: int, code: int, tried: int) -> None:
    """The code of the last attempt is that of all; nobody waits after it."""
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    command = f'echo "$1" >>{tmp_path}/tries; [ "$(wc -l <{tmp_path}/tries)" -gt {failures} ] || exit 7'
    run = subprocess.run(
        [AGAIN, "sh", "-c", command, "sh", "two words"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code
    assert (tmp_path / "tries").read_text() == "two words\n" * tried
    assert run.stderr.count("is tried again in") == tried - 1
