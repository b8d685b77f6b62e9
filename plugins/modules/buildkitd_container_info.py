#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host and its engine say of the container that runs buildkitd: one task instead of ten."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_container_info
short_description: What a host and its engine say of the container that runs buildkitd
version_added: 1.1.0
description:
  - Tells everything that the role buildkitd_container must know of a host before it changes it, in one task, and why
    the container that runs must be replaced.
  - Asks Docker or Podman by their command line. It needs the Python standard library alone, and changes nothing.
  - To find out whether the engine can run buildkitd, it runs C(buildkitd --version) of the image in a container without
    network that is gone afterwards. It does so only where the image is there and no container of it runs.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing, so there is nothing to compare.
  idempotent:
    support: full
options:
  engine:
    description: Which engine runs it.
    type: str
    choices: [docker, podman]
    required: true
  name:
    description:
      - The name of the container. Another that is set aside has C(-previous) behind it, one that is to take its place
        C(-next).
    type: str
    required: true
  image:
    description: The image, with tag or digest.
    type: str
    required: true
  volume:
    description: The volume, or directory of the host, that holds the cache.
    type: str
    required: true
  ports:
    description: The TCP ports of the host that it is to have.
    type: list
    elements: int
    default: []
  listen_address:
    description: The address that they are bound to. Empty means every address of the host.
    type: str
    default: ""
  probe_options:
    description: Options of C(docker run) or C(podman run) that give buildkitd what it needs.
    type: list
    elements: str
    default: [--privileged]
  wish_options:
    description: More of these, for limits and the log. Where it runs without them alone, that is said.
    type: list
    elements: str
    default: []
  proxy:
    description:
      - What the file with the proxies of the container is to hold. Empty when it has none. What stands for it in labels
        says nothing of its content.
    type: str
    default: ""
  proved_dir:
    description: Where M(buildfarm.buildkit.buildkitd_snapshot) keeps what the container was proved with.
    type: path
    default: /etc/buildkit/container-proved
  parts:
    description:
      - What the container depends on, as a name that reads well in a sentence, and the path of a file.
    type: dict
    default: {}
  digests:
    description:
      - SHA-256 of what files are to hold, by path; needed in check mode. It also holds that of a part that is no file,
        by what stands in place of the path.
    type: dict
    default: {}
  config_dir:
    description: Where the role keeps configuration and its record of the container.
    type: path
    default: /etc/buildkit
  config_file:
    description: The C(buildkitd.toml) of the container. Empty when it has none.
    type: path
    default: ""
  unit_file:
    description: The Quadlet file of the container. Empty when it has none.
    type: path
    default: ""
  tls_dir:
    description: The directory with the daemon's certificates.
    type: path
    default: /etc/buildkit/tls
  install_dir:
    description: Where the host service, if there is one, has its programs.
    type: path
    default: /usr/local/lib/buildkit
  wait:
    description:
      - Seconds to wait until the daemon in the container answers, and nothing else. The module fails when it does not.
    type: int
    default: 0
  health:
    description:
      - The command that tells inside of the container whether the daemon answers. Without one, a TLS server on the
        first of O(ports) is waited for.
    type: list
    elements: str
    default: []
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_host_info
"""

EXAMPLES = r"""
- name: Look at the engine and the container
  buildfarm.buildkit.buildkitd_container_info:
    engine: docker
    name: buildkitd
    image: docker.io/moby/buildkit:v0.31.0
    volume: buildkitd
    ports: [1234]
    parts:
      certificate: /etc/buildkit/tls/cert.pem
  register: found

- name: Stop where it cannot run
  ansible.builtin.assert:
    that: found.problems | length == 0
    fail_msg: "{{ found.problems | join(' ') }}"
"""

RETURN = r"""
problems:
  description: Why it cannot run here, each with what to do. Empty when it can, as far as can be told.
  returned: always
  type: list
  elements: str
  sample: []
version:
  description: The version of the engine. Empty when none answers.
  returned: always
  type: str
  sample: 26.1.5+dfsg1
exists:
  description: Whether there is a container of this collection with this name.
  returned: always
  type: bool
  sample: true
running:
  description: Whether it runs.
  returned: always
  type: bool
  sample: true
pid:
  description: Number of its main process on the host. V(0) when it does not run.
  returned: always
  type: int
  sample: 4711
previous:
  description: Whether one is set aside.
  returned: always
  type: bool
  sample: false
