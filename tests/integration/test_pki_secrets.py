# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole playbook with the PKI modules at the highest verbosity: no key and no passphrase is to be seen anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import yaml

WORDS = "correct horse battery staple"
OTHER_WORDS = "another one altogether"


def play(directory: Path) -> Path:
    """Everything that has to do with a key: a CA with a passphrase, another passphrase, a host's key, a look at one."""
    pki = {"path": str(directory / "pki"), "clients": [{"name": "ci"}]}
    words = {name: f"{{{{ lookup('ansible.builtin.file', '{directory / name}') }}}}" for name in ("words", "other")}
    host = {"path": str(directory / "tls"), "name": "build-1"}
    daemon = {"name": "build-1", "dns": ["build-1.example.com"], "csr": "{{ request.csr }}"}
    tasks = [
        {"buildfarm.buildkit.buildkit_csr": host, "register": "request"},
        {
            "buildfarm.buildkit.buildkit_pki": {**pki, "daemons": [daemon], "ca": {"passphrase": words["words"]}},
            "register": "issued",
        },
        {
            "buildfarm.buildkit.buildkit_csr": {
                **host,
                "certificate": "{{ issued.daemons[0].certificate }}",
                "ca": "{{ issued.daemons[0].ca }}",
            }
        },
        {
            "buildfarm.buildkit.buildkit_pki": {
                **pki,
                "ca": {"passphrase": words["other"], "previous_passphrase": words["words"]},
            }
        },
        {"buildfarm.buildkit.buildkit_pki": {**pki, "ca": {"passphrase": words["words"]}}, "ignore_errors": True},
        {
            "buildfarm.buildkit.buildkit_certificate_info": {
                "path": str(directory / "pki/authorities/default/ca.pem"),
                "key_path": str(directory / "pki/authorities/default/key.pem"),
                "key_passphrase": words["other"],
            }
        },
        {
            "buildfarm.buildkit.buildkit_certificate_info": {
                "path": str(directory / "pki/clients/ci/cert.pem"),
                "key_path": str(directory / "pki/clients/ci/key.pem"),
            }
        },
    ]
    path = directory / "play.yml"
    settings = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": settings, "tasks": tasks}]))
    return path


class Processes(threading.Thread):
    """Reads the arguments and the environment of every process, over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()
        self.seen: set[bytes] = set()

    def run(self) -> None:
        """Look until it is done."""
        while not self.done.wait(0.005):
            for name in ("cmdline", "environ"):
                for path in Path("/proc").glob(f"[0-9]*/{name}"):
                    try:
                        self.seen.add(path.read_bytes())
                    except OSError:  # it ended meanwhile, or is another user's
                        continue


def secrets(directory: Path) -> list[str]:
    """The passphrases, and every line of every key."""
    found = [WORDS, OTHER_WORDS]
    for path in (*directory.glob("pki/**/key.pem"), *directory.glob("tls/**/key.pem")):
        found += path.read_text().splitlines()[1:-1]
    return found


def test_nothing_secret_is_seen_while_a_playbook_runs(tmp_path: Path) -> None:
    """Neither in its output with -vvv and --diff nor in what the system tells about its processes."""
    (tmp_path / "words").write_text(WORDS)
    (tmp_path / "other").write_text(OTHER_WORDS)
    processes = Processes()
    processes.start()
    try:
        done = subprocess.run(
            ["ansible-playbook", "-vvv", "--diff", play(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_KEEP_REMOTE_FILES": "0"},
            check=False,
        )
    finally:
        processes.done.set()
        processes.join()
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "changed=4" in output
    assert "its key is encrypted with another passphrase" in output
    assert "cannot be decrypted" in output  # the run that fails
    assert output.count('"key_matches": true') == 2
    assert any(b"AnsiballZ_buildkit_pki.py" in arguments for arguments in processes.seen)
    hidden = secrets(tmp_path)
    assert len(hidden) > 8
    assert [secret for secret in hidden if secret in output] == []
    everything = b"\n".join(processes.seen)
    assert [secret for secret in hidden if secret.encode() in everything] == []
