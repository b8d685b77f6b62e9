#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_csr
short_description: Make a daemon's private key and CSR on its host, and install its certificate there
version_added: 1.0.0
description:
  - Runs on the host of a BuildKit daemon, so that the private key is made there and never leaves it.
  - Without O(certificate) it returns a certificate signing request (CSR) for the key that shall be used, and makes that
    key if it is needed. A new key waits in C(pending/) and the installed one stays in use.
  - With O(certificate) and O(ca) it installs them together with the key they belong to. The three files change in one
    rename, so whatever kills a run, buildkitd never finds a key beside a foreign certificate.
  - C(ca.pem), C(cert.pem) and C(key.pem) in O(path) are links to the version in use. The version before is kept, and
    the link C(previous) leads to it.
  - Files that were put there by other means are taken over if key and certificate belong together.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
    details: No CSR is returned if it would be for a new key.
  diff_mode:
    support: full
    details: Shows facts of the certificates, never their PEM text, and nothing of keys.
  idempotent:
    support: full
    details: The signature in RV(csr) differs in each run. The public key in it does not.
requirements:
  - Python 3.8 or newer
  - cryptography >= 3.4
options:
  path:
    description: The TLS directory of the daemon.
    type: path
    default: /etc/buildkit/tls
  name:
    description:
      - The name of the daemon, as in O(buildfarm.buildkit.buildkit_pki#module:daemons[].name).
      - It is the subject of the CSR.
    type: str
    required: true
  key_type:
    description: The type of the key. Another one that is installed is replaced.
    type: str
    choices: [ecdsa-p256, ecdsa-p384, rsa-3072]
    default: ecdsa-p256
  renew_before:
    description:
      - How long before the end of the installed certificate a new key is made, as a number and one of the units V(m),
        V(h), V(d) and V(w).
      - Give it the value that M(buildfarm.buildkit.buildkit_pki) has, and every certificate gets a key of its own.
        Without it a key is used again until its certificate has expired.
    type: str
  certificate:
    description:
      - The certificate to install, in PEM format, as M(buildfarm.buildkit.buildkit_pki) returns it.
      - It must be for the pending or the installed key, for a server, and valid.
    type: str
  ca:
    description:
      - The CA certificates that clients of the daemon must have theirs from, in PEM format, or the self-signed
        certificates of its clients, which it then accepts one by one (pinned).
      - It is RV(buildfarm.buildkit.buildkit_pki#module:daemons[].ca). The CA of the daemon's own certificate need not
        be in it.
      - Required with O(certificate), because without it buildkitd accepts everyone.
    type: str
  lock_timeout:
    description: Seconds to wait for another run on the same directory.
    type: float
    default: 60
seealso:
  - module: buildfarm.buildkit.buildkit_pki
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Make the key of the daemon and ask for a certificate
  buildfarm.buildkit.buildkit_csr:
    name: build-1
    renew_before: 30d
  register: buildkit_request

- name: Issue the certificate on the controller
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    daemons:
      - name: build-1
        dns: [build-1.example.com]
        ip: [192.0.2.11]
        csr: "{{ buildkit_request.csr }}"
        trusts: "{{ buildkit_request.trusts }}"
  delegate_to: localhost
  become: false
  register: buildkit_pki

- name: Install the certificate
  buildfarm.buildkit.buildkit_csr:
    name: build-1
    certificate: "{{ buildkit_pki.daemons[0].certificate }}"
    ca: "{{ buildkit_pki.daemons[0].ca }}"
"""

RETURN = r"""
csr:
  description:
    - The CSR in PEM format.
    - V(null) if O(certificate) is given, and in check mode if it would be for a new key.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE REQUEST-----\n..."
reasons:
  description: Why something changed or would change, in words.
  returned: success
  type: list
  elements: str
  sample: ["certificate changed", "trust bundle changed"]
trusts:
  description: SHA-256 fingerprints of all certificates in the installed C(ca.pem), in hex.
  returned: success
  type: list
  elements: str
  sample: [8a84fcbd92b8e7002238798aa362ca767f127a37cdf54209cf40f41d4f65c2cc]
not_after:
  description: When the installed certificate ends, in UTC. V(null) if there is none.
  returned: success
  type: str
  sample: "2027-02-19T09:30:00Z"
settled:
  description:
    - What is installed, as O(certificate) and O(ca). To install just that would change nothing, so it can be left out.
    - V(null) if there is anything to do here, be it only to tidy up after a run that was killed.
  returned: success, without O(certificate)
  type: dict
  contains:
    certificate:
      description: The installed certificate in PEM format.
      type: str
    ca:
      description: The installed C(ca.pem) in PEM format.
      type: str
  sample:
    certificate: "-----BEGIN CERTIFICATE-----\n..."
    ca: "-----BEGIN CERTIFICATE-----\n..."
  version_added: 1.1.0
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
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import tlsdir
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import KEY_TYPES


def argument_spec() -> dict[str, t.Any]:
    """The options, as DOCUMENTATION describes them."""
    return {
        "path": {"type": "path", "default": "/etc/buildkit/tls"},
        "name": {"type": "str", "required": True},
        "key_type": {"type": "str", "choices": list(KEY_TYPES), "default": "ecdsa-p256", "no_log": False},
        "renew_before": {"type": "str"},
        "certificate": {"type": "str"},
        "ca": {"type": "str"},
        "lock_timeout": {"type": "float", "default": 60.0},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    wants_request = options["certificate"] is None and options["ca"] is None
    try:
        require(CRYPTOGRAPHY)
        act = tlsdir.request if wants_request else tlsdir.install
        result = act(options, now=datetime.now(timezone.utc), predict=module.check_mode)
    except (PkiError, LockTimeoutError, MissingLibraryError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(
            msg=f"Working on the TLS directory {options['path']} failed: {exc}. What was installed is still whole; "
            "put this right and run again."
        )
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
