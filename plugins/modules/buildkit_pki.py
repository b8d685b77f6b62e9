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
  - Clients can be in groups, each with a CA of its own (O(clients[].group)), of which a daemon admits some or all
    (O(daemons[].admits)). They can be pinned instead (O(trust)), each by its own certificate, so that one can be
    revoked.
  - A CA gets a new certificate for its key by itself, and a new key in three phases (O(rollover)).
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
      max_age:
        description:
          - Renew the certificate of the CA, with the same key, also when it is older than this.
          - With V(1d) it is renewed now, and not again by a second run on the same day.
        type: str
        version_added: 1.1.0
      passphrase:
        description:
          - Encrypts the keys of all CAs. It must have at least 8 characters.
          - A key that is not encrypted yet is encrypted with it. One that is encrypted with another passphrase needs
            that in O(ca.previous_passphrase).
          - Take it from a lookup of a file or of the environment on the controller, not from the playbook.
        type: str
      previous_passphrase:
        description:
          - The passphrase that keys of CAs are encrypted with until now. They are encrypted with O(ca.passphrase)
            instead, and nothing else about them changes.
          - It may stay here afterwards.
        type: str
        version_added: 1.1.0
      import_certificate:
        description:
          - The certificate of a CA, in PEM format, to take over as the CA V(default), such as one that mkcert, openssl
            or cfssl made. The file is where the module runs.
          - It is taken over once. When the directory has this CA already, nothing changes, and both files may be gone.
            When it has another CA of that name, the module refuses.
          - Its key must be RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521.
        type: path
        version_added: 1.1.0
      import_key:
        description: The key for O(ca.import_certificate), in PEM format.
        type: path
        version_added: 1.1.0
      import_passphrase:
        description: The passphrase of O(ca.import_key), if it has one. In O(path) it gets that of O(ca.passphrase).
        type: str
        version_added: 1.1.0
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
          - SHA-256 fingerprints of the certificates that the daemon trusts already, as
            M(buildfarm.buildkit.buildkit_csr) returns them.
          - If none of them is known in O(path), the directory is lost or the wrong one, and the module
            refuses before it makes anything.
          - They also tell which daemons have what a rollover hands out. Without them a daemon counts as not having it.
        type: list
        elements: str
        default: []
      admits:
        description:
          - The groups of clients that may build on this daemon. Without it all groups may.
          - A group that is left out is cut off as soon as the daemon restarts with its new RV(daemons).
        type: list
        elements: str
        version_added: 1.1.0
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
      group:
        description: The group of the client, which is also the name of the CA that signs its certificate.
        type: str
        default: default
        version_added: 1.1.0
      csr:
        description:
          - A certificate signing request in PEM format, so that the key stays with the client.
          - It may name no one but this client. It cannot be combined with O(trust=pinned).
        type: str
        version_added: 1.1.0
  trust:
    description:
      - How daemons know the clients that they admit.
      - V(ca), by the CA of their group. A certificate that it signed is accepted until it ends.
      - V(pinned), each by its own certificate, which is self-signed. Revoking one cuts off exactly that one, when the
        daemons restart with their new RV(daemons). Every new client changes all daemons.
      - A change from one to the other needs new certificates for all clients, see O(accept_missing).
    type: str
    choices: [ca, pinned]
    default: ca
    version_added: 1.1.0
  daemon_ca:
    description:
      - The name of the CA that signs daemons, which may be one that signs no clients.
      - When it changes, run with all clients and without daemons first. Their C(ca.pem) then has the new CA beside the
        old one and can be handed out.
    type: str
    default: default
    version_added: 1.1.0
  rollover:
    description:
      - Gives a CA a new key in three phases, which are kept in the directory. Without this option a rollover stays in
        the phase it has reached.
    type: dict
    version_added: 1.1.0
    suboptions:
      phase:
        description:
          - The phase to go to. A phase that is reached already changes nothing. Phases cannot be left out, and there
            is no way back.
          - V(distribute) makes the new CA. All bundles hold the old and the new one. The old one goes on signing.
          - V(issue) lets the new CA sign, and all daemons and clients of this run get new certificates. It is refused
            while a client was not given the bundle with the new CA, or a daemon does not trust it.
          - V(retire) takes the old CA out of all bundles. Its key is kept. It is refused while a valid certificate of
            the old CA is in the directory, or while a client was not given its new one.
        type: str
        choices: [distribute, issue, retire]
      authority:
        description: The CA to give a new key.
        type: str
        default: default
      given:
        description:
          - The clients that were given what the phase before O(rollover.phase) hands out. They are the clients that
            have the new C(ca.pem) for V(issue), and those that have their new certificates for V(retire).
          - Without O(rollover.phase), those that were given what the phase that is reached hands out. They are
            recorded, so that they need not be named again.
          - Beside V(issue) and V(retire) that are reached already it is not recorded, since it may repeat an earlier
            run.
        type: list
        elements: str
        default: []
      given_in:
        description:
          - The phase that handed out what O(rollover.given) is about, to leave no doubt. If the rollover is not in
            that phase, nothing is recorded.
          - The default is the phase before O(rollover.phase), and without that the one that is reached.
        type: str
        choices: [distribute, issue]
      accept_missing:
        description: Cut off the clients and daemons for which V(issue) or V(retire) would be refused. V(retire) is
          refused all the same while a valid certificate of the old CA is in the directory.
        type: bool
        default: false
  revoke:
    description:
      - Clients to revoke, by name with all their certificates, or single certificates of clients by serial number.
      - They are marked in the register, and the directory of a client moves to C(revoked/clients/). A client that is
        also listed in O(clients) is refused by name; by serial number it gets a new certificate.
      - The serial number of the certificate in force of a client that is not listed revokes what is in its directory
        with it.
      - With O(trust=pinned) the certificates leave the bundles of all daemons. With O(trust=ca) daemons accept them
        until they end, and a warning says so.
    type: list
    elements: str
    default: []
    version_added: 1.1.0
  accept_missing:
    description:
      - Cut off clients that hold valid certificates, where another O(trust) or O(daemon_ca) does that. Without it such
        a change is refused and the clients are named.
    type: bool
    default: false
    version_added: 1.1.0
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

