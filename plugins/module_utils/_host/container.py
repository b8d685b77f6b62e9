# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A buildkitd that Docker or Podman runs, as their command line tells of it (``docker inspect``, ``podman inspect``).

Both print the same JSON for what is read here; where names differ, it is said. Python 3.8, standard library.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import typing as t
from dataclasses import dataclass, field

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import mounts, proc
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# What a container of this collection carries, so that nobody else's is ever touched.
LABEL = "buildfarm.buildkit"
# What the engine is to do when it ends, for the time after it was told otherwise.
RESTART_LABEL = "buildfarm.buildkit.restart"
# The record beside the configuration that says which container is ours; also found by those who do not ask an engine.
RECORD = "container.json"
# Beside it: with what a container runs that was restarted, for labels tell what it was made with.
RESTARTED = "container-restarted.json"
# Docker 20.10 and Podman 4.4 are the oldest that have what the role asks for: Podman 4.4 brought Quadlet.
OLDEST = {"docker": (20, 10), "podman": (4, 4)}
_NAMES = {"docker": "Docker", "podman": "Podman"}
_DEFAULT_ROOTS = {"docker": "/var/lib/docker", "podman": "/var/lib/containers/storage"}
_SECONDS = 300  # for what takes a moment on an idle machine
_PROBE_NAME = "buildkitd-probe"
# Kinds of file systems (mount(8)) on which BuildKit's overlays cannot lie.
_STACKED = ("overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs")


def run(argv: t.Sequence[str], seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises HostError when it cannot be started or does not end."""
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"`{' '.join(argv)}` did not end within {seconds:g} s.") from error
    except OSError as error:
        raise HostError(f"`{' '.join(argv)}` cannot be run: {error}.") from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def parse_version(text: str) -> t.Tuple[int, ...]:
    """The numbers that a version begins with: "26.1.5+dfsg1" is (26, 1, 5)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in match.group().split(".")) if match else ()


@dataclass(frozen=True)
class Container:
    """One container.

    :param ports: what it publishes, as (address or "", port) of the host
    :param restart: what the engine does when it ends, such as "no" or "unless-stopped"; empty where that is not told
    """

    identifier: str
    running: bool
    image: str
    pid: int
    labels: t.Dict[str, str] = field(default_factory=dict)
    ports: t.Tuple[t.Tuple[str, int], ...] = ()
    restart: str = ""

    @property
    def ours(self) -> bool:
        """Whether this collection made it."""
        return LABEL in self.labels

    @property
    def held(self) -> bool:
        """Whether it is kept from being started again: by a run for a while, by one that was killed for good."""
        return self.ours and self.restart == "no" != self.labels.get(RESTART_LABEL, "no")


