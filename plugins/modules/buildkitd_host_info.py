#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a builder host is and has: one task instead of ten."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_host_info
short_description: What a builder host is and what it already has
version_added: 1.0.0
description:
  - Tells everything that the roles must know of a host before they change it, in one task.
  - It needs the Python standard library alone, changes nothing, and never fails because something is not there.
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
  version:
    description: The BuildKit version that is wanted, without a leading C(v). Empty when that does not matter.
    type: str
    default: ""
  port:
    description: The TCP port that buildkitd is to listen on, or V(0) when it is to listen on none.
    type: int
    default: 0
  listen_address:
    description: The address that buildkitd is to listen on. Empty means every address of the host.
    type: str
    default: ""
  install_dir:
    description: Where the versions are installed.
    type: path
    default: /usr/local/lib/buildkit
  bin_dir:
    description: Where the programs are linked.
    type: path
    default: /usr/local/bin
  tls_dir:
    description: The directory with the daemon's certificates.
    type: path
    default: /etc/buildkit/tls
  config_dir:
    description: Where the role buildkitd_container would have its record of a container.
    type: path
    default: /etc/buildkit
    version_added: 1.1.0
  pid_file:
    description: The pid file of a daemon that runs without an init system. Empty when there is none to look for.
    type: path
    default: ""
  root:
    description: The directory of the build cache, whether or not it is there yet. Empty when that does not matter.
      One that the system or another engine has for itself, such as C(/var/lib), fails the module.
    type: path
    default: ""
    version_added: 1.1.0
  network:
    description: The network of build steps, as the role buildkitd has it. With V(bridge) it is tried whether this
      host can give them one of their own.
    type: str
    choices: [host, bridge]
    default: host
    version_added: 1.1.0
  network_subnet:
    description: The addresses of build steps in a network of their own.
    type: str
    default: 10.10.0.0/16
    version_added: 1.1.0
  snapshot:
    description: Where M(buildfarm.buildkit.buildkitd_snapshot) keeps what was proved. Empty when that does not matter.
    type: path
    default: ""
    version_added: 1.1.0
  proof:
    description: Whether to find out if M(buildfarm.buildkit.buildkit_verify) could run here, which loads its libraries.
    type: bool
    default: true
    version_added: 1.1.0
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_release
  - module: buildfarm.buildkit.buildkitd_process
"""

EXAMPLES = r"""
- name: Look at the host
  buildfarm.buildkit.buildkitd_host_info:
    version: 0.31.0
    port: 1234
  register: host

- name: Stop where the port belongs to somebody else
  ansible.builtin.assert:
    that: host.foreign_listeners | length == 0
"""

RETURN = r"""
container:
  description: What the role buildkitd_container noted of the container that it runs here. Empty when there is none.
  returned: always
  type: dict
  sample: {}
  version_added: 1.1.0
platform:
  description: The host's platform as release archives name it. Empty when there is no release for it.
  returned: always
  type: str
  sample: linux-amd64
machine:
  description: What C(uname -m) says.
  returned: always
  type: str
  sample: x86_64
systemd:
  description: Whether systemd is the host's init.
  returned: always
  type: bool
  sample: true
units:
  description: State of C(buildkit.service) and C(buildkit.socket), as C(systemctl show) tells it.
  returned: always
  type: dict
  sample:
    buildkit.service: {LoadState: loaded, ActiveState: active, SubState: running, UnitFileState: enabled}
installed_sha256:
  description: Checksum of the archive that the wanted version was installed from. Empty when it is not installed.
  returned: always
  type: str
  sample: a13e961a4e4e1afbece1ddfd6818ff726fe4577a99b2763e677456016827f4b7
current_version:
  description: The version in use. Empty when none is.
  returned: always
  type: str
  sample: 0.31.0
running_version:
  description: The version of the daemon that runs, by where its program is. Empty when none runs, or it is not ours.
  returned: always
  type: str
  sample: 0.31.0
  version_added: 1.1.0
proved_version:
  description: The version that was proved last, and wrote the cache. Empty when there is none in O(snapshot).
  returned: always
  type: str
  sample: 0.31.0
  version_added: 1.1.0
unlinked_programs:
  description: Programs of the wanted version that are not yet linked into O(bin_dir).
  returned: always
  type: list
  elements: str
  sample: []
