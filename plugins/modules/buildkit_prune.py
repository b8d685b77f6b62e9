#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_prune
short_description: Drop from the cache of BuildKit daemons what is not in use
version_added: 1.1.0
description:
  - Drops records from the cache of one daemon or a fleet, and tells how many bytes of which type went. Without a limit
    and without filters everything goes that may go.
  - It may run while builds run. What a build holds stays.
  - BuildKit collects garbage only after builds. An idle daemon never drops what has become too old, which is why people
    prune from a timer.
  - Speaks gRPC itself. It needs no buildctl and no Docker.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
  - buildfarm.buildkit._connection
  - buildfarm.buildkit._fleet
attributes:
  check_mode:
    support: full
    details:
      - Says what would go, computed from the records of the cache. RV(daemons[].prediction) says how certain that is.
  diff_mode:
    support: none
    details: The records that go are counted, not listed.
  idempotent:
    support: full
    details: Unless builds in between made something that may go.
options:
  all:
    description:
      - Also drop records of the types V(internal) and V(frontend), and those whose data others share, such as images of
        containerd.
    type: bool
    default: false
  filters:
    description:
      - Only drop records that match one of these, such as C(type==exec.cachemount) or C(type!=regular).
      - The fields are C(id), C(type), C(mutable), C(immutable), C(shared) and C(private). The comparisons are C(==),
        C(!=) and C(~=), the last with a regular expression. C(mutable), C(immutable), C(shared) and C(private) stand
        alone. A comma means 'and'.
      - Types are V(regular), V(source.local), V(source.git.checkout), V(exec.cachemount), V(frontend) and V(internal).
      - What daemons know in a list of records but pass over when they prune (C(description), C(parents), C(inuse)) is
        refused, because nothing would match.
    type: list
    elements: str
    default: []
  keep_duration:
    description:
      - Keep what was used in this last time. A number of seconds, or a number with a unit such as V(90m), V(48h) or
        V(7d).
    type: str
  keep_storage:
    description:
      - Leave so much in the cache. What was used least recently and least often goes first, and the pruning ends once
        no more than this is left.
      - A number of bytes, or a number with a unit such as V(500MB) and V(10GB) (powers of 1000), or V(10GiB) (powers of
        1024).
      - Beside O(max_used_space) or O(min_free_space) it is what those leave alone.
    type: str
    aliases: [reserved_space]
  max_used_space:
    description:
      - Prune until the cache uses no more than this. Written as O(keep_storage).
      - Needs BuildKit 0.17. An older daemon would pass over it and drop everything, and so is left alone, with a
        failure of the kind V(version_too_old).
      - V(0) is refused here and with O(min_free_space), since daemons take it for no limit, and everything would go.
    type: str
  min_free_space:
    description:
      - Prune until so much is free on the disk of the daemon. If it is already, nothing goes. Written as
        O(keep_storage).
      - Needs BuildKit 0.17, as O(max_used_space).
    type: str
  timeout:
    description:
      - Seconds that the pruning may take for each daemon. It is ended then, and what went until then is returned with
        the failure.
    type: float
    default: 600
seealso:
  - module: buildfarm.buildkit.buildkit_info
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Leave the 50 GB of each builder's cache that are used most
  buildfarm.buildkit.buildkit_prune:
    daemons: "{{ groups['buildkit_daemons'] | buildfarm.buildkit.endpoints(hostvars) }}"
    keep_storage: 50GB
    ca_path: pki/clients/ops/ca.pem
    client_cert: pki/clients/ops/cert.pem
    client_key: pki/clients/ops/key.pem
  delegate_to: localhost
  run_once: true

- name: Drop what has not been used for a week
  buildfarm.buildkit.buildkit_prune:
    address: unix:///run/buildkit/buildkitd.sock
    keep_duration: 7d
  become: true

- name: Make room, but leave 20 GB in any case
  buildfarm.buildkit.buildkit_prune:
    address: unix:///run/buildkit/buildkitd.sock
    min_free_space: 100GB
    keep_storage: 20GB
  become: true

