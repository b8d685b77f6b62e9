# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restarts cost those who build: four clients in a loop, with steps of 0, 1 and 60 s, and one idle session, while
certificates are rotated, the configuration changes, and the version goes up and down, under each policy.

It uses the hosts of the scenario `lifecycle`, one for each generation. With BUILDKIT_ARCHIVE= and
BUILDKIT_ARCHIVE_SHA256= that release takes the place of its generation, or of the newer one. RESTARTS_LONG_STEP= and
RESTARTS_LIMIT= (seconds) make it shorter than half an hour. What clients said that were refused or whose builds failed
is in .cache/bench/restarts-failed.log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "molecule" / "lifecycle" / "tests"))

from load import Load

CHECKOUT = Path(__file__).resolve().parents[2]
SCENARIO = CHECKOUT / "molecule" / "lifecycle"
STATE = CHECKOUT / ".cache" / "bench" / "restarts"
FAILED = STATE.with_name("restarts-failed.log")  # molecule empties the directory at the end
HOSTS = {"lifecycle-old": "172.29.216.31", "lifecycle-new": "172.29.216.32"}
LONG = float(os.environ.get("RESTARTS_LONG_STEP", "60"))
STEPS = (0, 0, 1, LONG)
LIMIT = float(os.environ.get("RESTARTS_LIMIT", "90"))
DUE = {"buildkit_pki_renew_before": "200d", "buildkit_pki_valid_for": "300d"}
HERE, THERE = {"lifecycle-old": 0, "lifecycle-new": 1}, {"lifecycle-old": 1, "lifecycle-new": 0}


def given_release() -> None:
    """Put the release of BUILDKIT_ARCHIVE in the place of one of the two."""
    if not os.environ.get("BUILDKIT_ARCHIVE"):
        return
    command = [sys.executable, "tools/buildkit_archive.py"]
    found = json.loads(subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE).stdout)
    name = "OLD" if found["version"].startswith("0.13.") else "NEW"
    for part in ("version", "archive", "sha256"):
        os.environ[f"BUILDKIT_{name}_{part.upper()}"] = found[part]


def molecule(step: str) -> None:
    """Runs one step of the scenario."""
    print(f"molecule {step} (lifecycle) ...", flush=True)
    command = ["molecule", "-c", "molecule/config.yml", step, "--scenario-name", "lifecycle"]
    log = STATE / f"{step}.log"
    with log.open("w") as output:
        if subprocess.run(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
            sys.exit(f"error: molecule {step} failed, see {log}")


def play(playbook: str, **variables: object) -> tuple[float, str]:
    """Runs a playbook on both hosts, at the same time; {seconds, what it printed}."""
    wish = {"buildkit_serial": 2, "buildkit_drain_limit": LIMIT, **variables}
    command = ["ansible-playbook", f"buildfarm.buildkit.{playbook}", "--inventory", str(SCENARIO / "inventory.yml")]
    began = time.monotonic()
    run = subprocess.run(
        [*command, "--extra-vars", json.dumps(wish)], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if run.returncode:
        sys.exit(f"error: {playbook} failed:\n{run.stdout}\n{run.stderr}")
    return time.monotonic() - began, " ".join(run.stdout.split())


@contextmanager
def client() -> Iterator[Path]:
    """The buildctl of the older release, which talks to both."""
    with tempfile.TemporaryDirectory() as directory, tarfile.open(os.environ["BUILDKIT_OLD_ARCHIVE"]) as archive:
        program = Path(directory, "buildctl")
        content = archive.extractfile("bin/buildctl")
        assert content
        program.write_bytes(content.read())
        program.chmod(0o755)
        yield program


def measure(buildctl: Path, policy: str, change: str, playbook: str, **variables: object) -> list[tuple[str, ...]]:
    """A row for each host: one change, made under load."""
    if policy:
        variables["buildkit_restart_policy"] = policy
    print(f"{change}, policy {policy or 'default'} ...", flush=True)
    files = STATE / "pki" / "clients" / "alice"
    loads = {host: Load(address, buildctl, files, STEPS) for host, address in HOSTS.items()}
    with ExitStack() as stack:
        for load in loads.values():
            stack.enter_context(load.running())
        time.sleep(5)
        took, said = play(playbook, **variables)
    found: list[tuple[str, ...]] = []
    for host, load in loads.items():
        left = "left" if f"{host} owes a restart" in said else "restarted"
        found.append((change, policy or "default", host, left, f"{took:.0f} s", load.summary()))
        with FAILED.open("a") as log:
            for build in [*load.failed, *load.refused]:
                step = f"step {build.step:g} s, ended after {build.took:.1f} s"
                log.write(f"{change}, policy {policy or 'default'}, {host}: {step}:\n{build.error}\n")
    return found


def rows(buildctl: Path) -> Iterator[list[tuple[str, ...]]]:
    """All changes under the default policy, then one under each of the others."""
    yield measure(buildctl, "", "rotation", "rotate", **DUE)
    yield measure(buildctl, "", "configuration", "upgrade", buildkitd_config={"debug": True})
    play("upgrade", generations=HERE)
    yield measure(buildctl, "", "up, and down", "upgrade", generations=THERE)
    play("upgrade", generations=THERE)
    yield measure(buildctl, "", "down, and up", "upgrade", generations=HERE)
    play("upgrade", generations=HERE)
    yield measure(buildctl, "skip", "configuration", "upgrade", buildkitd_config={"debug": True})
    play("upgrade", generations=HERE)
    yield measure(buildctl, "now", "configuration", "upgrade", buildkitd_config={"debug": True})


def main() -> None:
    """Measures and prints the table."""
    STATE.mkdir(parents=True, exist_ok=True)
    FAILED.write_text("")
    os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] = str(STATE)
    subprocess.run(["rm", "-rf", str(STATE / "pki")], check=True)
    given_release()
    molecule("destroy")
    molecule("create")
    table: list[tuple[str, ...]] = []
    try:
        play("site")
        with client() as buildctl:
            for found in rows(buildctl):
                table += found
                print(*(" ".join(row) for row in found), sep="\n", flush=True)
    finally:
        molecule("destroy")
    print(
        f"\nclients with steps of {', '.join(f'{step:g}' for step in STEPS)} s and an idle session; limit {LIMIT:g} s"
    )
    for row in table:
        print(f"{row[0]:<14} {row[1]:<8} {row[2]:<14} {row[3]:<10} {row[4]:>6}  {row[5]}")


if __name__ == "__main__":
    main()
