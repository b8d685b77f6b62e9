# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of build steps: what a host needs for it, and what it leaves behind.

With ``networkMode = "bridge"`` buildkitd has CNI plugins make a bridge, a pair of interfaces for each step, and rules
of iptables; some of that outlives it. Names: util/network/cniprovider/bridge.go of BuildKit, and
plugins/meta/firewall and plugins/ipam/host-local of containernetworking/plugins.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

BRIDGE = "buildkit0"
TABLE = "buildkit"  # of nftables, family inet
PLUGINS = ("bridge", "loopback", "host-local", "firewall")
# Of Debian, of Fedora, of those who install upstream's archive of plugins.
PLUGIN_DIRECTORIES = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
_NETWORK = "buildkit"  # what the CNI configuration inside buildkitd is called
_LEASES = f"/var/lib/cni/networks/{_NETWORK}"
_RESULTS = "/var/lib/cni/results"
_INTERFACES = "/sys/class/net"
_PROGRAMS = {"ip": "iproute2", "iptables": "iptables", "nft": "nftables", "unshare": "util-linux"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Everything that steps will need of the kernel, once, in a network namespace that goes with the process.
_TRIAL = f"""
set -e
ip link add {BRIDGE} type bridge
ip link add step0 type veth peer name step1
iptables -t nat -A POSTROUTING -m comment --comment trial -j MASQUERADE
iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
nft 'table inet trial {{ chain input {{
type filter hook input priority -10
ct state established accept
meta l4proto tcp reject with tcp reset
reject
}}
}}'
"""
# Chains of the firewall plugin, which all networks of CNI share.
_SHARED_CHAINS = ("CNI-FORWARD", "CNI-ADMIN", "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")


def _environment() -> t.Dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}", "LC_ALL": "C"}


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env=_environment(),
        check=False,
    )


def _has(program: str) -> bool:
    return shutil.which(program, path=_environment()["PATH"]) is not None


def plugin_directory(directories: t.Sequence[str] = PLUGIN_DIRECTORIES) -> str:
    """The first directory of the host with all plugins that buildkitd needs; empty when there is none."""
    for directory in directories:
        if all(os.access(os.path.join(directory, name), os.X_OK) for name in PLUGINS):
            return directory
    return ""


def bundled(programs: str) -> bool:
    """Whether a release's directory of programs has the plugins, as upstream's archives do."""
    return all(os.access(os.path.join(programs, f"buildkit-cni-{name}"), os.X_OK) for name in PLUGINS)


def obstacles(subnet: str) -> t.List[str]:
    """Why build steps cannot have a network of their own here, plugins aside; empty when they can.

    :param subnet: the steps' addresses, in CIDR notation
    """
    missing = [program for program in _PROGRAMS if not _has(program)]
    if missing:
        return [
            f"Build steps with a network of their own need {', '.join(missing)}, which this host does not have. "
            f"Install {', '.join(sorted({_PROGRAMS[program] for program in missing}))}, "
            f"or leave buildkit_network at host."
        ]
    found = []
    trial = _run("unshare", "--net", "sh", "-c", _TRIAL)
    if trial.returncode != 0:
        why = trial.stderr.strip().splitlines() or ["it says nothing"]
        found.append(
            f"This host's kernel cannot give build steps a network of their own: {why[0]}. It "
            f"needs bridge, veth and netfilter (nf_tables, nf_nat): load these modules, or leave buildkit_network at "
            f"host."
        )
    taken = _taken(subnet)
    if taken:
        found.append(
            f"The network {subnet} of build steps overlaps {taken}, which this host reaches. Set "
            f"buildkitd_network_subnet to one that nobody uses."
        )
    return found


def _taken(subnet: str) -> str:
    """A route of this host, not of the bridge and not the default, that overlaps a subnet; empty when none does."""
    try:
        wanted = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise HostError(
            f"The network of build steps {subnet!r} is no IPv4 network such as 10.10.0.0/16: {error}."
        ) from error
    for line in _run("ip", "-4", "route", "show", "table", "all").stdout.splitlines():
        route = re.match(r"(?:\w+ )?(\d[\d./]+) .*?dev (\S+)", line)
        if route and route[2] != BRIDGE and ipaddress.ip_network(route[1], strict=False).overlaps(wanted):
            return f"{route[1]} on {route[2]}"
    return ""


