# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workstation that the role buildkit_client set up: its user builds, and in the end nothing of it is left."""

from __future__ import annotations

import re

import pytest

LEFT = (
    "/etc/buildkit /etc/profile.d/buildkit-buildkit.sh /usr/local/lib/buildkit-client "
    "/run/buildkit-forward/by-tls.sock /run/buildkit-forward-by-tls /home/alice/.docker/buildx/instances/buildkit"
)
SSH = {"name": "new", "via": "ssh", "host": "172.29.214.11"}
TLS = {"name": "new", "via": "tls", "endpoint": "tcp://172.29.214.12:1234"}


def test_the_user_builds_with_what_the_login_shell_says(workstation):
    """With no setting of her own, alice builds with both generations of docker-buildx; buildctl reaches a builder."""
    workstation.ran("cp -r /opt/project . && chmod -R u+w project", user="alice")
    for buildx in ("docker-buildx", "/opt/buildx-new"):
        shown = workstation.ran(f". /etc/profile && {buildx} inspect --bootstrap", user="alice")
        assert re.findall(r"^Status: +(\S+)", shown, re.MULTILINE) == ["running", "running"]
        build = f"{buildx} build --no-cache --output type=local,dest=out ."
        workstation.ran(f". /etc/profile && cd project && {build}", user="alice")
        assert workstation.ran("cat project/out/hello.txt; rm -r project/out", user="alice") == "hello\n"
    workstation.ran(". /etc/profile && PATH=$PATH:/opt/old && buildctl debug workers", user="alice")


def test_others_cannot_read_the_key(workstation):
    """Whoever is not named has no way to the key."""
    assert workstation.run("cat /etc/buildkit/client/buildkit/key.pem", user="bob").returncode != 0


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (SSH, "the forward new by SSH needs host and known_hosts"),
        ({**SSH, "known_hosts": "x", "host": "-oProxyCommand=id"}, "is no host name or address"),
        (TLS, "dials an address, and HAProxy verifies names alone"),
        ({**TLS, "server_name": "a b"}, "needs server_name"),
    ],
)
def test_a_forward_that_could_not_work_is_refused(workstation, workstation_role, forward, message):
    """The run ends before anything is changed, with the reason."""
    refused = workstation_role(buildkit_client_forwards=[forward])
    assert refused.returncode != 0
    # Where failures go is a setting of Ansible, and molecule has its own.
    assert message in " ".join((refused.stdout + refused.stderr).split())
    assert re.search(r"changed=0\b", refused.stdout)
    assert workstation.run("ls /etc/buildkit/forward/new").returncode != 0


def test_a_renewed_certificate_reaches_every_tool(workstation, workstation_role, request):
    """The role exchanges the files and reloads the proxy; docker buildx builds without being set up again."""
    show = "openssl x509 -in /etc/buildkit/client/buildkit/cert.pem -noout -serial"
    state = "cat /home/alice/.docker/buildx/instances/buildkit"
    before, builder = workstation.ran(show, user="root"), workstation.ran(state, user="root")
    workstation.ran("/opt/old/buildctl --addr unix:///run/buildkit-forward/by-tls.sock debug workers", user="alice")
    started = workstation.ran("systemctl show -p MainPID buildkit-forward-by-tls.service", user="root")
    request.getfixturevalue("renewed")
    done = workstation_role()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Take up the renewed certificate" in done.stdout
    assert workstation.ran(show, user="root") != before
    assert workstation.ran(state, user="root") == builder
    pem = workstation.ran("cat /run/buildkit-forward-by-tls/client.pem", user="root")
    assert pem == workstation.ran("cd /etc/buildkit/client/buildkit && cat cert.pem key.pem", user="root")
    assert workstation.ran("systemctl show -p MainPID buildkit-forward-by-tls.service", user="root") == started
    workstation.ran("/opt/old/buildctl --addr unix:///run/buildkit-forward/by-tls.sock debug workers", user="alice")
    workstation.ran(". /etc/profile && docker-buildx inspect --bootstrap | grep -q running", user="alice")


def test_absent_takes_all_of_it_away(workstation, workstation_role):
    """Check mode foretells, one run removes units, keys, settings and builders, and the next has nothing to do."""
    before = workstation.ran(f"ls -d {LEFT}", user="root")
    predicted, removed, again = (
        workstation_role(*options, buildkit_client_state="absent") for options in (["--check"], [], [])
    )
    assert [done.returncode for done in (predicted, removed, again)] == [0, 0, 0]
    assert re.search(r"changed=[1-9]", predicted.stdout)
    assert "changed=0" in again.stdout
    assert before.count("\n") == len(LEFT.split())
    assert workstation.run(f"ls -d {LEFT}", user="root").stdout == ""
    assert workstation.ran("systemctl list-unit-files 'buildkit-forward*' --no-legend --all || true", user="root") == ""
    assert workstation.run("pgrep -f '[b]uildkit-forward'", user="root").returncode != 0
    assert workstation.ran("systemctl is-system-running", user="root") == "running\n"
