# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook schedule: a controller that renews certificates without a person.

The controller is a host with systemd, and its own builder, so that one host is enough.
"""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

# Under pytest's importlib mode the directory of a test is not searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from virgin import virgin

PROJECT = Path(__file__).resolve().parents[3]
NAME, ADDRESS = "lifecycle-controller", "172.29.216.43"
UNIT = "buildkit-rotate-buildkit"
WORDS = "not in the inventory"
# The checkout's libraries with the controller's own Python, which compiles them for itself.
ANSIBLE = f"""#!/bin/sh
export PYTHONPYCACHEPREFIX=/run/compiled PYTHONPATH={site.getsitepackages()[0]}
exec /usr/bin/python3 -m ansible playbook "$@"
"""

testinfra_hosts = ["ansible://lifecycle-new"]


def shell(command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command on the controller."""
    run = ["docker", "exec", "-i", NAME, "sh", "-c", command]
    return subprocess.run(run, input=text, capture_output=True, text=True, check=False, timeout=1200)


def play(name: str, *arguments: str) -> str:
    """Runs a playbook on the controller, which must succeed, as a person with the passphrase in the environment."""
    run = ["docker", "exec", "--env", f"PASSPHRASE={WORDS}", "--env", "ANSIBLE_NOCOLOR=1"]
    run += ["--env", f"ANSIBLE_COLLECTIONS_PATH={PROJECT}/.cache/collections", NAME]
    run += ["ansible-playbook", "-i", "/srv/my farm/inventory.json", f"buildfarm.buildkit.{name}", *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def log(unit: str) -> str:
    """All that a unit said, with what the journal was still about to write."""
    return shell(f"journalctl --sync; journalctl --unit {unit} --output cat").stdout


def changed(output: str) -> int:
    """How many tasks changed something."""
    return sum(int(count) for count in re.findall(r" changed=(\d+)", output.partition("PLAY RECAP")[2]))


def served() -> str:
    """The serial number of the certificate that the builder serves."""
    dial = f"openssl s_client -connect {ADDRESS}:1234 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    return shell(dial).stdout.strip()


def write_inventory(**variables: str) -> None:
    """The inventory on the controller, with a space in its path."""
    archive = os.environ["BUILDKIT_NEW_ARCHIVE"]
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "buildkit_addresses": [ADDRESS],
        "buildkit_pki_ca_passphrase": "{{ lookup('ansible.builtin.env', 'PASSPHRASE') }}",
        "buildkitd_version": os.environ["BUILDKIT_NEW_VERSION"],
        "buildkitd_archive": archive,
        "buildkitd_archive_sha256": os.environ["BUILDKIT_NEW_SHA256"],
        **variables,
    }
    inventory = json.dumps({"buildkit_daemons": {"hosts": {NAME: own}}})
    assert shell("mkdir -p '/srv/my farm' && cat > '/srv/my farm/inventory.json'", inventory).returncode == 0


@pytest.fixture
def controller():
    """A controller with a builder, and the secrets of its inventory in a file."""
    archive = Path(os.environ["BUILDKIT_NEW_ARCHIVE"]).parent
    places = {PROJECT, Path(site.getsitepackages()[0]), archive}
    mounts = [part for place in places for part in ("--volume", f"{place}:{place}:ro")]
    with virgin(NAME, ADDRESS, *mounts):
        shell("cat > /usr/bin/ansible-playbook && chmod +x /usr/bin/ansible-playbook", ANSIBLE)
        shell("umask 077 && cat > /root/secrets.env", f'PASSPHRASE="{WORDS}"\n')
        write_inventory()
        play("site")
        yield


def test_what_is_due_is_renewed_by_the_timer(controller):
    """Installed, fired, seen to fail when it fails, and removed; each step predicted and done once."""
    options = ["--extra-vars", "buildkit_schedule_environment_file=/root/secrets.env"]
    options += ["--extra-vars", "buildkit_schedule_on_failure=told.service"]
    # Not amid this test, whatever the time of day.
    options += ["--extra-vars", "buildkit_schedule_calendar=2099-12-31"]
    files = "ls /etc/systemd/system /etc/systemd/system/*.wants; find / -xdev -name '*buildkit-rotate*'"
    before = shell(files).stdout
    assert "ExecStart=" in play("schedule", "--check", "--diff", *options)
    assert shell(files).stdout == before
    first = play("schedule", *options)
    assert changed(first) == 2
    assert "flock -n '/srv/my farm/.buildkit-rotate.lock'" in first
    assert changed(play("schedule", *options)) == 0
    assert UNIT in shell("systemctl list-timers --no-legend").stdout
    assert WORDS not in first + shell(f"systemctl cat {UNIT}.service; systemctl show {UNIT}.service").stdout

    # Fired when the builder's certificate is due.
    old = served()
    assert old.startswith("serial=")
    write_inventory(buildkit_pki_valid_for="100d", buildkit_pki_renew_before="95d")
    fired = shell(f"systemctl start {UNIT}.service")
    said = log(f"{UNIT}.service")
    assert fired.returncode == 0, said
    assert served() not in ("", old)
    assert "Restart" in said or "Run buildkitd (certificate changed)" in said
    assert "The next certificate to end" in said
    assert WORDS not in said

    # A run that fails is seen, and somebody is told.
    told = "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/told\n"
    shell("cat > /etc/systemd/system/told.service && systemctl daemon-reload", told)
    shell("mv /root/secrets.env /root/gone.env; umask 077; echo PASSPHRASE=something-else > /root/secrets.env")
    assert shell(f"systemctl start {UNIT}.service").returncode != 0
    assert f"{UNIT}.service" in shell("systemctl --failed --no-legend").stdout
    assert "passphrase" in shell(f"journalctl --sync; systemctl status --full --lines 40 {UNIT}.service").stdout
    assert shell("for i in $(seq 600); do [ -e /run/told ] && exit; sleep 1; done; exit 1").returncode == 0

    shell("rm /etc/systemd/system/told.service; systemctl daemon-reload")
    assert changed(play("schedule", "--extra-vars", "buildkit_schedule=absent")) == 2
    assert shell(files).stdout == before
    assert changed(play("schedule", "--extra-vars", "buildkit_schedule=absent")) == 0
