#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a builder of docker buildx, changes it or removes it, without buildx and without Docker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_builder
short_description: Manage a remote builder of docker buildx
version_added: 1.1.0
description:
  - Makes, changes or removes a builder of the driver C(remote), as C(docker buildx create) would. It writes what buildx
    itself stores, under buildx's own lock, so neither buildx nor Docker is needed where it runs.
  - It runs on the machine of the user who builds, as that user or, with O(user), as root.
  - What is stored is compared by its meaning. Keys and driver options that this module does not know stay as they are.
  - A builder that works in buildx 0.13 works in all newer ones. buildx reads the certificates each time it connects, so
    nothing is to be done here when they are renewed in place.
  - C(buildkitd.default.toml) in the directory of buildx, for which C(docker buildx create) fails with this driver, does
    no harm to a builder that this module makes.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
    details: The files of certificates need not be there yet.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - Python 3.8 or newer
options:
  name:
    description:
      - The name of the builder. It begins with a letter. Letters, digits and C(._-) may follow.
      - C(default) and the names of Docker contexts are taken.
      - With O(state=absent) it may end with V(-*). It then stands for all builders of the driver C(remote) whose names
        begin so, whose nodes all have the O(cacert) given here, and which are not in O(keep).
      - With O(state=absent) and O(cacert) a builder is left alone that has another driver, or no node with that
        O(cacert). Without O(cacert) one of another driver is refused.
    type: str
    required: true
  state:
    description: Whether the builder shall be there.
    type: str
    choices: [present, absent]
    default: present
  keep:
    description: Names of builders that stay where O(name) stands for several.
    type: list
    elements: str
    default: []
  nodes:
    description:
      - All nodes of the builder, the one for builds without a platform first. Others are taken off it.
      - Required if O(state=present).
      - Two nodes cannot have the same endpoint, name or platform. Of two nodes with one platform buildx always takes
        the first, so they would share no load.
    type: list
    elements: dict
    suboptions:
      endpoint:
        description:
          - Where the daemon is, such as V(tcp://builder.example.com:1234), V(unix:///run/buildkit/buildkitd.sock),
            V(ssh://user@builder.example.com), V(docker-container://buildkitd) or
            V(kube-pod://buildkitd-0?namespace=build).
        type: str
        required: true
      name:
        description: The name of the node. By default the name of the builder and the number of the node, from 0.
        type: str
      platforms:
        description:
          - The platforms that are built on this node, such as V(linux/arm64). An empty list lets buildx ask the daemon.
          - Without it they stay as they are.
        type: list
        elements: str
      cacert:
        description: As O(cacert), for this node.
        type: str
      cert:
        description: As O(cert), for this node.
        type: str
      key:
        description: As O(key), for this node.
        type: str
      servername:
        description: As O(servername), for this node.
        type: str
  cacert:
    description:
      - The file with the CA certificates that the daemons' certificates are verified with, as an absolute path.
      - This and the three options below are for all nodes with C(tcp) endpoints. They are required for those that are
        not on this machine.
    type: str
  cert:
    description: The file with the client's certificate, as an absolute path.
    type: str
  key:
    description: The file with the client's key, as an absolute path.
    type: str
  servername:
    description: The name that the daemon's certificate is checked for, where it is not that of the endpoint.
    type: str
  default:
    description:
      - Whether C(docker buildx build) uses this builder when none is named, whichever Docker engine is in use. Without
        it this stays as it is.
      - C(docker build) ignores it, and takes E(BUILDX_BUILDER).
    type: bool
  default_load:
    description:
      - Whether results are always loaded into the Docker engine, as with C(--load). Without it this stays as it is.
      - It needs docker-buildx 0.14 or newer, because an older one refuses the whole builder for it.
    type: bool
  buildx_version:
    description:
      - The version of the oldest docker-buildx that uses the builder, such as V(0.29.1). Only O(default_load=true)
        needs to know it.
      - Without it the docker-buildx is asked that is installed for all users.
    type: str
  user:
    description:
      - The user whose builder it is. Everything is read and written with that user's rights, and E(BUILDX_CONFIG) and
        E(DOCKER_CONFIG) are not looked at.
      - Another user than the one who runs this needs root (C(become)).
    type: str
  config_dir:
    description:
      - The directory in which buildx keeps its builders, as an absolute path.
      - By default E(BUILDX_CONFIG), or C(buildx) in E(DOCKER_CONFIG), or C(.docker/buildx) in the user's home.
    type: str
  lock_timeout:
    description: Seconds to wait for a buildx that is at work in the same directory.
    type: float
    default: 60
seealso:
  - plugin: buildfarm.buildkit.buildx_nodes
    plugin_type: filter
  - plugin: buildfarm.buildkit.buildkit_pick
    plugin_type: filter
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Make a builder of two machines for alice
  buildfarm.buildkit.buildx_builder:
    name: buildkit
    nodes:
      - endpoint: tcp://build-1.example.com:1234
        platforms: [linux/amd64]
      - endpoint: tcp://build-2.example.com:1234
        platforms: [linux/arm64]
    cacert: /etc/buildkit/client/buildkit/ca.pem
    cert: /etc/buildkit/client/buildkit/cert.pem
    key: /etc/buildkit/client/buildkit/key.pem
    default: true
    user: alice
  become: true

- name: Remove the builders of machines that are no more
  buildfarm.buildkit.buildx_builder:
    name: buildkit-*
    state: absent
    keep: [buildkit-build-1.example.com, buildkit-build-2.example.com]
    cacert: /etc/buildkit/client/buildkit/ca.pem
    user: alice
  become: true

- name: Remove it
  buildfarm.buildkit.buildx_builder:
    name: buildkit
    state: absent
    user: alice
  become: true
"""

RETURN = r"""
file:
  description: The file of the builder.
  returned: success, for one builder, where there is such a user
  type: str
  sample: /home/alice/.docker/buildx/instances/buildkit
reasons:
  description: Why something changed or would change, in words.
  returned: success
  type: list
  elements: str
  sample: [node buildkit1 is new]
builder:
  description: The builder as it is then. V(null) if there is none.
  returned: success, for one builder
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: always
    driver:
      description: Its driver.
      type: str
      returned: always
    nodes:
      description: Its nodes, each with C(name), C(endpoint), C(platforms) and C(driver_options).
      type: list
      elements: dict
      returned: always
  sample:
    name: buildkit
    driver: remote
    nodes:
      - name: buildkit0
        endpoint: tcp://build-1.example.com:1234
        platforms: [linux/amd64]
        driver_options:
          cacert: /etc/buildkit/client/buildkit/ca.pem
is_default:
  description: Whether it is the one that C(docker buildx use) has chosen, for one Docker engine or for all.
  returned: success, for one builder
  type: bool
removed:
  description: The builders that were, or in check mode would be, removed.
  returned: success, where O(name) stands for several
  type: list
  elements: str
  sample: [buildkit-build-3.example.com]
"""

import os
import re
import subprocess
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils import _files
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import buildx, buildx_store, users
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_TLS = {name: {"type": "str", "no_log": False} for name in ("cacert", "cert", "key", "servername")}
# Where the docker command looks for plugins of all users.
_PLUGINS = tuple(
    f"{prefix}/{part}/docker/cli-plugins/docker-buildx"
    for prefix in ("/usr/local", "/usr")
    for part in ("lib", "libexec")
)


def _buildx_version() -> t.Tuple[t.Optional[str], str]:
    """The version of the docker-buildx that all users have, and where that is."""
    for path in _PLUGINS:
        if os.access(path, os.X_OK):
            try:
                shown = subprocess.run([path, "version"], capture_output=True, text=True, check=False, timeout=60)
            except (OSError, subprocess.TimeoutExpired):
                return None, path
            match = re.search(r"\sv?(\d+\.\d+\.\d+)", shown.stdout)
            return (match.group(1) if match else None), path
    return None, "no docker-buildx is installed for all users"


def _single(name: str) -> str:
    """A name as it would be without the ending that stands for several."""
    return name[:-1] + "x" if name.endswith("-*") else name


def _read_wish(params: t.Mapping[str, t.Any]) -> t.Optional[buildx.Wish]:
    """What is asked for, checked; None where the builder shall be absent. Raises ClientError."""
    buildx.check_name(_single(params["name"]) if params["state"] == "absent" else params["name"])
    if params["state"] == "absent":
        return None
    if params["default_load"]:
        version = params["buildx_version"]
        buildx.check_default_load(*((version, "buildx_version") if version else _buildx_version()))
    shared = {name: params[name] for name in _TLS}
    return buildx.wish(params["name"], params["nodes"] or [], shared, params["default_load"])


def _refuse_unusable(
    wished: buildx.Wish, docker_directory: str, *, existing: t.Optional[bytes], check_mode: bool
) -> None:
    """Refuse what buildx would refuse on this machine. Raises ClientError."""
    if existing is None and any(
        buildx_store.is_docker_context(docker_directory, name) for name in (wished.name, wished.name.lower())
    ):
        raise ClientError(
            f"The builder cannot be named {wished.name}: Docker has a context of that name in {docker_directory}, "
            "which buildx shows as a builder. Choose another name."
        )
    unreadable = [] if check_mode else [why for why in map(users.why_not_readable, wished.files) if why]
    if unreadable:
        raise ClientError(
            f"The builder {wished.name} could not connect, since this user cannot read its files: "
            f"{'; '.join(unreadable)}. Install them first, readable for this user; nothing was changed."
        )


def _apply(
    store: buildx_store.BuildxStore,
    wished: t.Optional[buildx.Wish],
    module: AnsibleModule,
    docker_directory: str,
    *,
    dry_run: bool,
) -> t.Dict[str, t.Any]:
    """Compare, write what differs, and return the module's result. The caller holds the lock."""
    params, name = module.params, module.params["name"].lower()
    data, current = store.read_instance(name), store.read_current()
    path, cacert = store.instance(name), params["cacert"]
    if wished is None and data is not None and cacert and cacert not in buildx.certificates_of(data, path):
        return {"changed": False, "reasons": [], "file": path, "builder": None, "is_default": False}
    stored = None if data is None else buildx.parse(data, store.instance(name))
    if wished is not None:
        _refuse_unusable(wished, docker_directory, existing=data, check_mode=module.check_mode)
        after: t.Optional[buildx.Stored] = buildx.merge(stored, wished)
        reasons = buildx.reasons(stored, t.cast(buildx.Stored, after))
        wanted_current = buildx.make_current(current, name, default=params["default"])
        traces: t.List[str] = []
    else:
        after = None
        reasons = ["it shall be absent"] if stored is not None else []
        wanted_current = buildx.make_current(current, name, default=False)
        traces = store.traces_of(name, stored["Name"] if stored else params["name"])
        if traces and not reasons:
            reasons.append("something is left of it")
    if wanted_current != current:
        reasons.append("it becomes the default" if params["default"] and wished else "it is the default no more")
    if reasons:
        store.check_writable()
    if reasons and not dry_run:
        if after is None:
            store.remove(name, traces)
        elif after != stored:
            store.write_instance(name, after)
        if wanted_current != current:
            store.write_current(wanted_current)
    return {
        "changed": bool(reasons),
        "reasons": reasons,
        "file": store.instance(name),
        "builder": None if after is None else buildx.describe(after),
        "is_default": str(wanted_current.get("Name") or "").lower() == name,
        "diff": {"before": _shown(stored, current, name), "after": _shown(after, wanted_current, name)},
    }


def _remove_several(
    store: buildx_store.BuildxStore, params: t.Mapping[str, t.Any], *, dry_run: bool
) -> t.Dict[str, t.Any]:
    """Remove the builders that the name stands for, and return the module's result. The caller holds the lock."""
    kept = {name.lower() for name in params["keep"]}
    removed, current = [], store.read_current()
    for name in store.names(params["name"][:-1].lower()):
        path, data = store.instance(name), store.read_instance(name) or b""
        if name in kept or not params["cacert"] or buildx.certificates_of(data, path) != {params["cacert"]}:
            continue
        stored = buildx.parse(data, path)
        removed.append(name)
        wanted_current = buildx.make_current(current, name, default=False)
        store.check_writable()
        if not dry_run:
            store.remove(name, store.traces_of(name, stored["Name"]))
            if wanted_current != current:
                store.write_current(wanted_current)
        current = wanted_current
    reasons = [f"{name} is not wanted any more" for name in removed]
    diff = {"before": {"builders": removed}, "after": {"builders": []}}
    return {"changed": bool(removed), "reasons": reasons, "removed": removed, "diff": diff}


def _shown(stored: t.Optional[buildx.Stored], current: t.Mapping[str, t.Any], name: str) -> t.Dict[str, t.Any]:
    builder = {} if stored is None else buildx.describe(stored)
    return {**builder, "default": str(current.get("Name") or "").lower() == name}


def _run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do what the options say, as the user they name. Raises ClientError, OSError and LockTimeoutError."""
    params = module.params
    wished = _read_wish(params)
    if wished is None and not users.is_known(params["user"] or ""):
        return {"changed": False, "reasons": [], "removed": [], "builder": None, "is_default": False}
    entry = users.entry_of(params["user"] or "")
    environment = {} if params["user"] else os.environ
    path = params["config_dir"] or buildx_store.default_path(entry.pw_dir, environment)
    if not os.path.isabs(path):
        raise ClientError(f"The directory of buildx is {path}, which is no absolute path. Write the whole path.")
    store, docker_directory = buildx_store.BuildxStore(path), buildx_store.docker_config(entry.pw_dir, environment)
    with users.acting_as(entry):
        # First without a trace, so that whatever is refused leaves none, and nor does a run that changes nothing.
        for dry_run in (True, False):
            with store.locked(timeout=params["lock_timeout"], read_only=dry_run):
                if wished is None and params["name"].endswith("-*"):
                    result = _remove_several(store, params, dry_run=dry_run)
                else:
                    result = _apply(store, wished, module, docker_directory, dry_run=dry_run)
            if module.check_mode or not result["changed"]:
                break
    return result


def main() -> None:
    """Makes the builder what is wished for, and exits with what that was."""
    node = {
        "endpoint": {"type": "str", "required": True},
        "name": {"type": "str"},
        "platforms": {"type": "list", "elements": "str"},
        **_TLS,
    }
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "keep": {"type": "list", "elements": "str", "default": []},
            "nodes": {"type": "list", "elements": "dict", "options": node},
            **_TLS,
            "default": {"type": "bool"},
            "default_load": {"type": "bool"},
            "buildx_version": {"type": "str"},
            "user": {"type": "str"},
            "config_dir": {"type": "str"},
            "lock_timeout": {"type": "float", "default": 60},
        },
        required_if=[("state", "present", ["nodes"])],
        supports_check_mode=True,
    )
    verb = "Removing" if module.params["state"] == "absent" else "Setting up"
    doing = f"{verb} the builder {module.params['name']} failed"
    try:
        result = _run(module)
    except (ClientError, _files.LockTimeoutError) as error:
        module.fail_json(msg=f"{doing}. {error}")
    except OSError as error:
        module.fail_json(msg=f"{doing}: {users.said(error)} What was not yet written is as it was.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
