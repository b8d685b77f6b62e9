# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long certificates for a whole fleet take: one task of buildkit_pki beside community.crypto, leaf by leaf.

Both run as playbooks on this machine, with the same configuration, interpreter and connection, and do the same job: a
P-256 key and a certificate of 90 days for each leaf, with names for daemons and one purpose. The start of Ansible and
of a play is taken off both: for buildkit_pki the time of an empty playbook, for community.crypto that of a playbook
that only looks after its CA, so that its CA costs it nothing. The rest is counted: the start of a module's process
too, which is once for us, and three times for every leaf there (openssl_privatekey, openssl_csr, x509_certificate with
the provider ownca). community.crypto is measured with a tenth of the leaves, and its time is multiplied by ten.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
DAEMONS, CLIENTS = 100, 20
SHARE = 10  # community.crypto gets one leaf in so many
ROUNDS = 3
AIM = 50


def playbook(directory: Path, name: str, tasks: list[dict[str, Any]]) -> Path:
    """Write a playbook for this machine."""
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "tasks": tasks,
    }
    path = directory / f"{name}.yml"
    path.write_text(yaml.safe_dump([play]))
    return path


def run(path: Path) -> tuple[float, int]:
    """Run a playbook: how many seconds it took, and how many tasks changed something."""
    environment = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    began = time.monotonic()
    done = subprocess.run(["ansible-playbook", path], env=environment, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    recap = re.search(r"^localhost\s*: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
    if done.returncode or (not recap and "PLAY RECAP" not in done.stdout):
        sys.exit(f"error: {path.name} failed:\n{done.stdout}\n{done.stderr}")
    return took, int(recap[1]) if recap else 0


def timed(path: Path, *, changes: bool) -> float:
    """Run a playbook that must, or must not, change something."""
    took, changed = run(path)
    if bool(changed) != changes:
        sys.exit(f"error: {path.name} changed {changed} tasks")
    return took


def leaves(daemons: int, clients: int) -> list[dict[str, Any]]:
    """The fleet, as loop items of community.crypto's tasks."""
    found: list[dict[str, Any]] = [
        {"name": f"build-{number}", "names": [f"DNS:build-{number}.example.com", f"IP:198.51.100.{number}"]}
        for number in range(1, daemons + 1)
    ]
    found += [{"name": f"client-{number}", "names": None} for number in range(1, clients + 1)]
    return [{**leaf, "usage": "serverAuth" if leaf["names"] else "clientAuth"} for leaf in found]


def our_task(directory: Path) -> dict[str, Any]:
    """The whole fleet in one task."""
    daemons = [
        {"name": f"build-{number}", "dns": [f"build-{number}.example.com"], "ip": [f"198.51.100.{number}"]}
        for number in range(1, DAEMONS + 1)
    ]
    clients = [{"name": f"client-{number}"} for number in range(1, CLIENTS + 1)]
    options = {"path": str(directory / "pki"), "daemons": daemons, "clients": clients}
    return {"name": "Certificates for the fleet", "buildfarm.buildkit.buildkit_pki": options}


def their_ca(directory: Path) -> list[dict[str, Any]]:
    """A CA of community.crypto, with its key, request and certificate."""
    files = {part: str(directory / f"ca.{part}") for part in ("key", "csr", "pem")}
    request = {
        "path": files["csr"],
        "privatekey_path": files["key"],
        "common_name": "BuildKit CA",
        "basic_constraints": ["CA:TRUE", "pathlen:0"],
        "basic_constraints_critical": True,
        "key_usage": ["keyCertSign", "cRLSign"],
        "key_usage_critical": True,
        "use_common_name_for_san": False,
    }
    certificate = {
        "path": files["pem"],
        "csr_path": files["csr"],
        "privatekey_path": files["key"],
        "provider": "selfsigned",
    }
    return [
        {"name": "Key of the CA", "community.crypto.openssl_privatekey": _key(files["key"])},
        {"name": "Request of the CA", "community.crypto.openssl_csr": request},
        {"name": "Certificate of the CA", "community.crypto.x509_certificate": certificate},
    ]


def their_leaves(directory: Path) -> list[dict[str, Any]]:
    """Three tasks of community.crypto, each with a loop over the leaves."""
    path = f"{directory}/{{{{ item.name }}}}"
    request = {
        "path": f"{path}.csr",
        "privatekey_path": f"{path}.key",
        "common_name": "{{ item.name }}",
        "subject_alt_name": "{{ item.names or omit }}",
        "use_common_name_for_san": False,
        "basic_constraints": ["CA:FALSE"],
        "basic_constraints_critical": True,
        "key_usage": ["digitalSignature"],
        "key_usage_critical": True,
        "extended_key_usage": ["{{ item.usage }}"],
    }
    certificate = {
        "path": f"{path}.pem",
        "csr_path": f"{path}.csr",
        "provider": "ownca",
        "ownca_path": f"{directory}/ca.pem",
        "ownca_privatekey_path": f"{directory}/ca.key",
        "ownca_not_after": "+90d",
    }
    tasks = [
        {"name": "Keys", "community.crypto.openssl_privatekey": _key(f"{path}.key")},
        {"name": "Requests", "community.crypto.openssl_csr": request},
        {"name": "Certificates", "community.crypto.x509_certificate": certificate},
    ]
    loop = leaves(DAEMONS // SHARE, CLIENTS // SHARE)
    return [{**task, "loop": loop, "loop_control": {"label": "{{ item.name }}"}} for task in tasks]


def _key(path: str) -> dict[str, Any]:
    return {"path": path, "type": "ECC", "curve": "secp256r1"}


def ours(scratch: Path) -> tuple[float, float]:
    """Seconds of the first run and of an unchanged one, medians of some rounds."""
    empty = playbook(scratch, "empty", [])
    run(empty)  # warms up the caches of the file system
    overhead = statistics.median(run(empty)[0] for _round in range(ROUNDS))
    first, unchanged = [], []
    for number in range(ROUNDS):
        directory = scratch / f"ours-{number}"
        directory.mkdir()
        path = playbook(scratch, "buildkit_pki", [our_task(directory)])
        first.append(timed(path, changes=True) - overhead)
        unchanged.append(timed(path, changes=False) - overhead)
    return statistics.median(first), statistics.median(unchanged)


def theirs(scratch: Path) -> tuple[float, float]:
    """Seconds of community.crypto, first and unchanged, for as many leaves as we have."""
    directory = scratch / "theirs"
    directory.mkdir()
    ca = playbook(scratch, "their-ca", their_ca(directory))
    timed(ca, changes=True)
    overhead = statistics.median(timed(ca, changes=False) for _round in range(ROUNDS))
    fleet = playbook(scratch, "their-fleet", [*their_ca(directory), *their_leaves(directory)])
    first = timed(fleet, changes=True) - overhead
    unchanged = timed(fleet, changes=False) - overhead
    return first * SHARE, unchanged * SHARE


def main() -> None:
    """Measure and print the table."""
    print(f"certificates for {DAEMONS} daemons and {CLIENTS} clients ...", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        mine, peers = ours(Path(scratch)), theirs(Path(scratch))
    count = (DAEMONS + CLIENTS) // SHARE
    print(f"\n{DAEMONS} daemons, {CLIENTS} clients: {'first run':>31} {'unchanged run':>15}")
    print(f"{'buildkit_pki, one task':<46} {mine[0]:>7.1f} s {mine[1]:>13.1f} s")
    print(f"{f'community.crypto, {count} leaves measured, times {SHARE}':<46} {peers[0]:>7.0f} s {peers[1]:>13.0f} s")
    ratios = [their / my for their, my in zip(peers, mine)]
    print(f"{f'  times faster (aim: {AIM} or more)':<46} {ratios[0]:>9.0f} {ratios[1]:>15.0f}")


if __name__ == "__main__":
    main()