unfinished:
  description:
    - Whether a run was killed while it exchanged the container, and left one that is held, set aside or to take its
      place.
  returned: always
  type: bool
  sample: false
image:
  description: The identity of the image on this host. Empty when it is not there.
  returned: always
  type: str
  sample: 547ea36c34ab87b1b3224b6a05d025989b10021338cae5763180c8e84170b296
reasons:
  description: Why the container must be replaced. Empty when it need not be, or does not exist.
  returned: always
  type: list
  elements: str
  sample: [certificate changed]
started_with:
  description: The labels of the container. Empty when there is none.
  returned: always
  type: dict
  sample: {BUILDFARM_SHA256_CERTIFICATE: 0d2c0c39f8d5}
runs_with:
  description: The same, but for a certificate and trust bundle that it was given since by a restart.
  returned: always
  type: dict
  sample: {BUILDFARM_SHA256_CERTIFICATE: 0d2c0c39f8d5}
disk_size:
  description: Bytes of the file system that the volume lies on. V(0) when it is not known.
  returned: always
  type: int
  sample: 536870912000
labels:
  description: What the container is to be labelled with, so that this module can tell later.
  returned: always
  type: dict
  sample: {BUILDFARM_SHA256_CERTIFICATE: 0d2c0c39f8d5}
record:
  description: What the role noted of the container that it runs here. Empty when there is none.
  returned: always
  type: dict
  sample: {engine: docker, name: buildkitd}
service:
  description: Whether buildkitd of the role buildkitd is on this host.
  returned: always
  type: bool
  sample: false
proxy_file:
  description: The file that holds, or is to hold, O(proxy). Empty when there are no proxies.
  returned: always
  type: str
  sample: ""
proved:
  description: What the container was labelled with that was proved last. Empty when none was.
  returned: always
  type: dict
  sample: {BUILDFARM_SHA256_CERTIFICATE: 0d2c0c39f8d5}
proxy_files:
  description: Files with the proxies of containers of this role, one at most but in the middle of a run.
  returned: always
  type: list
  elements: str
  sample: []
config_text:
  description: What O(config_file) holds. Empty when it is not there.
  returned: always
  type: str
  sample: ""
unit_text:
  description: What O(unit_file) holds. Empty when it is not there.
  returned: always
  type: str
  sample: ""
tls_files:
  description: Which of C(ca.pem), C(cert.pem) and C(key.pem) are in O(tls_dir).
  returned: always
  type: list
  elements: str
  sample: [ca.pem, cert.pem, key.pem]
requests:
  description: Whether the Python library requests is there, which the modules of community.docker import on the host.
  returned: always
  type: bool
  sample: true
systemd:
  description: Whether systemd is the host's init.
  returned: always
  type: bool
  sample: true
