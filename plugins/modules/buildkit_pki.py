#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_pki
short_description: Keep a CA and the certificates of a whole fleet of BuildKit daemons and clients
version_added: 1.0.0
description:
  - Keeps one directory with a certificate authority (CA) and the certificates that it issued to daemons and clients.
    One task serves a whole fleet.
  - Runs where that directory is, which is normally the controller.
  - A certificate is re-issued within a window before its end (O(renew_before)), and when its names, usage, key or
    issuer are not what they should be. Every change comes with its reasons, in check mode too.
  - The lists O(daemons) and O(clients) are wishes, not inventories. Who is not listed is left alone.
  - A CA that cannot be read, decrypted or matched to its key is an error. It is never replaced.
  - What goes into a certificate comes from these options alone. Of a certificate signing request (CSR) only the public
    key is used.
  - A run that is killed leaves every key beside its own certificate, and the next run carries on.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
    details: Certificates that would be issued are V(null) in the result, and so are their serial numbers.
  diff_mode:
    support: full
    details: Shows facts of the certificates, never their PEM text, and nothing of keys.
  idempotent:
    support: full
requirements:
  - cryptography >= 3.4
options:
  path:
    description:
      - The PKI directory. It is made if it is missing, for its owner alone, with a C(.gitignore) against commits.
      - A directory that others can read is refused, and so is one with other contents.
      - A relative path starts where the module runs, so a playbook had better give an absolute one.
    type: path
    required: true
  ca:
    description: The certificate authority.
    type: dict
    default: {}
    suboptions:
      common_name:
        description: The name of the CA. An existing CA keeps the name it has.
        type: str
        default: BuildKit CA
      valid_for:
        description: How long its certificate is valid, as a number and one of the units V(m), V(h), V(d) and V(w).
        type: str
        default: 3650d
      renew_before:
        description:
          - How long before its end the certificate of the CA is renewed.
          - It is renewed with the same key, so that everything it issued stays valid.
          - The default is a third of O(ca.valid_for).
        type: str
      key_type:
        description: The type of its key. An existing CA keeps the key it has.
        type: str
        choices: [ecdsa-p256, ecdsa-p384, rsa-3072]
        default: ecdsa-p256
      passphrase:
        description:
          - Encrypts the key of the CA. It must have at least 8 characters.
          - Take it from a lookup of a file or of the environment on the controller, not from the playbook.
        type: str
  daemons:
    description: The daemons that shall have a certificate, for server authentication only.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the daemon. It names its directory and the subject of its certificate.
        type: str
        required: true
      dns:
        description:
          - Host names that clients dial. C(*.) may stand before one.
          - O(daemons[].dns) and O(daemons[].ip) must not both be empty.
        type: list
        elements: str
        default: []
      ip:
        description: IP addresses that clients dial.
        type: list
        elements: str
        default: []
      csr:
        description:
          - A certificate signing request in PEM format, made on the host of the daemon with
            M(buildfarm.buildkit.buildkit_csr), so that the key stays there.
          - Without it the key is made here, unless the daemon already has a certificate for a key on its host,
            which is kept while it is good.
          - It may name no one but this daemon, by its name and the names it is given here.
        type: str
      trusts:
        description:
          - SHA-256 fingerprints of the CAs that the daemon trusts already, as M(buildfarm.buildkit.buildkit_csr)
            returns them.
          - If none of them belongs to the CA in O(path), the directory is lost or the wrong one, and the module
            refuses before it makes anything.
        type: list
        elements: str
        default: []
  clients:
    description: The clients that shall have a key and a certificate, for client authentication only.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the client. It names its directory and the subject of its certificate.
        type: str
        required: true
  shared_names:
    description:
      - Host names and IP addresses that several daemons may have, such as the name of a load balancer before them.
      - Every other name belongs to one daemon. Daemons that are not listed in this run count as long as their
        certificates are valid.
    type: list
    elements: str
    default: []
  valid_for:
    description:
      - How long the certificates of daemons and clients are valid, in the units of O(ca.valid_for).
      - None of them is valid for longer than its CA.
    type: str
    default: 90d
  renew_before:
    description:
      - How long before their end the certificates of daemons and clients are renewed.
      - The default is a third of O(valid_for).
    type: str
  key_type:
    description: The type of the keys that are made here for daemons and clients.
    type: str
    choices: [ecdsa-p256, ecdsa-p384, rsa-3072]
    default: ecdsa-p256
  lock_timeout:
    description: Seconds to wait for another run on the same directory.
    type: float
    default: 60