foreign_programs:
  description: Why a program cannot be linked, because a file or link that is not ours has its name.
  returned: always
  type: list
  elements: str
  sample: []
runc:
  description: The runc that buildkitd would find, its own or one in PATH. Empty when there is none.
  returned: always
  type: str
  sample: /usr/sbin/runc
foreign_listeners:
  description: Who else listens on the wanted port.
  returned: always
  type: list
  elements: str
  sample: ["0.0.0.0:1234 held by /usr/sbin/nginx (process 812)"]
tls_files:
  description: Which of C(ca.pem), C(cert.pem) and C(key.pem) are in O(tls_dir).
  returned: always
  type: list
  elements: str
  sample: [ca.pem, cert.pem, key.pem]
cryptography:
  description: Version of the host's Python library cryptography. Empty when it is missing.
  returned: always
  type: str
  sample: 43.0.0
proof_obstacle:
  description: Why M(buildfarm.buildkit.buildkit_verify) cannot run here, an old Python or a library that is missing.
    Empty when it can, and with O(proof=false).
  returned: always
  type: str
  sample: ""
python:
  description: The interpreter that modules run with.
  returned: always
  type: str
  sample: /usr/bin/python3
disk_size:
  description:
    - Bytes of the file system that holds O(root), or will. V(0) without O(root).
    - Where the directory is not there yet, its nearest parent that is there tells.
  returned: always
  type: int
  sample: 536870912000
  version_added: 1.1.0
process:
  description: Process number of the daemon that O(pid_file) names, when that very process runs.
  returned: always
  type: int
  sample: 4711
network_obstacles:
  description: Why build steps cannot have a network of their own here. Empty with O(network=host).
  returned: always
  type: list
  elements: str
  sample: []
  version_added: 1.1.0
cni_plugins:
  description: Where the CNI plugins for such a network are, of the wanted version or of the host. Empty when there are
    none.
  returned: always
  type: str
  sample: /usr/lib/cni
  version_added: 1.1.0
host_cni_plugins:
  description: Where the host's own CNI plugins are. Empty when there are none.
  returned: always
  type: str
  sample: /usr/lib/cni
  version_added: 1.1.0
other_units:
  description: State of C(buildkit-prune.timer) and C(buildkit.slice), likewise.
  returned: always
  type: dict
  sample:
    buildkit-prune.timer: {LoadState: loaded, ActiveState: active, SubState: waiting, UnitFileState: enabled}
  version_added: 1.1.0
