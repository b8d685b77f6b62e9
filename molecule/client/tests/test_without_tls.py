# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unix sockets on the workstation that lead to builders, used by a buildctl that knows nothing of TLS."""

from __future__ import annotations

import json

import pytest

SOCKETS = {name: f"unix:///run/buildkit-forward/{name}.sock" for name in ("by-ssh", "by-tls")}
# What the role puts on the builder.
RESTRICTED = 'restrict,command="/usr/local/bin/buildctl dial-stdio"'
KEYS = "/root/.ssh/authorized_keys"


@pytest.fixture
def alice(workstation):
    """The workstation, used by alice, whose key the role has told the builder."""

    def run(command, **environment):
        return workstation.run(command, user="alice", **environment)

    return run


def _build(alice, socket):
    done = alice(
        "rm -rf out && /opt/old/buildctl build --no-cache --frontend dockerfile.v0 --local context=/opt/project "
        "--local dockerfile=/opt/project --output type=local,dest=out && cat out/hello.txt",
        BUILDKIT_HOST=socket,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SOCKETS)
def test_it_builds_without_tls(alice, name):
    """A plain buildctl with only BUILDKIT_HOST builds on the builder."""
    assert _build(alice, SOCKETS[name]) == "hello\n"


def test_each_leads_to_its_builder(alice, hosts):
    """The worker behind the socket is that of the builder, and the two differ."""
    show = "debug workers --format '{{json .}}'"
    found = [
        json.loads(alice(f"/opt/old/buildctl --addr {socket} {show}").stdout)[0]["id"] for socket in SOCKETS.values()
    ]
    told = [
        json.loads(hosts[name].ran(f"/usr/local/bin/buildctl {show}", user="root"))[0]["id"]
        for name in ("client-old", "client-new")
    ]
    assert found == told


@pytest.mark.parametrize("name", SOCKETS)
def test_no_other_user_reaches_it(alice, workstation, name):
    """The socket is its user's alone, the keys too, and no TCP port is open for it."""
    assert alice("true").returncode == 0
    refused = workstation.run(f"/opt/old/buildctl --addr {SOCKETS[name]} debug workers", user="bob")
    assert "permission denied" in refused.stderr
    for path in ("/etc/buildkit/forward/by-ssh/id_ed25519", "/run/buildkit-forward-by-tls/client.pem"):
        assert workstation.run(f"cat {path}", user="bob").returncode != 0
    listening = workstation.ran("ss -Hltnp", user="root")
    assert "haproxy" not in listening
    assert '"ssh"' not in listening


def test_the_key_opens_the_builder_and_nothing_else(alice, hosts):
    """Whatever is asked of sshd with this key, it runs buildctl dial-stdio; no forwarding, no terminal, no file."""
    assert (
        hosts["client-old"].ran(f"stat -c %a {KEYS} && cat {KEYS}", user="root").startswith(f"600\n{RESTRICTED} ssh-")
    )
    ssh = (
        "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=/etc/buildkit/forward/by-ssh/known_hosts "
        "-i /etc/buildkit/forward/by-ssh/id_ed25519 -l root"
    )
    shell = alice(f"timeout 5 {ssh} 172.29.214.11 id </dev/null")
    assert "uid=" not in shell.stdout
    forward = f"{ssh} -NT -o ExitOnForwardFailure=yes"
    for what in ("-L ./stolen.sock:/run/dbus/system_bus_socket", "-L 9999:127.0.0.1:22"):
        alice(f'timeout 5 {forward} {what} 172.29.214.11 & sleep 2; : >used; timeout 2 python3 -c "{_DIAL}"; wait')
        assert alice("cat used").stdout == ""
    listen = alice(f"timeout 120 {forward} -R 9998:127.0.0.1:22 172.29.214.11")
    assert "remote port forwarding failed" in listen.stderr


_DIAL = """
import os, socket
unix = os.path.exists('stolen.sock')
peer = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
peer.connect('stolen.sock' if unix else ('127.0.0.1', 9999))
peer.sendall(b'\\\\0AUTH\\\\r\\\\n' if unix else b'')
open('used', 'wb').write(peer.recv(9))
"""


def test_a_builder_with_another_host_key_is_refused(alice, workstation):
    """Somebody who poses as the builder gets nothing, and the journal says why."""
    known = "/etc/buildkit/forward/by-ssh/known_hosts"
    workstation.ran(f"cp {known} /root/known_hosts && ssh-keygen -q -t ed25519 -N '' -f /root/other", user="root")
    workstation.ran(f'echo "172.29.214.11 $(cat /root/other.pub)" >{known}', user="root")
    try:
        assert alice("/opt/old/buildctl --timeout 5 debug workers", BUILDKIT_HOST=SOCKETS["by-ssh"]).returncode != 0
        journal = "journalctl --no-pager -o cat -u 'buildkit-forward-by-ssh@*'"
        told = f"{journal} | grep -q 'REMOTE HOST IDENTIFICATION HAS CHANGED'"
        workstation.ran(f"for i in $(seq 120); do {told} && exit; sleep 1; done; {journal}; exit 1", user="root")
    finally:
        workstation.ran(f"cat /root/known_hosts >{known}; rm /root/other*", user="root")
    assert _build(alice, SOCKETS["by-ssh"]) == "hello\n"


def test_it_comes_back_by_itself(alice, hosts, workstation):
    """After sshd and the proxy were killed, the next build works, and no unit is left failed."""
    hosts["client-old"].ran("systemctl restart ssh", user="root")
    assert _build(alice, SOCKETS["by-ssh"]) == "hello\n"
    workstation.ran("systemctl kill --signal KILL --kill-whom all buildkit-forward-by-tls.service", user="root")
    assert _build(alice, SOCKETS["by-tls"]) == "hello\n"
    assert workstation.ran("systemctl is-system-running", user="root") == "running\n"


def test_the_proxy_takes_only_the_builder_that_it_names(alice, workstation):
    """With another name than the certificate's, HAProxy connects to nobody."""
    settings = "/etc/buildkit/forward/by-tls/haproxy.cfg"
    workstation.ran(f"cp {settings} /root/haproxy.cfg && sed -i 's/client-new/other/g' {settings}", user="root")
    try:
        workstation.ran("systemctl restart buildkit-forward-by-tls.service", user="root")
        assert alice("/opt/old/buildctl --timeout 5 debug workers", BUILDKIT_HOST=SOCKETS["by-tls"]).returncode != 0
    finally:
        workstation.ran(f"cat /root/haproxy.cfg >{settings}", user="root")
        workstation.ran("systemctl restart buildkit-forward-by-tls.service", user="root")
    assert _build(alice, SOCKETS["by-tls"]) == "hello\n"


def test_a_reload_takes_the_renewed_certificate(alice, workstation):
    """Reloading joins certificate and key anew, while the socket stays open."""
    pem = "/run/buildkit-forward-by-tls/client.pem"
    assert _build(alice, SOCKETS["by-tls"]) == "hello\n"
    workstation.ran(f"cp /dev/null {pem} && systemctl reload buildkit-forward-by-tls.service", user="root")
    directory = "/etc/buildkit/client/buildkit"
    assert workstation.ran(f"cat {pem}", user="root") == workstation.ran(
        f"cat {directory}/cert.pem {directory}/key.pem", user="root"
    )
    assert _build(alice, SOCKETS["by-tls"]) == "hello\n"