def traces() -> t.List[str]:
    """What the network of build steps left on this host: removable by L(remove)."""
    found = []
    if os.path.isdir(os.path.join(_INTERFACES, BRIDGE)):
        found.append(f"interface {BRIDGE}")
    if _has("nft") and _run("nft", "list", "table", "inet", TABLE).returncode == 0:
        found.append(f"nftables table inet {TABLE}")
    if os.path.isdir(_LEASES):
        found.append(_LEASES)
        if _has("iptables-save") and rules_to_delete(_run("iptables-save").stdout):
            found.append("rules of iptables")
    return found


def remove() -> None:
    """Removes that. The daemon must not run. Raises HostError."""
    if _has("iptables-save"):
        # Deleting the rules of our network may empty the shared chains.
        for _round in range(2):
            for argv in rules_to_delete(_run("iptables-save").stdout):
                _must(*argv)
    if os.path.isdir(os.path.join(_INTERFACES, BRIDGE)):
        for name in _pairs():
            # The kernel removes it with the other end, which was a step's, and may be about to.
            if _run("ip", "link", "delete", name).returncode and os.path.isdir(os.path.join(_INTERFACES, name)):
                _must("ip", "link", "delete", name)
        _must("ip", "link", "delete", BRIDGE)
    if _has("nft") and _run("nft", "list", "table", "inet", TABLE).returncode == 0:
        _must("nft", "delete", "table", "inet", TABLE)
    shutil.rmtree(_LEASES, ignore_errors=True)
    if os.path.isdir(_RESULTS):
        for name in os.listdir(_RESULTS):
            if name.startswith(f"{_NETWORK}-"):
                os.unlink(os.path.join(_RESULTS, name))
    for directory in (_RESULTS, os.path.dirname(_LEASES), os.path.dirname(_RESULTS)):
        if os.path.isdir(directory) and not os.listdir(directory):
            os.rmdir(directory)


def _pairs() -> t.List[str]:
    """The host's ends of the pairs of interfaces that connect steps with the bridge."""
    return sorted(name for name in os.listdir(os.path.join(_INTERFACES, BRIDGE, "brif")) if name.startswith("veth"))


def _must(*argv: str) -> None:
    done = _run(*argv)
    if done.returncode != 0:
        raise HostError(f"Removing the network of build steps failed: {shlex.join(argv)}: {done.stderr.strip()}")


def _target(rule: t.Sequence[str]) -> str:
    """Where a rule jumps to; empty for one that goes to a chain (``-g``) or only counts."""
    return rule[rule.index("-j") + 1] if "-j" in rule else ""


def rules_to_delete(saved: str) -> t.List[t.List[str]]:
    """The commands that delete what is ours of a listing of C(iptables-save): rules first, then chains."""
    rules: t.Dict[str, t.List[t.List[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            rules.setdefault(table, []).append(shlex.split(line))
    nat, filters = rules.get("nat", []), rules.get("filter", [])
    ours = [rule for rule in nat if any(word.startswith(f'name: "{_NETWORK}" id: ') for word in rule)]
    addresses = {rule[rule.index("-s") + 1] for rule in ours if "-s" in rule}
    chains = {_target(rule) for rule in ours if rule[1] == "POSTROUTING"} - {""}
    forwards = [
        rule
        for rule in filters
        if (rule[1] == "CNI-FORWARD" and addresses.intersection(rule)) or (rule[1] in _SHARED_CHAINS and BRIDGE in rule)
    ]
    commands = [["iptables", "-t", "nat", "-D", *rule[1:]] for rule in ours if rule[1] == "POSTROUTING"]
    for chain in sorted(chains):
        commands += [["iptables", "-t", "nat", action, chain] for action in ("-F", "-X")]
    commands += [["iptables", "-D", *rule[1:]] for rule in forwards]
    left = [rule for rule in filters if rule[1] in _SHARED_CHAINS and rule not in forwards]
    existing = [chain for chain in _SHARED_CHAINS if re.search(rf"^:{chain} ", saved, re.MULTILINE)]
    # They hold nothing but jumps to each other and returns: no other network of CNI needs them.
    if existing and all(_target(rule) in ("RETURN", *_SHARED_CHAINS) for rule in left):
        jumps = [rule for rule in filters if rule[1] == "FORWARD" and _target(rule) in _SHARED_CHAINS]
        commands += [["iptables", "-D", *rule[1:]] for rule in jumps]
        commands += [["iptables", "-F", chain] for chain in existing]
        commands += [["iptables", "-X", chain] for chain in existing]
    return commands
