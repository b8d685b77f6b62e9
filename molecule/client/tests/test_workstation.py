# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workstation that the role buildkit_client set up: its user builds, and in the end nothing of it is left."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
LEFT = (
    "/etc/buildkit /etc/profile.d/buildkit-buildkit.sh /usr/local/lib/buildkit-client /run/buildkit-forward "
    "/run/buildkit-forward-by-tls /home/alice/.docker/buildx/instances/buildkit"
)


def _playbook(path: Path, *arguments: str) -> str:
    """Runs a playbook of the scenario, which must not fail."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", SCENARIO / "inventory.yml", *arguments, path],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_user_builds_with_what_the_login_shell_says(workstation):
    """With no setting of her own, alice builds with both generations of docker-buildx; buildctl reaches a builder."""
    workstation.ran("cp -r /opt/project . && chmod -R u+w project", user="alice")
    for buildx in ("docker-buildx", "/opt/buildx-new"):
        shown = workstation.ran(f". /etc/profile && {buildx} inspect --bootstrap", user="alice")
        assert re.findall(r"^Status: +(\S+)", shown, re.MULTILINE) == ["running", "running"]
        build = f"{buildx} build --no-cache --output type=local,dest=out ."
        workstation.ran(f". /etc/profile && cd project && {build}", user="alice")
        assert workstation.ran("cat project/out/hello.txt; rm -r project/out", user="alice") == "hello\n"
    workstation.ran(". /etc/profile && PATH=$PATH:/opt/old && buildctl debug workers", user="alice")


def test_others_cannot_read_the_key(workstation):
    """Whoever is not named has no way to the key."""
    assert workstation.run("cat /etc/buildkit/client/buildkit/key.pem", user="bob").returncode != 0


def test_absent_takes_all_of_it_away(workstation):
    """Check mode foretells, one run removes units, keys, settings and builders, and the next has nothing to do."""
    before = workstation.ran(f"ls -d {LEFT}", user="root")
    assert re.search(r"changed=[1-9]", _playbook(SCENARIO / "absent.yml", "--check"))
    assert workstation.ran(f"ls -d {LEFT}", user="root") == before
    _playbook(SCENARIO / "absent.yml")
    assert workstation.run(f"ls -d {LEFT} 2>/dev/null", user="root").stdout.splitlines() in (
        [],
        ["/run/buildkit-forward"],
    )
    assert workstation.ran("systemctl list-unit-files 'buildkit-forward*' --no-legend --all || true", user="root") == ""
    assert workstation.run("pgrep -f '[b]uildkit-forward'", user="root").returncode != 0
    assert workstation.ran("systemctl is-system-running", user="root") == "running\n"
    assert "changed=0" in _playbook(SCENARIO / "absent.yml")
