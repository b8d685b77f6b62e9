#!/usr/bin/python
# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkit_verify
short_description: Prove that BuildKit daemons build, and that they refuse strangers
version_added: 1.0.0
description:
  - Connects to one daemon or a fleet as a client does, runs a smoke build through the very endpoint that clients use,
    and proves that strangers are refused. All daemons are proved at the same time.
  - Speaks gRPC itself. It needs no buildctl, no Docker, no registry and no internet.
  - Fails unless all that was asked for is proved, for every daemon. Each failure has a kind, which names the cause, and
    a remedy. One daemon's failure hides no other's.
  - A daemon that lets a stranger in gives away root on its host, and so is a failure (V(open_to_anyone)), even if it
    builds.
  - The smoke builds have constant content, no network and no entry in the build history. What the Dockerfile's step
    wrote is dropped from the cache again, so that some kilobytes stay there, the same however often they run.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
  - buildfarm.buildkit._connection
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
  daemons:
    description:
      - Daemons to prove at the same time, instead of O(address).
      - What an item leaves out is taken from the option of the same name of the module.
    type: list
    elements: dict
    suboptions:
      address:
        description: As O(address).
        type: str
        required: true
      ca_path:
        description: As O(ca_path).
        type: path
      client_cert:
        description: As O(client_cert).
        type: path
      client_key:
        description: As O(client_key).
        type: path
      tls_hostname:
        description: As O(tls_hostname).
        type: str
      platforms:
        description: As O(platforms), for this daemon.
        type: list
        elements: str
        version_added: 1.1.0
      gc_policy:
        description: As O(gc_policy), for this daemon. An empty list means no garbage collection.
        type: list
        elements: dict
        version_added: 1.1.0
        suboptions:
          all:
            description: As O(gc_policy[].all).
            type: bool
            default: false
          filters:
            description: As O(gc_policy[].filters).
            type: list
            elements: str
            default: []
          keep_duration:
            description: As O(gc_policy[].keep_duration).
            type: str
            default: "0"
          reserved_space:
            description: As O(gc_policy[].reserved_space).
            type: str
            default: "0"
          max_used_space:
            description: As O(gc_policy[].max_used_space).
            type: str
            default: "0"
          min_free_space:
            description: As O(gc_policy[].min_free_space).
            type: str
            default: "0"
  build_timeout:
    description: Seconds that each smoke build may take. It is cancelled then.
    type: float
    default: 60
  builds:
    description:
      - Which smoke builds to run, on the native platform of the daemon's worker.
      - V(exec) writes a tiny static program into an empty image and runs it; the line that it prints must come back.
        It also runs for each of O(platforms).
      - V(dockerfile) does the same with a Dockerfile, through the frontend C(dockerfile.v0).
      - V(cache) runs the same build again, which must come from the cache then. It was added in version 1.1.0.
    type: list
    elements: str
    choices: [exec, dockerfile, cache]
    default: [exec, dockerfile]
  platforms:
    description:
      - Platforms that must build, such as V(linux/arm64) and V(linux/arm/v7), natively or emulated. The build V(exec)
        runs for each of them, at the same time.
      - A platform that the daemon's worker does not offer is a failure (V(platform_missing)) before any build.
      - An empty list means the daemon's own platform.
    type: list
    elements: str
    default: []
    version_added: 1.1.0
  refusals:
    description:
      - Which strangers must be refused. They concern C(tcp://) alone, since a unix socket is guarded by its file mode.
      - V(no_certificate) comes with TLS, but without a client certificate.
      - V(foreign_ca) comes with a certificate of a CA that has the same name as the true one, but another key.
      - V(plaintext) comes without TLS. It is the only one that a daemon without TLS meets, and he gets in.
      - A connection that is closed counts as a refusal, because the good client got through in the same run.
    type: list
    elements: str
    choices: [no_certificate, foreign_ca, plaintext]
    default: [no_certificate, foreign_ca, plaintext]
  entitlements_refused:
    description:
      - Entitlements that the daemon must refuse. A build asks for each of them, and makes use of it.
      - V(network.host) is the host's network, and V(security.insecure) a step without its sandbox.
    type: list
    elements: str
    choices: [network.host, security.insecure]
    default: []
    version_added: 1.1.0
  min_version:
    description:
      - The oldest BuildKit that will do, such as V(0.17). Empty means any.
      - What distributions add after a V(+) does not count. A daemon that does not know its version (V(v0.0.0+unknown))
        fails with V(version_unknown).
    type: str
    default: ""
    version_added: 1.1.0
  gc_policy:
    description:
      - The garbage collection that must be in effect, rule by rule in their order. It is compared with what the
        daemon's worker says, because buildkitd ignores keys that its version does not know, without a word.
      - What a rule leaves out must not be set. Without this option nothing is compared.
      - Where the configuration has limits instead of rules, buildkitd makes rules of its own of them.
        RV(daemons[].workers) shows them, and they can be given here as they are shown.
      - Sizes are numbers of bytes, or read as buildkitd reads them in its configuration, where V(10GB) is 10 times
        1024 times 1024 times 1024 bytes. A percentage is refused, because it is of a disk that only the daemon knows.
    type: list
    elements: dict
    version_added: 1.1.0
    suboptions:
      all:
        description: Whether the rule also concerns internal, frontend and shared records.
        type: bool
        default: false
      filters:
        description: Which records the rule concerns, such as V(type==source.local). Their order does not count.
        type: list
        elements: str
        default: []
      keep_duration:
        description: For how long it leaves a record alone, in seconds or with a unit, such as V(48h).
        type: str
        default: "0"
      reserved_space:
        description: Size of the cache that it leaves alone. Called C(keepBytes) before BuildKit 0.17.
        type: str
        default: "0"
      max_used_space:
        description: Size that the cache may have. From BuildKit 0.17 on.
        type: str
        default: "0"
      min_free_space:
        description: Space of the disk that it keeps free. From BuildKit 0.17 on.
        type: str
        default: "0"
  certificate_days:
    description:
      - Days that the daemon's certificate must have left. With fewer it fails with V(certificate_expires_soon), even if
        it builds. V(0) means no limit.
    type: int
    default: 0
    version_added: 1.1.0
  concurrency:
    description:
      - How many daemons are proved at the same time. The others wait for a place.
      - A dead daemon keeps its place until O(connect_timeout) is over, and the others go on beside it.
      - More is of use where the daemons are far away. Each proof takes some 15 ms of one processor here, and a machine
        that is short of them meets O(connect_timeout) without need.
    type: int
    default: 20
    version_added: 1.1.0
seealso:
  - module: buildfarm.buildkit.buildkit_pki
author:
  - The buildfarm.buildkit authors (@buildfarm)
"""

EXAMPLES = r"""
- name: Prove a builder from the controller
  buildfarm.buildkit.buildkit_verify:
    address: tcp://builder.example.com:1234
    ca_path: pki/clients/ci/ca.pem
    client_cert: pki/clients/ci/cert.pem
    client_key: pki/clients/ci/key.pem
  delegate_to: localhost

- name: Prove a fleet at once, one of them by its address
  buildfarm.buildkit.buildkit_verify:
    daemons:
      - address: tcp://build-1.example.com:1234
        platforms: [linux/amd64, linux/386]
      - address: tcp://192.0.2.12:1234
        tls_hostname: build-2.example.com
        platforms: [linux/arm64]
    ca_path: pki/clients/ci/ca.pem
    client_cert: pki/clients/ci/cert.pem
    client_key: pki/clients/ci/key.pem
    connect_timeout: 5
  delegate_to: localhost
  run_once: true

- name: Prove everything that this team relies on
  buildfarm.buildkit.buildkit_verify:
    address: tcp://builder.example.com:1234
    ca_path: pki/clients/ci/ca.pem
    client_cert: pki/clients/ci/cert.pem
    client_key: pki/clients/ci/key.pem
    builds: [exec, dockerfile, cache]
    platforms: [linux/amd64, linux/arm64]
    entitlements_refused: [network.host, security.insecure]
    min_version: "0.17"
    certificate_days: 21
    gc_policy: # the rules of gcpolicy in its buildkitd.toml
      - filters: [type==source.local, type==exec.cachemount]
        keep_duration: 48h
        max_used_space: 10GB
      - all: true
        reserved_space: 20GB
        max_used_space: 200GB
  delegate_to: localhost

- name: Prove the daemon of this host through its unix socket
  buildfarm.buildkit.buildkit_verify:
    address: unix:///run/buildkit/buildkitd.sock
  become: true
"""

RETURN = r"""
daemons:
  description: What was proved of each daemon, in the order in which they were given. A list even for one.
  returned: when the options make sense, on failure too
  type: list
  elements: dict
  contains:
    address:
      description: As it was given.
      type: str
    ok:
      description: Whether all is proved.
      type: bool
    version:
      description: What the daemon says that it is. V(null) if it did not say.
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
    certificate:
      description: The certificate of the daemon. V(null) without TLS, or if none was seen.
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
          description: Whole days until it expires. Negative once it has.
          type: int
        fingerprint:
          description: SHA-256 of its DER form, in hexadecimal.
          type: str
    timings_ms:
      description:
        - Milliseconds that each stage took. The builds and the strangers run at the same time.
        - The build of another platform than the daemon's own is called C(exec linux/arm64), for example.
      type: dict
    refusals:
      description: What became of each stranger.
      type: dict
    entitlements:
      description: What became of each entitlement of O(entitlements_refused), as RV(daemons[].refusals).
      type: dict
      version_added: 1.1.0
    failure:
      description: Why it is not proved. V(null) if it is.
      type: dict
      contains:
        kind:
          description:
            - The cause. One of V(unreachable), V(timeout), V(helper_failed), V(not_tls), V(tls_expected),
              V(tls_failed), V(server_certificate_expired), V(server_certificate_not_yet_valid),
              V(server_certificate_refused), V(server_unknown_ca), V(server_name_mismatch),
              V(client_certificate_missing),
              V(client_certificate_refused), V(client_key_mismatch), V(not_grpc), V(not_buildkit), V(rpc_failed),
              V(no_worker), V(platform_missing), V(build_failed), V(not_cached), V(version_too_old),
              V(version_unknown), V(gc_policy_differs), V(certificate_expires_soon), V(entitlement_granted),
              V(open_to_anyone).
          type: str
        message:
          description: What happened.
          type: str
        remedy:
          description: What to try.
          type: str
  sample:
    - address: tcp://builder.example.com:1234
      ok: true
      version: v0.25.2
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
      certificate:
        subject: CN=builder.example.com
        issuer: CN=BuildKit CA
        sans: ["DNS:builder.example.com", "IP:192.0.2.11"]
        not_before: "2026-11-21T02:50:00Z"
        not_after: "2027-02-19T02:50:00Z"
        days_left: 89
        fingerprint: 4be0c1a6e3d15ad1a7f9d4d3e3d16be2aef8c0f6f5c7be54a3f0b4dbb7e0a911
      timings_ms:
        connect: 1.1
        tls: 2.7
        info: 1.2
        workers: 6.4
        exec: 68.2
        dockerfile: 79.8
        no_certificate: 13.2
        foreign_ca: 11.9
        plaintext: 14.7
        total: 95.1
      refusals:
        no_certificate:
          refused: true
          how: alert certificate_required
        foreign_ca:
          refused: true
          how: alert unknown_ca
        plaintext:
          refused: true
          how: connection closed
      entitlements: {}
      failure: null
summary:
  description: One line for each daemon, with what was proved, or why not and what to try. The worst comes first.
  returned: when the options make sense, on failure too
  type: list
  elements: str
  sample:
    - >-
      tcp://builder.example.com:1234: BuildKit v0.25.2, exec build in 68 ms, dockerfile build in 80 ms,
      stranger without a client certificate refused (alert certificate_required)
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import control, gc_policy, platforms, verify
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import options as connection
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import InputError
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.report import summarise
from ansible_collections.buildfarm.buildkit.plugins.module_utils._deps import (
    CRYPTOGRAPHY,
    GRPCLIB,
    PROTOBUF,
    MissingLibraryError,
    require,
)

_BUILDS = list(verify.BUILDS)
_REFUSALS = list(verify.REFUSALS)
_ENTITLEMENTS = list(verify.ENTITLEMENTS)

# What only this module has, as DOCUMENTATION describes it.
_GC_POLICY = {
    "type": "list",
    "elements": "dict",
    "options": {
        "all": {"type": "bool", "default": False},
        "filters": {"type": "list", "elements": "str", "default": []},
        "keep_duration": {"type": "str", "default": "0"},
        "reserved_space": {"type": "str", "default": "0"},
        "max_used_space": {"type": "str", "default": "0"},
        "min_free_space": {"type": "str", "default": "0"},
    },
}
_OPTIONS = {
    "build_timeout": {"type": "float", "default": 60},
    "builds": {"type": "list", "elements": "str", "choices": _BUILDS, "default": list(verify.DEFAULT_BUILDS)},
    "platforms": {"type": "list", "elements": "str", "default": []},
    "refusals": {"type": "list", "elements": "str", "choices": _REFUSALS, "default": _REFUSALS},
    "entitlements_refused": {"type": "list", "elements": "str", "choices": _ENTITLEMENTS, "default": []},
    "min_version": {"type": "str", "default": ""},
    "gc_policy": _GC_POLICY,
    "certificate_days": {"type": "int", "default": 0},
    "concurrency": {"type": "int", "default": 20},
}
_OPTIONS_OF_EACH = {"platforms": {"type": "list", "elements": "str"}, "gc_policy": _GC_POLICY}


def read_platforms(texts: list[str]) -> tuple[control.Platform, ...]:
    """Platforms as the options name them."""
    return tuple(platforms.parse(text) for text in texts)


def own_platforms(options: dict[str, t.Any]) -> list[tuple[control.Platform, ...] | None]:
    """What each item of O(daemons) wishes itself."""
    wishes = [item["platforms"] for item in options["daemons"] or []]
    return [None if wish is None else read_platforms(wish) for wish in wishes]


def own_gc_policies(options: dict[str, t.Any]) -> list[tuple[control.GCPolicy, ...] | None]:
    """The rules that each item of O(daemons) wishes itself."""
    wishes = [item["gc_policy"] for item in options["daemons"] or []]
    return [None if wish is None else gc_policy.read_policy(wish) for wish in wishes]


def wished_proof(options: dict[str, t.Any]) -> verify.Proof:
    """What the options ask for."""
    rules = options["gc_policy"]
    return verify.Proof(
        connect_timeout=options["connect_timeout"],
        build_timeout=options["build_timeout"],
        builds=tuple(options["builds"]),
        refusals=tuple(options["refusals"]),
        platforms=read_platforms(options["platforms"]),
        entitlements_refused=tuple(options["entitlements_refused"]),
        min_version=options["min_version"],
        gc_policy=None if rules is None else gc_policy.read_policy(rules),
        certificate_days=options["certificate_days"],
        concurrency=options["concurrency"],
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**connection.module_arguments(_OPTIONS, of_each=_OPTIONS_OF_EACH), supports_check_mode=True)
    options = module.params
    try:
        connection.check_python()
        require(GRPCLIB, PROTOBUF, CRYPTOGRAPHY, load=False)
        require(GRPCLIB, PROTOBUF)  # cryptography is loaded while the builds are running
        reports = verify.verify(
            connection.read_daemons(options), wished_proof(options), own_platforms(options), own_gc_policies(options)
        )
    except (InputError, MissingLibraryError) as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": False,
        "daemons": [report.as_dict() for report in reports],
        "summary": summarise(reports),
    }
    failed = summarise([report for report in reports if not report.ok])
    if failed:
        of = f"{len(failed)} of {len(reports)} daemons not proved:\n" if len(reports) > 1 else ""
        module.fail_json(msg=of + "\n".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
