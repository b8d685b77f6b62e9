# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proof that cannot even be tried is no success, and no reason to take a change back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import IMPORT_ROOT

PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "block": [{"include_role": {"name": "buildfarm.buildkit.buildkit_verify"}}],
                "rescue": [{"include_role": {"name": "buildfarm.buildkit.buildkitd", "tasks_from": "back"}}],
            }
        ],
    }
]


def test_every_host_fails_and_none_goes_back(tmp_path: Path) -> None:
    """Without the client's certificate, nobody was proved: all hosts of the batch fail, and keep what they run."""
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    wishes = {"buildkit_verify_hosts": ["one", "two"], "buildkit_verify_tls_dir": str(tmp_path / "none")}
    run = subprocess.run(
        ["ansible-playbook", "-i", "one,two,", "-c", "local", "-e", json.dumps(wishes), str(tmp_path / "play.yml")],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT), "ANSIBLE_NOCOLOR": "1"},
        timeout=60,
        check=False,
    )
    said = " ".join(run.stdout.split())
    assert run.returncode == 2, run.stdout
    for host in ("one", "two"):
        assert f"{host}: It was not proved, because the proof could not be made: ca_path {tmp_path}/none/ca.pem" in said
    assert "The daemon stays as it is. Mend that and run again." in said
    assert "Going back failed" not in said
    assert said.count("changed=0") == 2
