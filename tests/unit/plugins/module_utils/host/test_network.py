# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the network of build steps needs and leaves; the real thing is in molecule/lifecycle."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import network
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# As BuildKit 0.25 and the plugins 1.1.1 left it when it was killed.
SAVED = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:CNI-ADMIN - [0:0]
:CNI-FORWARD - [0:0]
:CNI-ISOLATION-STAGE-1 - [0:0]
:CNI-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)" -j CNI-ISOLATION-STAGE-1
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -d 10.72.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.72.0.2/32 -j ACCEPT
-A CNI-ISOLATION-STAGE-1 -i buildkit0 ! -o buildkit0 -m comment --comment "CNI firewall" -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-1 -m comment --comment "CNI firewall plugin rules" -j RETURN
-A CNI-ISOLATION-STAGE-2 -o buildkit0 -m comment --comment "CNI firewall plugin rules" -j DROP
-A CNI-ISOLATION-STAGE-2 -m comment --comment "CNI firewall plugin rules" -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [1:40]
:CNI-98bbadfdb651 - [0:0]
-A POSTROUTING -s 10.72.0.2/32 -m comment --comment "name: \\"buildkit\\" id: \\"t1dd\\"" -j CNI-98bbadfdb651
-A CNI-98bbadfdb651 -d 10.72.0.0/16 -m comment --comment "name: \\"buildkit\\" id: \\"t1dd\\"" -j ACCEPT
-A CNI-98bbadfdb651 ! -d 224.0.0.0/4 -m comment --comment "name: \\"buildkit\\" id: \\"t1dd\\"" -j MASQUERADE
COMMIT
"""
OTHERS = "-A CNI-FORWARD -s 10.88.0.5/32 -j ACCEPT\n"


def _deleted(saved: str) -> list[str]:
    return [" ".join(command) for command in network.rules_to_delete(saved)]


def test_everything_goes_when_nobody_else_uses_cni() -> None:
    """Rules before chains, and no command for what is not ours."""
    commands = _deleted(SAVED)
    assert commands[0].startswith("iptables -t nat -D POSTROUTING -s 10.72.0.2/32")
    assert 'name: "buildkit" id: "t1dd"' in commands[0]
    assert "iptables -t nat -X CNI-98bbadfdb651" in commands
    assert {"iptables -X CNI-FORWARD", "iptables -X CNI-ADMIN", "iptables -X CNI-ISOLATION-STAGE-1"} <= set(commands)
    assert sum("-D FORWARD" in command for command in commands) == 2
    assert commands.index("iptables -F CNI-FORWARD") < commands.index("iptables -X CNI-ADMIN")


def test_the_chains_of_others_stay() -> None:
    """Another network of CNI keeps the shared chains and its own rules."""
    commands = _deleted(SAVED.replace("COMMIT\n*nat", f"{OTHERS}COMMIT\n*nat"))
    assert not [command for command in commands if "10.88.0.5" in command or "-D FORWARD" in command]
    assert not [command for command in commands if command.startswith(("iptables -F CNI-", "iptables -X CNI-"))]
    assert "iptables -D CNI-FORWARD -s 10.72.0.2/32 -j ACCEPT" in commands


def test_rules_without_a_jump_are_others() -> None:
    """A rule that counts, or goes to a chain for good, is no reason to stop."""
    theirs = "-A FORWARD -i eth0\n-A FORWARD -i eth1 -g theirs\n"
    saved = SAVED.replace("-A FORWARD -m", f"{theirs}-A FORWARD -m", 1)
    assert network.rules_to_delete(saved) == network.rules_to_delete(SAVED)
    counting = SAVED.replace("-A CNI-FORWARD -m", "-A CNI-ADMIN -s 192.0.2.1/32\n-A CNI-FORWARD -m", 1)
    assert not [argv for argv in network.rules_to_delete(counting) if argv[1] == "-X"]


def test_nothing_is_deleted_of_a_host_without_it() -> None:
    """Rules of a firewall that knows nothing of CNI are none of our business."""
    assert _deleted("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n") == []


def test_plugins_count_when_all_are_there(tmp_path: Path) -> None:
    """A directory with some of them is none, and bundled ones have names of their own."""
    for name in network.PLUGINS:
        assert network.plugin_directory([str(tmp_path)]) == ""
        (tmp_path / name).touch(mode=0o755)
    assert network.plugin_directory(["/nowhere", str(tmp_path)]) == str(tmp_path)
    assert not network.bundled(str(tmp_path))
    for name in network.PLUGINS:
        (tmp_path / f"buildkit-cni-{name}").touch(mode=0o755)
    assert network.bundled(str(tmp_path))


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(network, "_SBIN", str(tmp_path))
    (problem,) = network.obstacles("10.10.0.0/16")
    assert "need ip, iptables, nft, unshare, which" in problem
    assert "Install iproute2, iptables, nftables, util-linux" in problem


def test_the_ends_of_pairs_go_before_the_kernel_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so when the step's network has gone, some time after the step. Who has gone by then is no failure."""
    for name in ("buildkit0/brif/vethdead", "buildkit0/brif/vethgone", "buildkit0/brif/eth7", "vethdead"):
        (tmp_path / name).mkdir(parents=True)
    commands: list[str] = []

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        commands.append(" ".join(argv))
        return subprocess.CompletedProcess(argv, argv[-1] == "vethgone", stdout="", stderr="Cannot find device")

    monkeypatch.setattr(network, "_run", run)
    monkeypatch.setattr(network, "_has", lambda _program: False)
    for name in ("_INTERFACES", "_LEASES", "_RESULTS"):
        monkeypatch.setattr(network, name, str(tmp_path if name == "_INTERFACES" else tmp_path / "cni" / name))
    network.remove()
    assert commands == [f"ip link delete {name}" for name in ("vethdead", "vethgone", "buildkit0")]


@pytest.mark.parametrize("subnet", ["10.10.0.0/33", "10.10.0.1/16", "fd00::/64", "all"])
def test_a_subnet_is_an_ipv4_network(subnet: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anything else is refused, whatever the host can do."""
    for program in ("ip", "iptables", "nft", "unshare"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HostError, match="is no IPv4 network such as"):
        network.obstacles(subnet)


def test_a_subnet_that_the_host_reaches_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default route and the bridge of an earlier run do not count."""
    routes = (
        "default via 192.0.2.1 dev eth0\n10.10.0.0/16 dev buildkit0 scope link\n172.17.0.0/16 dev docker0 scope link\n"
    )
    for program in ("iptables", "nft", "unshare"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "ip").write_text(f"#!/bin/sh\ncat <<'END'\n{routes}END\n")
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert network.obstacles("10.10.0.0/16") == []
    (problem,) = network.obstacles("172.17.128.0/24")
    assert "overlaps 172.17.0.0/16 on docker0" in problem
