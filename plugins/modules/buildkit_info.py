#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_info
short_description: What BuildKit daemons say of themselves, such as version, workers, cache, builds and clock
version_added: 1.1.0
description:
  - Asks one daemon or a fleet for facts, for inventories, documentation and monitoring. It changes nothing, runs no
    build, and leaves no trace in the history.
  - Speaks gRPC itself. It needs no buildctl and no Docker.
  - A daemon that cannot be reached is no failure of the task, unless O(fail_on_unreachable) says so. Its item says
    RV(daemons[].reachable=false), and RV(daemons[].failure) says why.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
  - buildfarm.buildkit._connection
  - buildfarm.buildkit._fleet
attributes:
  check_mode:
    support: full
    details: Runs in check mode as it runs outside, because it changes nothing.
  diff_mode:
    support: none
    details: There is nothing to differ.
  idempotent:
    support: full
options:
  gather:
    description:
      - What to ask for beside the version and the certificate. What is not asked for is V(null).
      - V(disk_usage) may take a while, because a daemon measures what it has not measured yet.
    type: list
    elements: str
    choices: [workers, disk_usage, builds, history]
    default: [workers, disk_usage, builds, history]
  timeout:
    description: Seconds that the disk usage and the history may take.
    type: float
    default: 60
  fail_on_unreachable:
    description: >-
      Whether a daemon that cannot be reached is a failure. The facts of the others are returned all the same.
    type: bool
    default: false
seealso:
  - module: buildfarm.buildkit.buildkit_verify
  - module: buildfarm.buildkit.buildkit_drain
  - module: buildfarm.buildkit.buildkit_prune
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Ask all builders for their facts
  buildfarm.buildkit.buildkit_info:
    daemons: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.endpoints(hostvars) }}"
    ca_path: pki/clients/ci/ca.pem
    client_cert: pki/clients/ci/cert.pem
    client_key: pki/clients/ci/key.pem
  delegate_to: localhost
  run_once: true
  register: builders

- name: Refuse to go on with a builder whose clock is wrong
  ansible.builtin.assert:
    that: item.clock is none or item.clock.skew_seconds | abs < 5
    fail_msg: "The clock of {{ item.address }} is {{ item.clock.skew_seconds }} s ahead"
  loop: "{{ builders.daemons | selectattr('reachable') }}"
  loop_control:
    label: "{{ item.address }}"

- name: Ask the daemon of this host which builds run, and for nothing else
  buildfarm.buildkit.buildkit_info:
    address: unix:///run/buildkit/buildkitd.sock
    gather: [builds]
  become: true

- name: Fail in a check of the monitoring when a builder is down
  buildfarm.buildkit.buildkit_info:
    address: tcp://build-1.example.com:1234
    ca_path: pki/clients/monitoring/ca.pem
    client_cert: pki/clients/monitoring/cert.pem
    client_key: pki/clients/monitoring/key.pem
    gather: []
    fail_on_unreachable: true
  delegate_to: localhost
