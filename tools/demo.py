# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: a real builder on this machine, through the same playbook that users run; `make demo-down` removes it.

Everything is under .demo/ of the checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import _progress

CHECKOUT = Path(__file__).resolve().parent.parent
DEMO = CHECKOUT / ".demo"
INVENTORY = DEMO / "inventory.json"
FIRST_PORT = 1234
CLIENT = "demo"
LONGEST_SOCKET_PATH = 104  # what Linux and buildkitd allow
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RECAP = re.compile(r"^\S+\s*: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def free_port() -> int:
    """The first TCP port from 1234 up that nothing on loopback listens on."""
    for port in range(FIRST_PORT, FIRST_PORT + 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise _progress.ToolError(f"no free port between {FIRST_PORT} and {FIRST_PORT + 999} on 127.0.0.1")


def obtain_buildkit() -> dict[str, str]:
    """A real BuildKit: {archive, sha256, version, source}."""
    found = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / "buildkit_archive.py"), "--install-runc"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if found.returncode:
        raise _progress.ToolError("BuildKit could not be obtained; see above", code=found.returncode)
    archive: dict[str, str] = json.loads(found.stdout)
    return archive


def inventory(archive: dict[str, str], port: int) -> dict[str, object]:
    """The inventory of a team with one builder, this machine, and one client."""
    return {
        "buildkit_daemons": {
            "hosts": {
                "localhost": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                    "ansible_remote_tmp": str(DEMO / "tmp"),
                    "buildkit_names": ["localhost"],
                    "buildkit_addresses": ["127.0.0.1"],
                    "buildkit_endpoint": f"tcp://127.0.0.1:{port}",
                    "buildkit_port": port,
                    "buildkit_listen_address": "127.0.0.1",
                    "buildkit_clients": [CLIENT],
                    "buildkit_pki_dir": str(DEMO / "pki"),
                    "buildkit_tls_dir": str(DEMO / "tls"),
                    "buildkitd_service_manager": "process",
                    "buildkitd_version": archive["version"],
                    "buildkitd_archive": archive["archive"],
                    "buildkitd_archive_sha256": archive["sha256"],
                    "buildkitd_install_dir": str(DEMO / "lib"),
                    "buildkitd_bin_dir": str(DEMO / "bin"),
                    "buildkitd_config_dir": str(DEMO / "etc"),
                    "buildkitd_run_dir": str(DEMO / "run"),
                    "buildkitd_log_dir": str(DEMO / "log"),
                    "buildkitd_root": str(DEMO / "cache"),
                }
            }
        }
    }


def playbook(name: str, *extra: str) -> int:
    """Runs one of the collection's playbooks on the demo's inventory; returns how many tasks changed something."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_CONFIG=str(CHECKOUT / "tools" / "demo.cfg"),
        ANSIBLE_HOME=str(DEMO / "ansible"),
        ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".cache" / "collections"),
        PYTHONUNBUFFERED="1",
    )
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        environment["ANSIBLE_FORCE_COLOR"] = "true"
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(INVENTORY), *extra]
    process = subprocess.Popen(
        [*command, f"buildfarm.buildkit.{name}"], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True
    )
    changed = 0
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        recap = _RECAP.match(_COLOUR.sub("", line))
        if recap:
            changed += int(recap[1])
    if process.wait():
        raise _progress.ToolError(
            f"the playbook {name} failed; its messages are above. `make demo-down` removes what it left.",
            code=process.returncode,
        )
    return changed


def write_example() -> Path:
    """A build that needs no registry."""
    example = DEMO / "example"
    example.mkdir(exist_ok=True)
    (example / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (example / "hello.txt").write_text("Built on a remote builder of one's own.\n")
    return example


def commands(port: int, example: Path) -> str:
    """The commands that work now, ready to be pasted."""
    client = DEMO / "pki" / "clients" / CLIENT
    out = DEMO / "out"
    endpoint = f"tcp://127.0.0.1:{port}"
    buildctl: list[str | Path] = [DEMO / "bin" / "buildctl", "--addr", endpoint, "--tlsdir", client]
    contexts = ["--local", f"context={example}", "--local", f"dockerfile={example}"]
    output = ["--output", f"type=local,dest={out}"]
    buildx, builder = ["docker", "buildx"], "buildfarm-demo"
    files = f"cacert={client}/ca.pem,cert={client}/cert.pem,key={client}/key.pem"
    lines: list[list[str | Path]] = [
        [*buildctl, "debug", "workers"],
        [*buildctl, "build", "--frontend", "dockerfile.v0", *contexts, *output],
        [*buildx, "create", "--name", builder, "--driver", "remote", "--driver-opt", files, endpoint],
        [*buildx, "build", "--builder", builder, *output, example],
        [*buildx, "rm", builder],
    ]
    return "\n".join("  " + shlex.join(str(word) for word in line) for line in lines)


def up() -> None:
    """Sets the demo up, proves it, and says what works now."""
    if os.geteuid():
        raise _progress.ToolError("`make demo` must be run as root: buildkitd runs containers")
    if len(str(DEMO / "run" / "buildkitd.sock")) > LONGEST_SOCKET_PATH:
        raise _progress.ToolError(f"{CHECKOUT} is too long a path for a unix socket in it; clone to a shorter one")
    started = time.monotonic()
    known = json.loads(INVENTORY.read_text()) if INVENTORY.exists() else None
    archive = obtain_buildkit()
    port = known["buildkit_daemons"]["hosts"]["localhost"]["buildkit_port"] if known else free_port()
    DEMO.mkdir(mode=0o700, exist_ok=True)
    # In one rename, so that an interrupted demo can still be read, and removed.
    written = INVENTORY.with_suffix(".new")
    written.write_text(json.dumps(inventory(archive, port), indent=2) + "\n")
    written.replace(INVENTORY)
    changed = playbook("site")
    example = write_example()
    print(f"\nBuildKit {archive['version']} ({archive['source']}) is at tcp://127.0.0.1:{port}, proven as shown above.")
    print(f"Tasks that changed something: {changed}" if changed else "Nothing changed: everything was as it should be.")
    print(f"It took {time.monotonic() - started:.0f} s. These commands work now:\n\n{commands(port, example)}\n")
    print("`make demo` again changes nothing; `make demo-down` removes everything.")


def mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory, deepest first (proc_pid_mountinfo(5))."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True)


def remove_cgroups() -> None:
    """Removes the control groups that build steps ran in; the kernel keeps those that are in use."""
    for group in [*Path("/sys/fs/cgroup").glob("buildkit"), *Path("/sys/fs/cgroup").glob("*/buildkit")]:
        with contextlib.suppress(OSError):
            group.rmdir()


def down() -> None:
    """Stops the demo's daemon and removes every file of the demo."""
    if not DEMO.exists():
        print("There is no demo to remove.")
        return
    if INVENTORY.exists():
        playbook("remove", "--extra-vars", json.dumps({"buildkitd_purge_cache": True, "buildkitd_stop_timeout": 30}))
    for point in mounts_below(DEMO):
        subprocess.run(["umount", point], check=True)
    remove_cgroups()
    shutil.rmtree(DEMO)
    print("\nThe demo is removed: no process, no mount and no file of it is left.")


def main() -> None:
    """Runs the part that the command line names."""
    parts = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        raise _progress.ToolError("usage: tools/demo.py up|down", code=2)
    parts[sys.argv[1]]()


if __name__ == "__main__":
    _progress.main(main)
