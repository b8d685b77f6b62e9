# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key of buildkitd.toml, what it holds, and the BuildKit release that brought it.

Facts: the structures that buildkitd decodes its file into, 0.13.2 to 0.33.1; the tests compare the keys with the tags
in the programs of both generations.

Private to this collection.
"""

from __future__ import annotations

import typing as t

# A name that the user chooses, such as a registry's, in place of a part of a path.
ANY = "*"


class Key(t.NamedTuple):
    """One key.

    :param kind: what it holds, one of ``values.KINDS``
    :param meaning: one line for people
    :param since: the release that brought it; empty for those that 0.13.2 has
    """

    kind: str
    meaning: str
    since: str = ""


# What a rule of the garbage collection has.
_RULE = {
    "all": Key("boolean", "whether the rule also concerns internal, frontend and shared records"),
    "filters": Key("filters", "which records the rule concerns; all conditions in one text must hold"),
    "keepDuration": Key("duration", "for how long the rule leaves a record alone after its last use"),
    "keepBytes": Key("size", "the older name of `reservedSpace`"),
    "reservedSpace": Key("size", "what the rule leaves alone", "0.17.0"),
    "maxUsedSpace": Key("size", "what the cache may have", "0.17.0"),
    "minFreeSpace": Key("size", "what of the disk is to be free", "0.17.0"),
}

# What both kinds of worker have.
_WORKER = {
    "enabled": Key("boolean", "whether there is this worker; without it, if what it needs is found"),
    "labels.*": Key("text", "what the worker says of itself"),
    "platforms": Key("platforms", "what the worker builds for; without it, what is found"),
    "snapshotter": Key("text", "how layers are stored, such as overlayfs or native"),
    "rootless": Key("boolean", "whether the daemon runs without root"),
    "gc": Key("boolean", "whether there is garbage collection"),
    "gckeepstorage": Key("size", "the older name of `reservedSpace`; in bytes, not in MB"),
    "reservedSpace": Key("size", "cache that garbage collection leaves alone", "0.17.0"),
    "maxUsedSpace": Key("size", "what the cache may have", "0.17.0"),
    "minFreeSpace": Key("size", "what of the disk is to be free", "0.17.0"),
    **{f"gcpolicy[].{name}": key for name, key in _RULE.items()},
    "networkMode": Key("network mode", "the network of build steps"),
    "cniConfigPath": Key("path", "the CNI configuration"),
    "cniBinaryPath": Key("path", "the directory of the CNI plugins"),
    "cniPoolSize": Key("number", "network namespaces that are kept ready"),
    "bridgeName": Key("text", "the bridge that networkMode bridge makes"),
    "bridgeSubnet": Key("subnet", "its addresses"),
    "apparmor-profile": Key("text", "the AppArmor profile of build steps"),
    "selinux": Key("boolean", "whether build steps get SELinux labels"),
    "max-parallelism": Key("number", "build steps that run at the same time, of all builds together; 0 for any number"),
}

KEYS: t.Mapping[str, Key] = {
    "root": Key("path", "where all state is"),
    "debug": Key("boolean", "the older form of log.level debug"),
    "trace": Key("boolean", "the older form of log.level trace"),
    "insecure-entitlements": Key("entitlements", "what builds may ask for that is not safe"),
    "proxyNetwork": Key("boolean", "whether all builds go through BuildKit's own proxy", "0.31.0"),
    "provenanceEnvDir": Key("path", "where facts for the provenance of builds are read from", "0.25.0"),
    "log.format": Key("log format", "how the log is written"),
    "log.level": Key("log level", "what is logged", "0.30.0"),
    "grpc.address": Key("texts", "where the daemon listens"),
    "grpc.debugAddress": Key("debug address", "pprof and metrics, for everyone who reaches it"),
    "grpc.uid": Key("number", "owner of the unix socket"),
    "grpc.gid": Key("number", "group of the unix socket"),
    "grpc.securityDescriptor": Key("text", "who may use the pipe, on Windows"),
    "grpc.tls.ca": Key("path", "whose clients are accepted"),
    "grpc.tls.cert": Key("path", "the daemon's certificate"),
    "grpc.tls.key": Key("path", "its key"),
    "otel.socketPath": Key("path", "where the daemon takes traces of build steps"),
    "cdi.disabled": Key("boolean", "whether devices of the Container Device Interface are off", "0.20.0"),
    "cdi.specDirs": Key("paths", "where they are described", "0.20.0"),
    "cdi.autoAllowed": Key("texts", "devices that need no entitlement", "0.21.0"),
    "history.maxAge": Key("duration", "age to which finished builds are remembered"),
    "history.maxEntries": Key("number", "how many are; a record goes once it exceeds both"),
    "dns.nameservers": Key("addresses", "nameservers of build steps"),
    "dns.options": Key("texts", "options in their resolv.conf"),
    "dns.searchDomains": Key("texts", "search domains in it"),
    **{f"worker.oci.{name}": key for name, key in _WORKER.items()},
    "worker.oci.noProcessSandbox": Key(
        "boolean", "whether build steps share the daemon's PID namespace; rootless only"
    ),
    "worker.oci.binary": Key("text", "another runtime than runc, such as crun"),
    "worker.oci.proxySnapshotterPath": Key("path", "the socket of a snapshotter"),
    "worker.oci.defaultCgroupParent": Key("text", "the cgroup below which build steps run"),
    "worker.oci.stargzSnapshotter": Key("table", "settings of the stargz snapshotter"),
    "worker.oci.userRemapUnsupported": Key("text", "for BuildKit's own tests"),
    **{f"worker.containerd.{name}": key for name, key in _WORKER.items()},
    "worker.containerd.address": Key("text", "the socket of containerd"),
    "worker.containerd.namespace": Key("text", "its namespace"),
    "worker.containerd.runtime.name": Key("text", "its runtime"),
    "worker.containerd.runtime.path": Key("path", "the runtime's program"),
    "worker.containerd.runtime.options": Key("table", "the runtime's options"),
    "worker.containerd.defaultCgroupParent": Key("text", "the cgroup below which build steps run", "0.15.0"),
    "registry.*.mirrors": Key("mirrors", "asked before the registry, in this order"),
    "registry.*.http": Key("boolean", "whether it speaks plain HTTP"),
    "registry.*.insecure": Key("boolean", "whether its certificate is not checked"),
    "registry.*.ca": Key("paths", "CAs of its certificate"),
    "registry.*.keypair[].key": Key("path", "key of a client certificate"),
    "registry.*.keypair[].cert": Key("path", "that certificate"),
    "registry.*.tlsconfigdir": Key("paths", "directories with both, as Docker has them in certs.d"),
    "frontend.dockerfile.v0.enabled": Key("boolean", "whether the Dockerfile frontend is there", "0.14.0"),
    "frontend.gateway.v0.enabled": Key("boolean", "whether frontends may come as images", "0.14.0"),
    "frontend.gateway.v0.allowedRepositories": Key("texts", "repositories that these may come from", "0.14.0"),
    "system.platformsCacheMaxAge": Key("duration", "how often emulated platforms are looked for", "0.14.0"),
    "system.maxRegistryConcurrency": Key("positive number", "connections to one registry at the same time", "0.31.0"),
    "cache.gha.sign.command": Key("texts", "the command that signs caches for GitHub Actions", "0.27.0"),
    "cache.gha.verify.required": Key("boolean", "whether such caches must be signed", "0.27.0"),
    "cache.gha.verify.policy": Key("table", "by whom", "0.27.0"),
}

# What people write, where no spelling is near what they mean.
MEANT = {
    "ghacache": "cache.gha",
    "registries": "registry",
    "workers": "worker",
    "worker.oci.gcPolicy": "worker.oci.gcpolicy",
    "worker.oci.keepBytes": "worker.oci.gckeepstorage",
    "worker.containerd.keepBytes": "worker.containerd.gckeepstorage",
    "worker.oci.cgroupParent": "worker.oci.defaultCgroupParent",
    "log.debug": "log.level",
    "otel.endpoint": "otel.socketPath",
}


class Node:
    """A place in the tree that the paths make: a key, a table of places, or a list of tables."""

    def __init__(self) -> None:
        self.key: Key | None = None
        self.children: dict[str, Node] = {}
        self.is_list = False


def _names(path: str) -> list[str]:
    """The parts of a path. The names of frontends have a dot in them."""
    return [name.replace("\0", ".") for name in path.replace(".v0", "\0v0").split(".")]


def tree() -> Node:
    """All paths as a tree."""
    top = Node()
    for path, key in KEYS.items():
        node = top
        for name in _names(path):
            node = node.children.setdefault(name.removesuffix("[]"), Node())
            node.is_list = node.is_list or name.endswith("[]")
        node.key = key
    return top


TREE = tree()