"""

import os
import platform
import shutil
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    GRPCLIB,
    PROTOBUF,
    MissingLibraryError,
    require,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import (
    cache,
    container,
    network,
    proc,
    process,
    release,
    snapshot,
    systemd,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

_UNITS = ("buildkit.service", "buildkit.socket")
_OTHER_UNITS = ("buildkit-prune.timer", "buildkit.slice")


def _foreign_listeners(params: t.Mapping[str, t.Any]) -> t.List[str]:
    address = params["listen_address"]
    if address and not proc.is_address(address):
        raise HostError(
            f"The listen address {address!r} is no IP address. Name one of this host's addresses, or leave it empty "
            f"for all of them."
        )
    if not params["port"]:
        return []
    ours = os.path.join(os.path.realpath(params["install_dir"]), "")
    found = []
    for listener in proc.listeners(params["port"]):
        activated = listener.pid == 1 and systemd.listens_on("buildkit.socket", listener.port)
        if activated or listener.executable.startswith(ours):
            continue
        if container.holds(container.recorded(params["config_dir"]), listener):
            continue
        if proc.overlaps(listener.address, address):
            holder = f"{listener.executable or 'an unknown program'} (process {listener.pid or 'unknown'})"
            found.append(f"{listener.address}:{listener.port} held by {holder}")
    return found


def _proved_version(params: t.Mapping[str, t.Any]) -> str:
    kept = snapshot.read(params["snapshot"]) if params["snapshot"] else None
    return kept.links.get(os.path.join(params["install_dir"], "current"), "") if kept else ""


def _running_version(params: t.Mapping[str, t.Any], pid: int) -> str:
    identity = proc.identify(pid) if pid else None
    versions = os.path.join(os.path.realpath(params["install_dir"]), "")
    if identity is None or not identity.executable.startswith(versions):
        return ""
    return identity.executable[len(versions) :].partition("/")[0]


def _cryptography_version() -> str:
    try:
        import cryptography
    except ImportError:
        return ""
    return str(cryptography.__version__)


def _proof_obstacle() -> str:
    if sys.version_info < (3, 10):
        return (
            f"The proof needs Python 3.10 or newer, and {sys.executable} on {platform.node()} is "
            f"{platform.python_version()}."
        )
    try:
        require(GRPCLIB, PROTOBUF, CRYPTOGRAPHY)
    except MissingLibraryError as error:
        return str(error)
    return ""


def _runc(params: t.Mapping[str, t.Any]) -> str:
    """The runc that buildkitd would use: it looks for buildkit-runc first, and finds its own programs before others."""
    programs = os.path.join(params["install_dir"], params["version"], "bin")
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which("buildkit-runc", path=path) or shutil.which("runc", path=path) or ""


def _disk_size(root: str) -> int:
    """Bytes of the file system of a directory, or of the nearest parent that is there (statvfs(3))."""
    if not root:
        return 0
    path = os.path.realpath(root)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_frsize * found.f_blocks


def _bundled_plugins(params: t.Mapping[str, t.Any]) -> str:
    programs = os.path.join(params["install_dir"], params["version"], "bin")
    return programs if network.bundled(programs) else ""


def _foreign_programs(params: t.Mapping[str, t.Any]) -> t.List[str]:
    """Why a program cannot be linked."""
    try:
        release.refuse_foreign_programs(params["install_dir"], params["bin_dir"])
    except HostError as error:
        return [str(error)]
    return []


def main() -> None:
    """Collects the facts and exits with them."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 0},
            "listen_address": {"type": "str", "default": ""},
            "install_dir": {"type": "path", "default": "/usr/local/lib/buildkit"},
            "bin_dir": {"type": "path", "default": "/usr/local/bin"},
            "tls_dir": {"type": "path", "default": "/etc/buildkit/tls"},
            "config_dir": {"type": "path", "default": "/etc/buildkit"},
            "pid_file": {"type": "path", "default": ""},
            "root": {"type": "path", "default": ""},
            "snapshot": {"type": "path", "default": ""},
            "proof": {"type": "bool", "default": True},
            "network": {"type": "str", "choices": ["host", "bridge"], "default": "host"},
            "network_subnet": {"type": "str", "default": "10.10.0.0/16"},
        },
        supports_check_mode=True,
    )
    params = module.params
    shown = systemd.show_all(*_UNITS, *_OTHER_UNITS)
    units = {unit: shown[unit] for unit in _UNITS}
    try:
        cache.refuse_others_directory(params["root"])
        daemon = process.running(params["pid_file"]) if params["pid_file"] else None
        foreign_listeners = _foreign_listeners(params)
        record = container.read_record(params["config_dir"])
        network_obstacles = network.obstacles(params["network_subnet"]) if params["network"] == "bridge" else []
    except HostError as error:
        module.fail_json(msg=str(error))
    host_plugins = network.plugin_directory()
    module.exit_json(
        changed=False,
        container=record,
        platform=release.PLATFORMS.get(platform.machine(), "") if platform.system() == "Linux" else "",
        machine=platform.machine(),
        systemd=systemd.is_running(),
        units=units,
        installed_sha256=release.installed_sha256(params["install_dir"], params["version"]),
        current_version=release.current_version(params["install_dir"]),
        proved_version=_proved_version(params),
        running_version=_running_version(
            params, int(units["buildkit.service"]["MainPID"] or 0) or (daemon.pid if daemon else 0)
        ),
        unlinked_programs=release.missing_links(params["install_dir"], params["bin_dir"], params["version"]),
        foreign_programs=_foreign_programs(params),
        runc=_runc(params),
        foreign_listeners=foreign_listeners,
        tls_files=[
            name for name in ("ca.pem", "cert.pem", "key.pem") if os.path.isfile(os.path.join(params["tls_dir"], name))
        ],
        cryptography=_cryptography_version(),
        proof_obstacle=_proof_obstacle() if params["proof"] else "",
        python=sys.executable,
        disk_size=_disk_size(params["root"]),
        process=daemon.pid if daemon else 0,
        network_obstacles=network_obstacles,
        cni_plugins=_bundled_plugins(params) or host_plugins,
        host_cni_plugins=host_plugins,
        other_units={unit: shown[unit] for unit in _OTHER_UNITS},
    )


if __name__ == "__main__":
    main()
