#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs BuildKit from a pinned archive, one directory per version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_release
short_description: Install a BuildKit release from an archive with a pinned checksum
version_added: 1.0.0
description:
  - Fetches or reads a release archive, verifies its SHA-256, and unpacks its programs into a directory per version,
    which appears complete or not at all. A link says which version is in use, so that an upgrade and a rollback are
    the same task.
  - An archive whose checksum differs, or that holds no C(bin/buildkitd), is refused before anything is installed.
  - A running daemon is not touched; it goes on with the files it opened.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  version:
    description: The version, without a leading C(v). Required unless O(state=absent).
    type: str
  src:
    description:
      - The archive, as an V(http://) or V(https://) address or a path on the host. Required unless O(state=absent).
      - A path must be that of the file itself, and not of a link to it.
      - It is not needed, and not looked at, while the version is installed from an archive with this checksum.
    type: str
  sha256:
    description: The archive's SHA-256 in hexadecimal. Required unless O(state=absent).
    type: str
  install_dir:
    description: Where the versions are installed.
    type: path
    default: /usr/local/lib/buildkit
  bin_dir:
    description: Where C(buildctl), C(buildkitd) and C(buildkit-runc) are linked.
    type: path
    default: /usr/local/bin
  keep:
    description:
      - How many versions to keep after an installation, this one among them. Older ones are removed, by when they were
        installed. V(0) keeps all.
      - The version that was in use before, those that processes run from, and those of O(protected) are always kept.
    type: int
    default: 0
    version_added: 1.1.0
  protected:
    description: Versions that are not removed.
    type: list
    elements: str
    default: []
    version_added: 1.1.0
  timeout:
    description: Seconds that the server of the archive may stay silent.
    type: int
    default: 60
  state:
    description: V(absent) removes every version, and the links.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_host_info
"""

EXAMPLES = r"""
- name: Install BuildKit
  buildfarm.buildkit.buildkitd_release:
    version: 0.31.0
    src: https://mirror.example.com/buildkit/v0.31.0/buildkit-v0.31.0.linux-amd64.tar.gz
    sha256: a13e961a4e4e1afbece1ddfd6818ff726fe4577a99b2763e677456016827f4b7
"""

RETURN = r"""
reasons:
  description: What was, or in check mode would be, done.
  returned: always
  type: list
  elements: str
  sample: ["version 0.31.0 is not installed", "version 0.30.0 was in use"]
bundled_runc:
  description: Whether the installed version brings its own runc. Null when check mode cannot tell.
  returned: always
  type: bool
  sample: true
bundled_cni:
  description: Whether a local archive that is to be installed has the CNI plugins of build steps. Null when that was
    not looked at.
  returned: always
  type: bool
  sample: true
  version_added: 1.1.0
previous_version:
  description: The version that was in use before. Empty when none was.
  returned: always
  type: str
  sample: 0.30.0
"""

import http.client
import os
import shutil
import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import network, release
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError


def _reasons(params: t.Mapping[str, t.Any], previous: str) -> t.List[str]:
    version = params["version"]
    installed = release.installed_sha256(params["install_dir"], version)
    reasons = []
    if not installed:
        reasons.append(f"version {version} is not installed")
    elif installed != params["sha256"].lower():
        reasons.append(f"version {version} was installed from another archive ({installed[:12]})")
    if previous != version:
        reasons.append(f"version {previous} was in use" if previous else "no version was in use")
    if installed and release.missing_links(params["install_dir"], params["bin_dir"], version):
        reasons.append(f"programs are not linked in {params['bin_dir']}")
    return reasons


def _fetch(module: AnsibleModule, destination: str) -> None:
    """Downloads the archive. Raises HostError when the server does not deliver it."""
    url = module.params["src"]
    response, info = fetch_url(module, url, timeout=module.params["timeout"])
    if info["status"] != 200:
        raise _not_delivered(url, info["msg"])
    try:
        with open(destination, "wb") as archive:
            shutil.copyfileobj(response, archive)
    except (OSError, http.client.HTTPException) as error:
        raise _not_delivered(url, str(error)) from error


def _not_delivered(url: str, why: str) -> HostError:
    """What to say; a password in the address is no part of it."""
    parts = urllib.parse.urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return HostError(
        f"Downloading {shown} failed: {why.replace(url, shown)}. Is it the right version and mirror? For hosts without "
        f"internet set buildkitd_mirror to a server that they reach, or buildkitd_archive to a local archive."
    )


def _is_url(src: str) -> bool:
    return src.startswith(("http://", "https://"))


def _is_installed(params: t.Mapping[str, t.Any]) -> bool:
    wanted: str = params["sha256"].lower()
    return release.installed_sha256(params["install_dir"], params["version"]) == wanted


def _check(params: t.Mapping[str, t.Any]) -> t.Optional[bool]:
    """Refuses in check mode what the real run would refuse, as far as that can be told without a download.

    :return: whether the archive has CNI plugins; None when it was not looked at
    """
    if not _is_installed(params) and not _is_url(params["src"]) and os.path.lexists(params["src"]):
        with release.opened_archive(params["src"]) as archive:
            names = release.verify_archive(archive, params["src"], params["sha256"])
        return all(f"bin/buildkit-cni-{plugin}" in names for plugin in network.PLUGINS)
    return None


def _install(module: AnsibleModule) -> None:
    params = module.params
    if not _is_installed(params):
        path = params["src"]
        if _is_url(path):
            path = os.path.join(module.tmpdir, "buildkit-release.tar.gz")
            _fetch(module, path)
        with release.opened_archive(path) as archive:
            release.verify_archive(archive, path, params["sha256"])
            release.unpack(archive, params["sha256"], params["install_dir"], params["version"])
    release.switch(params["install_dir"], params["bin_dir"], params["version"])


def main() -> None:
    """Installs or removes, and exits with the reasons."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str"},
            "src": {"type": "str"},
            "sha256": {"type": "str"},
            "install_dir": {"type": "path", "default": "/usr/local/lib/buildkit"},
            "bin_dir": {"type": "path", "default": "/usr/local/bin"},
            "keep": {"type": "int", "default": 0},
            "protected": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("version", "src", "sha256"))],
        supports_check_mode=True,
    )
    params = module.params
    previous = release.current_version(params["install_dir"])
    present = params["state"] == "present"
    bundled_cni = None
    try:
        if present:
            release.check_version(params["version"])
            release.refuse_foreign_programs(params["install_dir"], params["bin_dir"])
            reasons = _reasons(params, previous)
            if module.check_mode:
                bundled_cni = _check(params)
            elif reasons:
                _install(module)
            if reasons:
                safe = [params["version"], previous, *params["protected"]]
                surplus = release.surplus(params["install_dir"], params["keep"], safe)
                reasons += [f"version {version} need not be kept" for version in surplus]
                for version in [] if module.check_mode else surplus:
                    shutil.rmtree(os.path.join(params["install_dir"], version))
        else:
            gone = release.remove(params["install_dir"], params["bin_dir"], dry_run=module.check_mode)
            reasons = [f"{path} is to be absent" for path in gone]
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(reasons),
        reasons=reasons,
        previous_version=previous,
        bundled_runc=release.has_runc(params["install_dir"], params["version"]) if present else None,
        bundled_cni=bundled_cni,
        diff={
            "before": f"version in use: {previous or 'none'}\n",
            "after": f"version in use: {params['version'] if present else 'none'}\n",
        },
    )


if __name__ == "__main__":
    main()