"""

RETURN = r"""
daemons:
  description: What each daemon says, in the order in which they were given. A list even for one.
  returned: when the options make sense, on failure too
  type: list
  elements: dict
  contains:
    address:
      description: As it was given.
      type: str
    reachable:
      description: Whether it answered as BuildKit.
      type: bool
    version:
      description: Its version, such as V(v0.25.2). Builds of distributions may say V(v0.0.0+unknown).
      type: str
    package:
      description: The Go package that it is a build of.
      type: str
    revision:
      description: The commit that it is a build of.
      type: str
    workers:
      description: Its workers. Only the first is ever used.
      type: list
      elements: dict
      contains:
        id:
          description: Its name.
          type: str
        platforms:
          description: The platforms it builds for, its own first.
          type: list
          elements: str
        labels:
          description: What it says of itself, such as its snapshotter and its network.
          type: dict
        gc_policy:
          description: The rules of the garbage collection that are in effect. Sizes in bytes, ages in seconds.
          type: list
          elements: dict
    disk_usage:
      description: The cache, as C(buildctl du) counts it. What is not in use can be pruned.
      type: dict
      contains:
        count:
          description: Its records.
          type: int
        bytes:
          description: Their size.
          type: int
        in_use_count:
          description: Those that a running build holds.
          type: int
        in_use_bytes:
          description: Their size.
          type: int
        reclaimable_count:
          description: The others.
          type: int
        reclaimable_bytes:
          description: Their size.
          type: int
        by_type:
          description:
            - The same for each type of record that there is. V(regular), V(source.local), V(source.git.checkout),
              V(exec.cachemount), V(frontend), V(internal), and V(other) for types that this collection does not know.
          type: dict
    active_builds:
      description: Builds that run. Those of this collection's own proofs are not counted.
      type: dict
      contains:
        count:
          description: How many.
          type: int
        oldest_seconds:
          description: For how long the oldest has been running. V(null) if none runs.
          type: float
        builds:
          description:
            - RV(ignore:ref), RV(ignore:frontend), RV(ignore:started) by the daemon's clock, and RV(ignore:age_seconds)
              of each, the oldest first.
            - The frontend is V(null) for LLB, and where the client drives the frontend itself, as buildctl and buildx
              do.
          type: list
          elements: dict
    history:
      description: The builds that the daemon remembers, by default the last 50 or those of two days.
      type: dict
      contains:
        count:
          description: How many have ended.
          type: int
        succeeded:
          description: How many of them went well.
          type: int
        failed:
          description: How many failed.
          type: int
        cancelled:
          description: How many their client gave up.
          type: int
        pinned:
          description: How many stay in the history whatever their age.
          type: int
        median_seconds:
          description: How long half of those that went well took at most.
          type: float
        longest_seconds:
          description: How long the longest of those that went well took.
          type: float
        first:
          description: When the first began, UTC, by the daemon's clock.
          type: str
        last:
          description: When the last ended, UTC, by the daemon's clock.
          type: str
    certificate:
      description: The certificate of the daemon. V(null) without TLS.
      type: dict
      contains:
        subject:
          description: As RFC 4514 writes names.
          type: str
        issuer:
          description: As RFC 4514 writes names.
          type: str
        sans:
          description: Its subject alternative names.
          type: list
          elements: str
        not_before:
          description: Start of its validity, UTC.
          type: str
        not_after:
          description: End of its validity, UTC.
          type: str
        days_left:
          description: Whole days until it expires.
          type: int
        fingerprint:
          description: SHA-256 of its DER form, in hexadecimal.
          type: str
    clock:
      description:
        - The daemon's clock beside that of the machine where the module runs. The daemon writes its time into the
          answer to a question for its builds, and that is compared with the middle of the time between question and
          answer.
        - V(null) if neither builds nor history were asked for, or if the daemon did not tell.
      type: dict
      contains:
        time:
          description: The time on the daemon, UTC.
          type: str
        skew_seconds:
          description: By how much it is ahead. Negative if it is behind.
          type: float
        uncertainty_seconds:
          description: By how much that may be wrong at most, which is half of the time that the answer took.
          type: float
    failure:
      description: Why it could not be reached, or, if it could, why something is missing. V(null) if nothing is.
      type: dict
      contains:
        kind:
          description: The cause, as in RV(buildfarm.buildkit.buildkit_verify#module:daemons[].failure.kind).
          type: str
        message:
          description: What happened.
          type: str
        remedy:
          description: What to try.
          type: str
  sample:
    - address: tcp://build-1.example.com:1234
      reachable: true
      version: v0.25.2
      package: github.com/moby/buildkit
      revision: 41cfe4fd6dbcaa2aab7ef2ab4e9f5d9d4cf7cf7d
      workers:
        - id: 3dtpnpjbtdjk7dm3i8eba1qc3
          platforms: [linux/amd64, linux/386]
          labels:
            org.mobyproject.buildkit.worker.executor: oci
            org.mobyproject.buildkit.worker.snapshotter: overlayfs
          gc_policy:
            - all: true
              filters: []
              keep_duration: 0
              reserved_space: 10000000000
              max_used_space: 100000000000
              min_free_space: 51000000000
      disk_usage:
        count: 7
        bytes: 23404544
        in_use_count: 0
        in_use_bytes: 0
        reclaimable_count: 7
        reclaimable_bytes: 23404544
        by_type:
          regular:
            count: 3
            bytes: 17809408
            in_use_count: 0
            in_use_bytes: 0
            reclaimable_count: 3
            reclaimable_bytes: 17809408
      active_builds:
        count: 1
        oldest_seconds: 4.5
        builds:
          - ref: hi3srs8ueyhcivigk3svtz0qx
            frontend: null
            started: "2026-11-21T09:26:21Z"
            age_seconds: 4.5
      history:
        count: 12
        succeeded: 10
        failed: 1
        cancelled: 1
        pinned: 0
        median_seconds: 31.2
        longest_seconds: 180.4
        first: "2026-11-20T17:02:51Z"
        last: "2026-11-21T09:20:03Z"
      certificate:
        subject: CN=build-1.example.com
        issuer: CN=BuildKit CA
        sans: ["DNS:build-1.example.com"]
        not_before: "2026-11-21T02:50:00Z"
        not_after: "2027-02-19T02:50:00Z"
        days_left: 89
        fingerprint: 4be0c1a6e3d15ad1a7f9d4d3e3d16be2aef8c0f6f5c7be54a3f0b4dbb7e0a911
      clock:
        time: "2026-11-21T09:26:25Z"
        skew_seconds: 0.002
        uncertainty_seconds: 0.001
      failure: null
summary:
  description: One line for each daemon.
  returned: when the options make sense, on failure too
  type: list
  elements: str
  sample:
    - >-
      tcp://build-1.example.com:1234: BuildKit v0.25.2, 23.4 MB of cache in 7 records, 23.4 MB reclaimable, 1 build
      runs, for 4 s, certificate for 89 more days
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import info
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import options as connection
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    GRPCLIB,
    PROTOBUF,
    MissingLibraryError,
    require,
)

_FACTS = list(info.FACTS)

# What only this module has, as DOCUMENTATION describes it.
_OPTIONS = {
    "gather": {"type": "list", "elements": "str", "choices": _FACTS, "default": _FACTS},
    "timeout": {"type": "float", "default": 60},
    "fail_on_unreachable": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**connection.module_arguments(_OPTIONS), supports_check_mode=True)
    options = module.params
    wish = info.Wish(
        connect_timeout=options["connect_timeout"], timeout=options["timeout"], facts=tuple(options["gather"])
    )
    try:
        connection.check_python()
        require(GRPCLIB, PROTOBUF, CRYPTOGRAPHY)
        reports = info.collect(connection.read_daemons(options), wish)
    except (InputError, MissingLibraryError) as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": False,
        "daemons": [report.as_dict() for report in reports],
        "summary": [report.summary for report in reports],
    }
    lost = [report.summary for report in reports if not report.reachable]
    if lost and options["fail_on_unreachable"]:
        of = f"{len(lost)} of {len(reports)} daemons not reachable:\n" if len(reports) > 1 else ""
        module.fail_json(msg=of + "\n".join(lost), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