- name: Drop the cache mounts and the uploaded contexts
  buildfarm.buildkit.buildkit_prune:
    address: unix:///run/buildkit/buildkitd.sock
    filters:
      - type==exec.cachemount
      - type==source.local
  become: true

- name: Say what would go if all of it went
  buildfarm.buildkit.buildkit_prune:
    address: unix:///run/buildkit/buildkitd.sock
    all: true
  become: true
  check_mode: true
  register: cache
"""

RETURN = r"""
bytes:
  description: What went from all daemons together. In check mode, what would go.
  returned: when the options make sense, on failure too
  type: int
  sample: 23404544
records:
  description: How many records that were.
  returned: when the options make sense, on failure too
  type: int
  sample: 7
daemons:
  description: What went from each daemon, in the order in which they were given. A list even for one.
  returned: when the options make sense, on failure too
  type: list
  elements: dict
  contains:
    address:
      description: As it was given.
      type: str
    changed:
      description: Whether anything went.
      type: bool
    bytes:
      description: What went.
      type: int
    records:
      description: How many records that were.
      type: int
    by_type:
      description:
        - RV(ignore:bytes) and RV(ignore:records) of each type of which something went. V(other) is what was made after
          the pruning began, or of a type that this collection does not know.
      type: dict
    cache_bytes_before:
      description: The size of the cache before. V(null) if that is not known.
      type: int
    cache_bytes_after:
      description: The same without what went. V(null) if that is not known.
      type: int
    prediction:
      description:
        - How certain it is in check mode what would go. V(null) outside.
        - V(exact), unless builds run meanwhile.
        - V(estimate) with O(keep_storage) or O(max_used_space). The sum is right to the last record, but which records
          go first is for the daemon to decide.
        - V(at_most) with O(min_free_space), because a daemon does not tell how much is free on its disk.
      type: str
    failure:
      description: Why it was not pruned, or not to the end. V(null) if it was.
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
      changed: true
      bytes: 15376384
      records: 2
      by_type:
        regular:
          bytes: 15376384
          records: 2
      cache_bytes_before: 23404544
      cache_bytes_after: 8028160
      prediction: null
      failure: null
summary:
  description: One line for each daemon.
  returned: when the options make sense, on failure too
  type: list
  elements: str
  sample:
    - "tcp://build-1.example.com:1234: freed 15.4 MB in 2 records (15.4 MB regular), 8.0 MB left"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import options as connection
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import prune
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    GRPCLIB,
    PROTOBUF,
    MissingLibraryError,
    require,
)

# What only this module has, as DOCUMENTATION describes it.
_OPTIONS = {
    "all": {"type": "bool", "default": False},
    "filters": {"type": "list", "elements": "str", "default": []},
    "keep_duration": {"type": "str"},
    "keep_storage": {"type": "str", "aliases": ["reserved_space"]},
    "max_used_space": {"type": "str"},
    "min_free_space": {"type": "str"},
    "timeout": {"type": "float", "default": 600},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**connection.module_arguments(_OPTIONS), supports_check_mode=True)
    options = module.params
    try:
        connection.check_python()
        require(GRPCLIB, PROTOBUF, CRYPTOGRAPHY)
        wish = prune.read_wish(options)
        reports = prune.prune(connection.read_daemons(options), wish, check_mode=module.check_mode)
    except (InputError, MissingLibraryError) as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": any(report.total.records for report in reports),
        "bytes": sum(report.total.bytes for report in reports),
        "records": sum(report.total.records for report in reports),
        "daemons": [report.as_dict() for report in reports],
        "summary": [report.summary for report in reports],
    }
    failed = [report.summary for report in reports if report.failure]
    if failed:
        of = f"{len(failed)} of {len(reports)} daemons not pruned:\n" if len(reports) > 1 else ""
        module.fail_json(msg=of + "\n".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