- name: Let the release group build on one of two builders, and the developers on both
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    daemons:
      - name: build-1
        dns: [build-1.example.com]
      - name: build-2
        dns: [build-2.example.com]
        admits: [default]
    clients:
      - name: alice
      - name: ci
        group: release

- name: Begin to give the CA a new key
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    clients:
      - name: alice
    rollover:
      phase: distribute

- name: Let the new key sign, now that alice has the new ca.pem
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    clients:
      - name: alice
    rollover:
      phase: issue
      given: [alice]

- name: Revoke a client
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    trust: pinned
    clients:
      - name: alice
    revoke: [mallory]

- name: Take over the CA of mkcert
  buildfarm.buildkit.buildkit_pki:
    path: /srv/pki
    ca:
      import_certificate: /root/.local/share/mkcert/rootCA.pem
      import_key: /root/.local/share/mkcert/rootCA-key.pem

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
  description:
    - All CAs, V(default) first. The items have the keys of RV(daemons) but C(ca), and some more.
  returned: success
  type: list
  elements: dict
  contains:
    phase:
      description: The phase of its rollover afterwards, V(distribute), V(issue) or V(none).
      type: str
    next:
      description: The CA to come, in the phase V(distribute). V(null) in check mode if it would be made.
      type: dict
      contains:
        serial:
          description: Serial number of its certificate, in hex.
          type: str
        fingerprint:
          description: SHA-256 of its certificate, in hex.
          type: str
        not_after:
          description: When its certificate ends, in UTC.
          type: str
    previous:
      description: The CA before, in the phase V(issue).
      type: dict
      contains:
        serial:
          description: Serial number of its certificate, in hex.
          type: str
        fingerprint:
          description: SHA-256 of its certificate, in hex.
          type: str
        not_after:
          description: When its certificate ends, in UTC.
          type: str
    not_given:
      description: The clients that were not yet given what the phase hands out.
      type: list
      elements: str
  sample:
    - name: default
      changed: false
      reasons: []
      serial: 5b0c6f0e7a1d4c0f9a2be0b1d3c5f7a911223344
      not_after: "2036-11-18T09:30:00Z"
      path: /srv/pki/authorities/default
      certificate: "-----BEGIN CERTIFICATE-----\n..."
      phase: none
      next: null
      previous: null
      not_given: []
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
    ca:
      description:
        - What to install as its C(ca.pem), in PEM format. For a daemon what it knows the clients by that it admits,
          for a client what it knows daemons by.
        - V(null) in check mode if it would hold a certificate that is not made yet.
      type: str
  sample:
    - name: build-1
      changed: true
      reasons: ["it expires in 12 days (renew_before 30d)", "SAN IP:192.0.2.11 added"]
      serial: 2f6a3c0d91e84b57a0cdd9e1f20b3a4455667788
      not_after: "2027-02-19T09:30:00Z"
      path: /srv/pki/daemons/build-1
      certificate: "-----BEGIN CERTIFICATE-----\n..."
      ca: "-----BEGIN CERTIFICATE-----\n..."
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
      ca: "-----BEGIN CERTIFICATE-----\n..."