class Engine:
    """Docker or Podman of this host."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = _NAMES[kind]
        self.program = (
            shutil.which(kind, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/bin:/usr/bin:/bin") or ""
        )

    def run(self, *arguments: str, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
        """Run its command. Raises HostError when it cannot be started or does not end."""
        return run([self.program, *arguments], seconds)

    def version(self) -> str:
        """The version of the engine that answers. Raises HostError when none does, with what to do."""
        if not self.program:
            package = "docker.io or docker-ce with its command line" if self.kind == "docker" else "podman"
            raise HostError(
                f"there is no command {self.kind}. Install {self.name} ({package}), or choose the other engine."
            )
        form = "{{.Server.Version}}" if self.kind == "docker" else "{{.Client.Version}}"
        shown = self.run("version", "--format", form)
        if shown.returncode:
            raise HostError(
                f"{self.name} does not answer ({_last_line(shown.stderr)}). Start it, with systemctl start {self.kind} "
                f"for instance."
            )
        return shown.stdout.strip()

    def inspect(self, kind: str, name: str) -> t.Optional[t.Dict[str, t.Any]]:
        """What it knows of a container, image or volume; None when there is none of that name."""
        shown = self.run(kind, "inspect", name)
        if shown.returncode:
            if re.search(r"no such|not known|not found", shown.stderr, re.IGNORECASE):
                return None
            raise HostError(f"`{self.kind} {kind} inspect {name}` failed: {_last_line(shown.stderr)}")
        found = json.loads(shown.stdout)
        return found[0] if found else None

    def container(self, name: str) -> t.Optional[Container]:
        """A container by its name."""
        found = self.inspect("container", name)
        if found is None:
            return None
        state, config = found["State"], found["Config"]
        bindings = (found.get("NetworkSettings") or {}).get("Ports") or {}
        published = tuple(
            (binding.get("HostIp") or "", int(binding["HostPort"]))
            for bound in bindings.values()
            for binding in bound or ()
            if binding.get("HostPort")
        )
        return Container(
            identifier=found["Id"],
            running=bool(state.get("Running")),
            image=found["Image"],
            pid=int(state.get("Pid") or 0),
            labels=config.get("Labels") or {},
            ports=published,
            restart=self._restart(found),
        )

    def _restart(self, found: t.Mapping[str, t.Any]) -> str:
        if self.kind == "podman":  # systemd starts it again
            return ""
        return str(((found.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "")

    def image(self, name: str) -> str:
        """The identity of an image; empty when it is not on this host."""
        found = self.inspect("image", name)
        return str(found["Id"]).replace("sha256:", "") if found else ""

    def volume_path(self, name: str) -> str:
        """Where a volume lies, or would lie. Empty when a driver of its own decides that."""
        if os.path.isabs(name):
            return name
        found = self.inspect("volume", name)
        if found is not None:
            return str(found["Mountpoint"]) if found.get("Driver") == "local" and not found.get("Options") else ""
        form = "{{.DockerRootDir}}" if self.kind == "docker" else "{{.Store.GraphRoot}}"
        shown = self.run("info", "--format", form)
        return os.path.join(shown.stdout.strip() or _DEFAULT_ROOTS[self.kind], "volumes", name)

    def _said(self, image: str, options: t.Sequence[str]) -> str:
        """What was said where buildkitd --version could not be run in a container like this; empty where it could."""
        probe = f"{_PROBE_NAME}-{os.getpid()}"
        if self.kind == "podman":
            options = ["--pids-limit=0", *options]  # as the role runs it
        tried = self.run(
            *("run", "--rm", "--name", probe, "--network", "none", "--pull", "never", *options),
            *("--entrypoint", "buildkitd", image, "--version"),
        )
        if tried.returncode == 0:
            # Docker leaves out what the kernel cannot limit, and warns of it.
            return " ".join(line for line in tried.stderr.splitlines() if line.endswith("discarded."))
        if self.inspect("container", probe) is not None:
            self.run("rm", "--force", "--volumes", probe)
        return " ".join(tried.stderr.split()) or f"status {tried.returncode}"

    def why_not(self, image: str, options: t.Sequence[str], wishes: t.Sequence[str] = ()) -> str:
        """Why a container of this image cannot run buildkitd here, found out by running one; empty when it can.

        The container is gone afterwards. It has no network, and prints buildkitd's version.

        :param options: what gives buildkitd the rights that it needs
        :param wishes: limits and options of the log, which an engine may refuse
        """
        said = self._said(image, [*options, *wishes])
        if not said:
            return ""
        if wishes and not self._said(image, options):
            return (
                f"{self.name} runs no container with these limits or this log ({said[-300:]}). Correct "
                f"buildkitd_container_limits, buildkitd_container_log_driver or buildkitd_container_log_options."
            )
        if re.search(r"buildkitd.*(not found|no such file)|(not found|no such file).*buildkitd", said):
            return (
                f"the image {image} has no buildkitd. Name an image of BuildKit, such as docker.io/moby/buildkit with "
                f"the tag of a release."
            )
        return (
            f"{self.name} cannot start a container with what buildkitd needs ({said[-300:]}). It must be able to give "
            f"all capabilities: run it as root and not inside a container or sandbox that keeps some of them, or with "
            f"a newer engine, which asks only for those that it has."
        )


def read_record(config_dir: str) -> t.Dict[str, t.Any]:
    """What the role noted of the container that it runs here; empty when there is none.

    Raises HostError when the record cannot be read.
    """
    return _read_object(os.path.join(config_dir, RECORD), "It says which container is this collection's.")


def runs_with(config_dir: str, labels: t.Mapping[str, str]) -> t.Dict[str, str]:
    """What a container with these labels runs with: what the labels say, but for what a restart gave it since.

    Raises HostError when the note of that restart cannot be read.
    """
    note = _read_object(os.path.join(config_dir, RESTARTED), "Remove it, and run again.")
    # One that was made since has other labels.
    return {**labels, **(note.get("runs_with") or {} if note.get("made_with") == labels else {})}


def _read_object(path: str, purpose: str) -> t.Dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as source:
            found = json.load(source)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"{path} cannot be read: {error}. {purpose}") from error
    return found if isinstance(found, dict) else {}


def existing(path: str) -> str:
    """A path, or the nearest directory above it that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def on_overlay(path: str, table: t.Optional[t.Sequence[mounts.Mount]] = None) -> str:
    """Where the overlay is mounted that a path lies on, or will lie on; empty when it lies on none.

    :param table: what is mounted, in tests
    """
    path = os.path.realpath(path)
    best: t.Optional[mounts.Mount] = None
    for mount in mounts.table() if table is None else table:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.point if best is not None and best.kind in _STACKED else ""


def holds(container: t.Optional[Container], listener: proc.Listener) -> bool:
    """Whether a listener is a container's: a port that it publishes, or a process in it."""
    if container is None or not container.running:
        return False
    if listener.pid in {container.pid, *(one.pid for one in proc.descendants(container.pid))}:
        return True
    forwarder = os.path.basename(listener.executable)
    published = any(
        port == listener.port and proc.overlaps(address, listener.address) for address, port in container.ports
    )
    return published and forwarder in ("docker-proxy", "dockerd", "conmon", "rootlessport", "podman", "")


def recorded(config_dir: str) -> t.Optional[Container]:
    """The running container that the record of the role names; None when there is none."""
    record = read_record(config_dir)
    if not record:
        return None
    engine = Engine(str(record.get("engine", "docker")))
    try:
        found = engine.container(str(record.get("name", ""))) if engine.program else None
    except HostError:
        return None  # an engine that does not answer runs nothing
    return found if found is not None and found.ours else None
