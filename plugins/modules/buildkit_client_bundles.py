#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one file per client with all that it needs to build."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_client_bundles
short_description: Make one file per client with its certificate and the settings of its tools
version_added: 1.1.0
description:
  - Makes an archive C(<pool>-<client>.tar.gz) for each client, from its directory in the PKI. Whoever unpacks it can
    build, with the tools that are there already.
  - In it are C(ca.pem), C(cert.pem) and C(key.pem); C(env.sh), which finds its own place; a wrapper of C(buildctl) that
    adds the certificate for these builders alone; scripts that make and remove the builders of docker buildx; snippets
    for GitHub Actions, GitLab CI, Jenkins, Earthly and docker compose; C(verify.sh); and a README with the names of
    these builders.
  - Equal input gives equal bytes. A bundle that is as it should be is not written again, and every change has a reason.
  - Bundles hold private keys. They are written with mode 0600, into a directory that only its owner can enter, and can
    be encrypted.
  - Run it where the PKI directory is. It needs no network.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The diff shows facts of the bundle, never keys.
  idempotent:
    support: full
requirements:
  - cryptography (Python library) 3.4 or newer
  - pyrage (Python library) 1.2 or newer, for encrypted bundles alone
options:
  path:
    description:
      - The directory of the bundles. It is made with mode 0700 when it is not there, and refused when others than its
        owner can enter it.
    type: path
    required: true
  pki_path:
    description: The PKI directory of M(buildfarm.buildkit.buildkit_pki). Needed for O(state=present).
    type: path
  pool:
    description:
      - The name of the pool of builders. It names the bundles, and the builder that docker buildx gets.
      - Lower-case letters, digits and C(. _ -), with a letter first; not V(default).
    type: str
    default: buildkit
  clients:
    description: Those who are to have a bundle. The bundles of others are left alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The client's name in the PKI.
        type: str
        required: true
      group:
        description:
          - Its group. It is told of the builders that admit this group. Where none does, it gets no bundle, and the
            module warns of it.
        type: str
        default: default
      own_key:
        description:
          - Whether the client keeps its key itself, as one that sent a CSR does. Its bundle is made without C(key.pem).
          - A client without a key in the PKI is refused without this.
        type: bool
        default: false
      recipients:
        description:
          - Encrypt the bundle for these, in the format of age, into C(<pool>-<client>.tar.gz.age).
          - Each is a public key of age (V(age1...)) or the public part of an SSH key of type ed25519 or rsa.
        type: list
        elements: str
        default: []
      passphrase:
        description:
          - Encrypt the bundle with this passphrase instead, of 12 characters or more.
          - Prefer O(clients[].recipients), which keep no secret on the controller.
        type: str
  daemons:
    description: The builders, in the order in which clients are told of them. Needed for O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the builder, which becomes the name of its node in docker buildx.
        type: str
        required: true
      address:
        description: Where clients dial it, as C(tcp://HOST:PORT).
        type: str
        required: true
      platforms:
        description:
          - The platforms that docker buildx is to use it for, such as V(linux/arm64). Without any, docker buildx asks
            the builder.
          - The pool's builder in docker buildx has one node for each platform, as the filter
            P(buildfarm.buildkit.buildx_builders#filter) says. Where that leaves one out, each is also made as a builder
            of its own, C(<pool>-<name>).
        type: list
        elements: str
        default: []
      admits:
        description: The groups of clients that may build on it. Without it all may.
        type: list
        elements: str
      server_name:
        description: The name in its certificate, where that is not the host in O(daemons[].address).
        type: str
      version:
        description:
          - Its release of BuildKit. With one before 0.17, the scripts set C(GRPC_ENFORCE_ALPN_ENABLED=false) for
            buildctl.
        type: str
  state:
    description: V(absent) removes the bundles of O(clients), for instance when one was revoked.
    type: str
    choices: [present, absent]
    default: present
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkit_pki
"""

EXAMPLES = r"""
- name: Make one file for each client
  buildfarm.buildkit.buildkit_client_bundles:
    path: "{{ inventory_dir }}/pki/bundles"
    pki_path: "{{ inventory_dir }}/pki"
    clients:
      - name: alice
      - name: bob
        recipients: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN bob@example.com"]
    daemons:
      - name: build-1
        address: tcp://198.51.100.11:1234
        platforms: [linux/amd64]
      - name: build-2
        address: tcp://198.51.100.12:1234
        platforms: [linux/arm64]
  delegate_to: localhost
  run_once: true

- name: Take the bundle of a client away who was revoked
  buildfarm.buildkit.buildkit_client_bundles:
    path: "{{ inventory_dir }}/pki/bundles"
    clients:
      - name: mallory
    state: absent
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
bundles:
  description: The bundle of each client of O(clients) that some builder admits; empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    client:
      description: The client's name.
      type: str
    path:
      description: The file.
      type: str
    changed:
      description: Whether it was, or in check mode would be, made or made again.
      type: bool
    reasons:
      description: Why; empty when it was not.
      type: list
      elements: str
    encrypted:
      description: Whether it is encrypted.
      type: bool
    key:
      description: Whether the client's private key is in it.
      type: bool
    serial:
      description: The serial number of the client's certificate, in hex.
      type: str
    not_after:
      description: Until when the certificate, and with it the bundle, is good.
      type: str
    days_left:
      description: Whole days until then.
      type: int
  sample:
    - client: alice
      path: /srv/buildfarm/pki/bundles/buildkit-alice.tar.gz
      changed: true
      reasons: [there is none yet]
      encrypted: false
      key: true
      serial: 6a1f0c52b78e4d0f9a3b5c7d8e9fa0b1c2d3e4f5
      not_after: "2027-02-19T09:30:00Z"
      days_left: 89
removed:
  description: The files that were, or in check mode would be, removed; empty with O(state=present).
  returned: success
  type: list
  elements: str
  sample: [/srv/buildfarm/pki/bundles/buildkit-mallory.tar.gz]
"""

import typing as t
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.bundles import run
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    PYRAGE,
    MissingLibraryError,
    require,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._files import LockTimeoutError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError


def argument_spec() -> dict[str, t.Any]:
    """The options, as DOCUMENTATION describes them."""
    client = {
        "name": {"type": "str", "required": True},
        "group": {"type": "str", "default": "default"},
        "own_key": {"type": "bool", "default": False, "no_log": False},
        "recipients": {"type": "list", "elements": "str", "default": []},
        "passphrase": {"type": "str", "no_log": True},
    }
    daemon = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "platforms": {"type": "list", "elements": "str", "default": []},
        "admits": {"type": "list", "elements": "str"},
        "server_name": {"type": "str"},
        "version": {"type": "str"},
    }
    return {
        "path": {"type": "path", "required": True},
        "pki_path": {"type": "path"},
        "pool": {"type": "str", "default": "buildkit"},
        "clients": {"type": "list", "elements": "dict", "required": True, "options": client},
        "daemons": {"type": "list", "elements": "dict", "default": [], "options": daemon},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ("pki_path",))],
        supports_check_mode=True,
    )
    for client in module.params["clients"]:
        # Whoever gives a secret key in place of the public one must not find it in the output.
        module.no_log_values.update(text for text in client["recipients"] if text.upper().startswith("AGE-SECRET-KEY"))
    sealed = any(client["recipients"] or client["passphrase"] for client in module.params["clients"])
    try:
        require(CRYPTOGRAPHY, *([PYRAGE] if sealed and module.params["state"] == "present" else []))
        result = run(module.params, now=datetime.now(timezone.utc), predict=module.check_mode)
    except (ClientError, PkiError, LockTimeoutError, MissingLibraryError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(
            msg=f"Working on the bundles in {module.params['path']} failed: {exc}. Each is whole, old or new; put this "
            "right and run again."
        )
    for warning in result.pop("warnings"):
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