trust_bundle:
  description:
    - The CA certificates that clients verify daemons by, in PEM format.
    - V(null) in check mode if one of them would be made or renewed.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n..."
expires:
  description: When each certificate ends that is in the directory and valid, the soonest first.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: One of V(ca), V(daemon) and V(client).
      type: str
    name:
      description: Whose it is.
      type: str
    group:
      description: The group of a client. Otherwise the name of the CA.
      type: str
    serial:
      description: Its serial number, in hex.
      type: str
    not_after:
      description: When it ends, in UTC.
      type: str
    days_left:
      description: Whole days until then.
      type: int
  sample:
    - kind: client
      name: ci
      group: release
      serial: 61f2ab903c5d4e7f8091a2b3c4d5e6f700112233
      not_after: "2027-02-19T09:30:00Z"
      days_left: 90
revoked:
  description: The certificates that were ever revoked.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
    serial:
      description: The serial number, in hex.
      type: str
    revoked:
      description: When it was revoked, in UTC.
      type: str
    not_after:
      description: When it ends, in UTC.
      type: str
  sample:
    - name: mallory
      serial: 0aa1ab903c5d4e7f8091a2b3c4d5e6f700112233
      revoked: "2026-11-21T09:30:00Z"
      not_after: "2027-02-19T09:30:00Z"
due:
  description:
    - Whether there was anything to write, in check mode whether there is. It can be true where nothing is changed, to
      tidy up after a run that was killed, or to complete a register of an earlier release.
    - After a run in check mode in which it is false, the same run without check mode can be left out.
  returned: success
  type: bool
  sample: false
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
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import PkiError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.fleet import run
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.keys import KEY_TYPES
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    BY_CA,
    DEFAULT,
    PHASES,
    TRUST_MODES,
)


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
                "max_age": {"type": "str"},
                "passphrase": {"type": "str", "no_log": True},
                "previous_passphrase": {"type": "str", "no_log": True},
                "import_certificate": {"type": "path"},
                "import_key": {"type": "path", "no_log": False},
                "import_passphrase": {"type": "str", "no_log": True},
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
                "admits": {"type": "list", "elements": "str"},
            },
        },
        "clients": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": name, "group": {"type": "str", "default": DEFAULT}, "csr": {"type": "str"}},
        },
        "trust": {"type": "str", "choices": list(TRUST_MODES), "default": BY_CA},
        "daemon_ca": {"type": "str", "default": DEFAULT},
        "rollover": {
            "type": "dict",
            "options": {
                "phase": {"type": "str", "choices": list(PHASES)},
                "authority": {"type": "str", "default": DEFAULT},
                "given": strings(),
                "given_in": {"type": "str", "choices": list(PHASES[:-1])},
                "accept_missing": {"type": "bool", "default": False},
            },
        },
        "revoke": strings(),
        "accept_missing": {"type": "bool", "default": False},
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