"""

import glob
import importlib.util
import os
import secrets
import socket
import ssl
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import (
    container,
    fingerprint,
    proc,
    snapshot,
    systemd,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

_POLL = 0.1
_LOG_LINES = 8


class _Host:
    """What is found of one host."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params
        self.problems: t.List[str] = []
        self.engine = container.Engine(params["engine"])
        self.version = ""
        self.image = ""
        self.container: t.Optional[container.Container] = None
        self.previous = False
        self.unfinished = False
        self.disk_size = 0
        self.unit_text = _read(params["unit_file"])
        self.proxy_files = sorted(
            glob.glob(os.path.join(glob.escape(params["config_dir"]), "container-proxy", "*.env"))
        )
        self.proxy_file = self._proxy_file()
        known = {"proxy": os.path.basename(self.proxy_file) or "none", **params["digests"]}
        self.labels = fingerprint.digests(params["parts"], known)
        self.record = container.read_record(params["config_dir"])

    def _proxy_file(self) -> str:
        """The file with this content, or a new name for it.

        Labels and command lines, which everyone may read, tell that name. A digest there would let anyone try passwords
        until one fits.
        """
        wanted = self.params["proxy"]
        if not wanted:
            return ""
        same = [path for path in self.proxy_files if _read(path) == wanted]
        directory = os.path.join(self.params["config_dir"], "container-proxy")
        return same[0] if same else os.path.join(directory, f"{secrets.token_hex(6)}.env")

    def look(self) -> str:
        """Ask the engine; a problem that makes the next question pointless is the last."""
        if not self._ask_engine():
            return ""
        name = self.params["name"]
        self.container = self.engine.container(name)
        beside = {f"{name}-{which}": self.engine.container(f"{name}-{which}") for which in ("previous", "next")}
        previous, following = beside.values()
        self.previous = previous is not None and previous.ours
        held = self.container is not None and self.container.held
        self.unfinished = self.previous or held or (following is not None and following.ours)
        self.image = self.engine.image(self.params["image"])
        self._check_names({name: self.container, **beside})
        self._check_ports()
        self._check_volume()
        self._probe()
        return ""

    def _ask_engine(self) -> bool:
        kind = self.engine.kind
        try:
            self.version = self.engine.version()
        except HostError as error:
            self.problems.append(str(error))
            return False
        oldest = container.OLDEST[kind]
        if container.parse_version(self.version) < oldest:
            self.problems.append(
                f"{self.engine.name} is {self.version}, and {'.'.join(map(str, oldest))} or newer is needed. Upgrade "
                f"it, or choose the other engine."
            )
            return False
        return True

    def _check_names(self, found: t.Mapping[str, t.Optional[container.Container]]) -> None:
        for one, there in found.items():
            if there is not None and not there.ours:
                self.problems.append(
                    f"a container named {one} is here already, which this collection did not make. Remove it with "
                    f"{self.engine.kind} rm --force {one}, or set buildkitd_container_name."
                )
        name, unit = self.params["name"], self.params["unit_file"]
        if not unit:
            return
        if self.unit_text and container.LABEL not in self.unit_text:
            self.problems.append(f"{unit} was made by somebody else. Remove it, or set buildkitd_container_name.")
        if not self.unit_text and systemd.show(f"{name}.service")["LoadState"] == "loaded":
            self.problems.append(
                f"there is a systemd unit {name}.service already, which would be that of the container. Remove it, or "
                f"set buildkitd_container_name."
            )

    def _check_ports(self) -> None:
        address = self.params["listen_address"]
        if address and not proc.is_address(address):
            self.problems.append(
                f"the listen address {address!r} is no IP address. Name one of this host's addresses, or leave it "
                f"empty for all of them."
            )
            return
        if address and not proc.is_here(address):
            self.problems.append(
                f"this host does not have the listen address {address}. Name one of its addresses (ip address shows "
                f"them), or leave it empty for all of them."
            )
        ours = [self.container if self.container and self.container.ours else None]
        ours.append(container.recorded(self.params["config_dir"]))
        programs = os.path.join(os.path.realpath(self.params["install_dir"]), "")
        for port in self.params["ports"]:
            for listener in proc.listeners(port):
                service = listener.pid == 1 and systemd.listens_on("buildkit.socket", port)
                service = service or listener.executable.startswith(programs)
                known = service or any(container.holds(one, listener) for one in ours)
                if not known and proc.overlaps(listener.address, address):
                    holder = f"{listener.executable or 'an unknown program'} (process {listener.pid or 'unknown'})"
                    self.problems.append(
                        f"port {port} is in use by something else: {listener.address}:{port} held by {holder}. Stop "
                        f"it, or set buildkit_port or buildkit_listen_address."
                    )

    def _check_volume(self) -> None:
        path = self.engine.volume_path(self.params["volume"])
        if not path:
            return
        disk = os.statvfs(container.existing(path))
        self.disk_size = disk.f_blocks * disk.f_frsize
        overlay = container.on_overlay(path)
        if overlay:
            self.problems.append(
                f"the volume {self.params['volume']} would lie at {path}, which is on the overlay that is mounted at "
                f"{overlay}. BuildKit stacks overlays of its own, which the kernel refuses there. Put it on a real "
                f"file system: set buildkitd_container_volume to a directory on one, or move the engine's data there."
            )

    def _probe(self) -> None:
        runs = self.container is not None and self.container.ours and self.container.running
        current = self.container is not None and self.container.image.replace("sha256:", "") == self.image
        settings = fingerprint.variable("settings")
        if self.container is not None and self.container.labels.get(settings) != self.labels.get(settings):
            current = False
        if self.image and not (runs and current):
            why_not = self.engine.why_not(
                self.params["image"], self.params["probe_options"], self.params["wish_options"]
            )
            if why_not:
                self.problems.append(why_not)

    def runs_with(self) -> t.Dict[str, str]:
        """What the container runs with; empty when there is none."""
        if self.container is None or not self.container.ours:
            return {}
        return container.runs_with(self.params["config_dir"], self.container.labels)

    def reasons(self, runs_with: t.Mapping[str, str]) -> t.List[str]:
        """Why the container must be replaced."""
        return fingerprint.reasons(self.params["parts"], self.labels, runs_with) if runs_with else []

    def service(self) -> bool:
        """Whether the role buildkitd set this host up."""
        return os.path.lexists(os.path.join(self.params["install_dir"], "current")) or (
            systemd.show("buildkit.service")["LoadState"] == "loaded"
        )

    def wait(self) -> str:
        """Wait until the daemon answers; why it did not, or nothing."""
        limit = time.monotonic() + self.params["wait"]
        while True:
            problem = self._ask_daemon()
            if not problem:
                return ""
            if time.monotonic() > limit:
                break
            time.sleep(_POLL)
        shown = self.engine.run("logs", "--tail", str(_LOG_LINES), self.params["name"])
        if shown.returncode and self.engine.kind == "podman":  # its container is gone with its log once it has ended
            unit = f"{self.params['name']}.service"
            shown = container.run(["journalctl", "--unit", unit, "--lines", str(_LOG_LINES), "--output", "cat"])
        log = " | ".join(line.strip() for line in (shown.stdout + shown.stderr).splitlines() if line.strip())
        seconds = self.params["wait"]
        return f"the daemon in the container did not answer within {seconds} s ({problem}). Its log ends: {log}"

    def _ask_daemon(self) -> str:
        if self.params["health"]:
            asked = self.engine.run("exec", self.params["name"], *self.params["health"])
            return "" if asked.returncode == 0 else " ".join((asked.stderr or asked.stdout).split())[-300:]
        address = self.params["listen_address"] or "127.0.0.1"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # whether something serves TLS there is all that is asked
        try:
            plain = socket.create_connection((address, self.params["ports"][0]), timeout=5)
            with plain, context.wrap_socket(plain):
                return ""
        except (OSError, IndexError) as error:
            return str(error)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def main() -> None:
    """Collects the facts and exits with them."""
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "choices": ["docker", "podman"], "required": True},
            "name": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "listen_address": {"type": "str", "default": ""},
            "probe_options": {"type": "list", "elements": "str", "default": ["--privileged"]},
            "wish_options": {"type": "list", "elements": "str", "default": []},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "proved_dir": {"type": "path", "default": "/etc/buildkit/container-proved"},
            "parts": {"type": "dict", "default": {}},
            "digests": {"type": "dict", "default": {}},
            "config_dir": {"type": "path", "default": "/etc/buildkit"},
            "config_file": {"type": "path", "default": ""},
            "unit_file": {"type": "path", "default": ""},
            "tls_dir": {"type": "path", "default": "/etc/buildkit/tls"},
            "install_dir": {"type": "path", "default": "/usr/local/lib/buildkit"},
            "wait": {"type": "int", "default": 0},
            "health": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        host = _Host(params)
        obstacle = host.wait() if params["wait"] else host.look()
        runs_with = host.runs_with()
        config_text = _read(params["config_file"])
        proved = snapshot.read(params["proved_dir"])
    except (HostError, OSError) as error:
        module.fail_json(msg=f"Looking at the container {params['name']} failed: {error}")
    if obstacle:
        module.fail_json(msg=obstacle)
    ours = host.container is not None and host.container.ours
    module.exit_json(
        changed=False,
        problems=host.problems,
        version=host.version,
        exists=ours,
        running=ours and host.container is not None and host.container.running,
        pid=host.container.pid if ours and host.container is not None and host.container.running else 0,
        previous=host.previous,
        unfinished=host.unfinished,
        image=host.image,
        reasons=host.reasons(runs_with),
        started_with=host.container.labels if ours and host.container is not None else {},
        runs_with=runs_with,
        disk_size=host.disk_size,
        labels=host.labels,
        record=host.record,
        service=host.service(),
        config_text=config_text,
        proved=proved.digests if proved else {},
        proxy_file=host.proxy_file,
        proxy_files=host.proxy_files,
        unit_text=host.unit_text,
        tls_files=[
            name for name in ("ca.pem", "cert.pem", "key.pem") if os.path.isfile(os.path.join(params["tls_dir"], name))
        ],
        requests=importlib.util.find_spec("requests") is not None,
        systemd=systemd.is_running(),
    )


if __name__ == "__main__":
    main()
