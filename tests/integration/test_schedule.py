# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line for cron that the playbook schedule prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import IMPORT_ROOT


def test_every_percent_sign_of_the_line_is_escaped(tmp_path: Path) -> None:
    """To cron it is the end of the line, wherever it stands: in the directory, the environment and the command."""
    farm = tmp_path / "100% farm"
    farm.mkdir()
    (farm / "inventory.json").write_text(json.dumps({"buildkit_daemons": {"hosts": {"one": {}}}}))
    (farm / "ansible.cfg").write_text("[defaults]\n")
    (farm / "secrets.env").touch(mode=0o600)
    command = ["ansible-playbook", "-i", str(farm / "inventory.json"), "buildfarm.buildkit.schedule", "--check"]
    wishes = {"buildkit_schedule_environment_file": str(farm / "secrets.env")}
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CONFIG": str(farm / "ansible.cfg"),
    }
    run = subprocess.run(
        [*command, "-e", json.dumps(wishes)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    [line] = re.findall(r'"  (17 3 .*)"', run.stdout)
    line = json.loads(f'"{line}"')
    assert line.count("100\\% farm") == line.count("%") == 5
    # What cron hands to the shell. Whether that can be read is all that is asked here.
    assert subprocess.run(["sh", "-n", "-c", line.replace("\\%", "%")], check=False).returncode == 0