seealso:
  - module: buildfarm.buildkit.buildkit_csr
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Keep certificates for two builders and one client
  buildfarm.buildkit.buildkit_pki:
    path: "{{ inventory_dir }}/pki"
    ca:
      common_name: Example build farm CA
      passphrase: "{{ lookup('ansible.builtin.file', '/root/pki-passphrase') }}"
    daemons:
      - name: build-1
        dns: [build-1.example.com]
        ip: [192.0.2.11]
        csr: "{{ hostvars['build-1'].buildkit_request.csr }}"
        trusts: "{{ hostvars['build-1'].buildkit_request.trusts }}"
      - name: build-2
        dns: [build-2.example.com]
        csr: "{{ hostvars['build-2'].buildkit_request.csr }}"
    clients:
      - name: ci
  delegate_to: localhost
  register: buildkit_pki

- name: Renew certificates of 30 days when a week is left
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    valid_for: 30d
    renew_before: 1w
    clients:
      - name: alice@example.com
"""

RETURN = r"""
authorities:
  description: The CA, as a list of one. The items have the keys of RV(daemons).
  returned: success
  type: list
  elements: dict
  sample:
    - name: default
      changed: false
      reasons: []
      serial: 5b0c6f0e7a1d4c0f9a2be0b1d3c5f7a911223344
      not_after: "2036-11-18T09:30:00Z"
      path: /srv/pki/authorities/default
      certificate: "-----BEGIN CERTIFICATE-----\n..."
daemons:
  description: The daemons of this run, in the order of O(daemons).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    changed:
      description: Whether anything about it changed.
      type: bool
    reasons:
      description: Why, in words.
      type: list
      elements: str
    serial:
      description: Serial number of its certificate, in hex. V(null) in check mode if it would be issued.
      type: str
    not_after:
      description: When its certificate ends, in UTC. In check mode the end that a new one would have.
      type: str
    path:
      description: The directory with its files.
      type: str
    certificate:
      description: Its certificate in PEM format. V(null) in check mode if it would be issued.
      type: str
  sample:
    - name: build-1
      changed: true
      reasons: ["it expires in 12 days (renew_before 30d)", "SAN IP:192.0.2.11 added"]
      serial: 2f6a3c0d91e84b57a0cdd9e1f20b3a4455667788
      not_after: "2027-02-19T09:30:00Z"
      path: /srv/pki/daemons/build-1
      certificate: "-----BEGIN CERTIFICATE-----\n..."
clients:
  description: The clients of this run, in the order of O(clients). The items have the keys of RV(daemons).
  returned: success
  type: list
  elements: dict
  sample:
    - name: ci
      changed: false
      reasons: []
      serial: 61f2ab903c5d4e7f8091a2b3c4d5e6f700112233
      not_after: "2027-02-19T09:30:00Z"
      path: /srv/pki/clients/ci
      certificate: "-----BEGIN CERTIFICATE-----\n..."
trust_bundle:
  description:
    - The CA certificates that daemons and clients verify each other by, in PEM format.
    - V(null) in check mode if the CA would be made or renewed.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n..."
"""

import typing as t
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    MissingLibraryError,
    require,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._files import LockTimeoutError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.fleet import run
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import KEY_TYPES


def argument_spec() -> dict[str, t.Any]:
    """The options, as DOCUMENTATION describes them."""

    def key_type() -> dict[str, t.Any]:
        return {"type": "str", "choices": list(KEY_TYPES), "default": "ecdsa-p256", "no_log": False}

    def strings() -> dict[str, t.Any]:
        return {"type": "list", "elements": "str", "default": []}

    name = {"type": "str", "required": True}
    return {
        "path": {"type": "path", "required": True},
        "ca": {
            "type": "dict",
            "default": {},
            "apply_defaults": True,
            "options": {
                "common_name": {"type": "str", "default": "BuildKit CA"},
                "valid_for": {"type": "str", "default": "3650d"},
                "renew_before": {"type": "str"},
                "key_type": key_type(),
                "passphrase": {"type": "str", "no_log": True},
            },
        },
        "daemons": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": name,
                "dns": strings(),
                "ip": strings(),
                "csr": {"type": "str"},
                "trusts": strings(),
            },
        },
        "clients": {"type": "list", "elements": "dict", "default": [], "options": {"name": name}},
        "shared_names": strings(),
        "valid_for": {"type": "str", "default": "90d"},
        "renew_before": {"type": "str"},
        "key_type": key_type(),
        "lock_timeout": {"type": "float", "default": 60.0},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    path = module.params["path"]
    try:
        require(CRYPTOGRAPHY)
        result = run(module.params, now=datetime.now(timezone.utc), predict=module.check_mode)
    except (PkiError, LockTimeoutError, MissingLibraryError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(
            msg=f"Working on the PKI directory {path} failed: {exc}. Every key there still has its own certificate; "
            "put this right and run again, and the run carries on."
        )
    for warning in result.pop("warnings"):
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
