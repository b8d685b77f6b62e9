#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_certificate_info
short_description: What a certificate says, when it ends, and whether key and CA fit, of a file or a server
version_added: 1.1.0
description:
  - Reads the certificates of a PEM file, of PEM text, or the one that a server shows, and tells what they say.
    It changes nothing.
  - A served certificate is read without trusting it, and without a client certificate. A server that wants one, as
    buildkitd does, shows its own before it refuses.
  - With O(fail_below) the task fails when a certificate ends too soon, and returns the facts all the same. That makes
    it an expiry gate for monitoring and CI.
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
requirements:
  - Python 3.8 or newer
  - cryptography >= 3.4
options:
  path:
    description:
      - A file with one certificate or more in PEM format, where the module runs. What else is in it is passed over.
      - Exactly one of O(path), O(content), O(address) and O(host) must be given.
    type: path
  content:
    description: Certificates in PEM format, as text.
    type: str
  address:
    description:
      - Where a certificate is served, as C(tcp://HOST:PORT), with an IPv6 address in brackets. Without a port it is
        1234.
      - The proxy variables of the environment never apply.
    type: str
  host:
    description: The host name or IP address of a server, in place of O(address).
    type: str
  port:
    description: The TCP port on O(host).
    type: int
    default: 1234
  server_name:
    description:
      - The name to ask the server for (SNI), where it has certificates for several names. buildkitd has one.
      - The default is the host if that is a name. The certificate is not checked against it.
    type: str
  connect_timeout:
    description:
      - Seconds that the connection may take for each IP address of the host, and the TLS handshake after that.
    type: float
    default: 10
  key_path:
    description:
      - A private key in PEM format, where the module runs, to compare with the certificates. Nothing of it is returned.
    type: path
  key_passphrase:
    description: Decrypts the key in O(key_path), if it is encrypted.
    type: str
  ca_path:
    description:
      - A file with CA certificates in PEM format, such as the C(ca.pem) of a daemon or client, to verify the
        certificates by.
      - Every certificate in it is trusted by itself, as buildkitd and its clients do. Other certificates beside the one
        in question can complete the chain.
      - Signatures by RSA (PKCS #1 v1.5), ECDSA and Ed25519 are known.
    type: path
  fail_below:
    description:
      - Fail when less than this is left of any of the certificates, as a number and one of the units V(m), V(h), V(d)
        and V(w), such as V(14d).
    type: str
seealso:
  - module: buildfarm.buildkit.buildkit_pki
  - module: buildfarm.buildkit.buildkit_verify
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Fail when a builder's certificate has less than two weeks left
  buildfarm.buildkit.buildkit_certificate_info:
    address: tcp://build-1.example.com:1234
    fail_below: 14d
  delegate_to: localhost

- name: Look at what a client was given
  buildfarm.buildkit.buildkit_certificate_info:
    path: /home/alice/.config/buildkit/cert.pem
    key_path: /home/alice/.config/buildkit/key.pem
    ca_path: /home/alice/.config/buildkit/ca.pem
  register: alice

- name: Refuse a client certificate that does not fit its key or its CA
  ansible.builtin.assert:
    that:
      - alice.certificates[0].key_matches
      - alice.certificates[0].verified
    fail_msg: "{{ alice.certificates[0].problem }}"

- name: List the CAs that a daemon admits clients by
  buildfarm.buildkit.buildkit_certificate_info:
    path: /etc/buildkit/tls/ca.pem
"""

RETURN = r"""
source:
  description: What was looked at. The path, the address, or V(content).
  returned: success
  type: str
  sample: tcp://build-1.example.com:1234
days_left:
  description: Whole days until the first of the certificates ends. Negative if it has ended.
  returned: success
  type: int
  sample: 62
certificates:
  description: The certificates in their order, at least one. A server gives one, its own.
  returned: success, and when O(fail_below) fails
  type: list
  elements: dict
  contains:
    subject:
      description: The subject, as RFC 4514 writes names.
      type: str
    common_name:
      description: The first common name of the subject. V(null) if it has none.
      type: str
    sans:
      description: The subject alternative names, sorted.
      type: list
      elements: str
    issuer:
      description: The issuer, as RFC 4514 writes names.
      type: str
    serial:
      description: The serial number in hex.
      type: str
    fingerprint:
      description: SHA-256 of its DER form, in hex.
      type: str
    key_type:
      description: The type of its key, such as V(ecdsa-p256), V(rsa-3072) or V(Ed25519).
      type: str
    usage:
      description: What it may be used for in TLS, V(client), V(server), both (also when it says nothing), or neither.
      type: list
      elements: str
    is_ca:
      description: Whether it is a CA.
      type: bool
    self_signed:
      description: Whether its own key signed it.
      type: bool
    not_before:
      description: When it begins to be valid, in UTC.
      type: str
    not_after:
      description: When it ends, in UTC.
      type: str
    days_left:
      description: Whole days until then. Negative if it has ended.
      type: int
    key_matches:
      description: Whether it is for the key in O(key_path). V(null) without O(key_path).
      type: bool
    signed_by:
      description:
        - The RV(certificates[].subject) and RV(certificates[].fingerprint) of the CA that signed it, as far as
          O(ca_path) and the other certificates have it.
        - V(null) if they do not, and without O(ca_path).
      type: dict
    verified:
      description:
        - Whether it is valid now and a valid CA in O(ca_path) vouches for it, or it stands in O(ca_path) itself.
        - Names and usage play no part. V(null) without O(ca_path).
      type: bool
    problem:
      description: What keeps it from being verified, in words. V(null) if nothing does, and without O(ca_path).
      type: str
  sample:
    - subject: CN=build-1
      common_name: build-1
      sans: ["DNS:build-1.example.com", "IP:192.0.2.11"]
      issuer: CN=BuildKit CA
      serial: 2f6a3c0d91e84b57a0cdd9e1f20b3a4455667788
      fingerprint: 8a84fcbd92b8e7002238798aa362ca767f127a37cdf54209cf40f41d4f65c2cc
      key_type: ecdsa-p256
      usage: [server]
      is_ca: false
      self_signed: false
      not_before: "2026-10-25T08:30:00Z"
      not_after: "2027-01-23T09:30:00Z"
      days_left: 62
      key_matches: null
      signed_by: null
      verified: null
      problem: null
"""

import typing as t
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    MissingLibraryError,
    require,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.inspection import holds_key, inspect
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.served import DEFAULT_PORT

SOURCES = ("path", "content", "address", "host")


def argument_spec() -> dict[str, t.Any]:
    """The options, as DOCUMENTATION describes them."""
    return {
        "path": {"type": "path"},
        "content": {"type": "str"},
        "address": {"type": "str"},
        "host": {"type": "str"},
        "port": {"type": "int", "default": DEFAULT_PORT},
        "server_name": {"type": "str"},
        "connect_timeout": {"type": "float", "default": 10.0},
        "key_path": {"type": "path", "no_log": False},
        "key_passphrase": {"type": "str", "no_log": True},
        "ca_path": {"type": "path"},
        "fail_below": {"type": "str"},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(),
        mutually_exclusive=[SOURCES],
        required_one_of=[SOURCES],
        supports_check_mode=True,
    )
    if holds_key(module.params["content"]):
        # A key in place of a certificate; the echo of the options must not show it.
        module.no_log_values.add(module.params["content"])
    try:
        require(CRYPTOGRAPHY)
        result = inspect(module.params, now=datetime.now(timezone.utc))
    except (PkiError, MissingLibraryError) as exc:
        module.fail_json(msg=str(exc))
    failure = result.pop("failure")
    if failure is not None:
        module.fail_json(msg=failure, **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
