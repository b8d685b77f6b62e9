# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workstation that the role buildkit_client set up: its user builds, and in the end nothing of it is left."""

from __future__ import annotations

import re
import subprocess

LEFT = (
    "/etc/buildkit /etc/profile.d/buildkit-buildkit.sh /usr/local/lib/buildkit-client "
    "/run/buildkit-forward/by-tls.sock /run/buildkit-forward-by-tls /home/alice/.docker/buildx/instances/buildkit "
    "/home/alice/.earthly '/home/alice/my certs/buildkit'"
)
SSH = {"via": "ssh", "host": "172.29.214.11", "known_hosts": "x"}
TLS = {"via": "tls", "endpoint": "tcp://172.29.214.12:1234", "server_name": "x"}
BAD = {
    "needs builder, or host and known_hosts": {"via": "ssh", "host": "172.29.214.11"},
    "is no host name or address": {**SSH, "host": "-oProxyCommand=id"},
    "is no host of the inventory": {"via": "ssh", "builder": "nowhere"},
    "is no name of a user": {**SSH, "user": "a\nb"},
    "is not on this host": {**SSH, "user": "zoe"},
    "dials an address, and HAProxy verifies names alone": {**TLS, "server_name": ""},
    "needs server_name": {**TLS, "server_name": "a b"},
    "needs endpoint, as tcp://HOST:PORT": {**TLS, "endpoint": "tcp://a\nuser root:1"},
}


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


def test_its_scripts_are_sound(workstation):
    """shellcheck finds nothing in what the role has made."""
    for path in ("/usr/local/lib/buildkit-client/buildkit/bin/buildctl", "/etc/profile.d/buildkit-buildkit.sh"):
        text = workstation.ran(f"cat {path}")
        checked = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, check=False)
        assert checked.stdout == ""
        assert checked.returncode == 0


def test_others_cannot_read_the_key(workstation):
    """Whoever is not named has no way to the key."""
    assert workstation.run("cat /etc/buildkit/client/buildkit/key.pem", user="bob").returncode != 0


def test_forwards_that_could_not_work_are_refused(workstation, workstation_role):
    """The run ends before anything is changed, with the reason of each."""
    forwards = [{"name": f"new-{number}", **forward} for number, forward in enumerate(BAD.values())]
    refused = workstation_role(buildkit_client_forwards=forwards)
    assert refused.returncode != 0
    # Where failures go is a setting of Ansible, and molecule has its own.
    said = " ".join((refused.stdout + refused.stderr).split())
    assert [message for message in BAD if message not in said] == []
    assert re.search(r"changed=0\b", refused.stdout)
    assert workstation.run("ls /etc/buildkit/forward/new-0").returncode != 0


def test_a_renewed_certificate_reaches_every_tool(workstation, playbook, request):
    """The playbook rotate exchanges the files and reloads the proxy; buildx needs no set-up."""
    show = "openssl x509 -in /etc/buildkit/client/buildkit/cert.pem -noout -serial"
    state = "cat /home/alice/.docker/buildx/instances/buildkit"
    before, builder = workstation.ran(show, user="root"), workstation.ran(state, user="root")
    workstation.ran("/opt/old/buildctl --addr unix:///run/buildkit-forward/by-tls.sock debug workers", user="alice")
    started = workstation.ran("systemctl show -p MainPID buildkit-forward-by-tls.service", user="root")
    request.getfixturevalue("renewed")
    done = playbook("buildfarm.buildkit.rotate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Take up the renewed certificate" in done.stdout
    assert workstation.ran(show, user="root") != before
    assert workstation.ran(state, user="root") == builder
    pem = workstation.ran("cat /run/buildkit-forward-by-tls/client.pem", user="root")
    assert pem == workstation.ran("cd /etc/buildkit/client/buildkit && cat cert.pem key.pem", user="root")
    assert workstation.ran("systemctl show -p MainPID buildkit-forward-by-tls.service", user="root") == started
    workstation.ran("/opt/old/buildctl --addr unix:///run/buildkit-forward/by-tls.sock debug workers", user="alice")
    workstation.ran(". /etc/profile && docker-buildx inspect --bootstrap | grep -q running", user="alice")


def test_it_moves_into_a_home(workstation, workstation_role, hosts):
    """With other wishes the certificate is alice's own, in a place with a space; what is wished for no more goes."""
    proxy = {"name": "by-tls", "via": "tls", "user": "alice", "endpoint": TLS["endpoint"], "server_name": "client-new"}
    place = "/home/alice/my certs/buildkit"
    assert "buildkit-client" in workstation.ran("id alice", user="root")
    done = workstation_role(
        buildkit_client_owner="alice",
        buildkit_client_dir=place,
        buildkit_client_earthly_host="tcp://earthly.example.com:8372",
        buildkit_client_forwards=[proxy],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert workstation.ran(f"stat -L -c '%U %a' '{place}' '{place}/key.pem'", user="root") == "alice 700\nalice 600\n"
    assert f'tlskey: "{place}/key.pem"' in workstation.ran("cat .earthly/config.yml", user="alice")
    workstation.ran("/opt/old/buildctl --addr unix:///run/buildkit-forward/by-tls.sock debug workers", user="alice")
    workstation.ran(". /etc/profile && docker-buildx inspect --bootstrap | grep -q running", user="alice")
    # Root reads for her what she can read, wherever she links it.
    workstation.ran(f"cp -rL '{place}' /root/theirs && echo theirs >>/root/theirs/cert.pem", user="root")
    linked = workstation.ran(f"cd '{place}' && readlink current && ln -sfn /root/theirs current", user="alice").strip()
    reload = "systemctl reload buildkit-forward-by-tls.service"
    assert workstation.run(reload, user="root").returncode != 0
    read = workstation.ran("cat /run/buildkit-forward-by-tls/client.pem; rm -r /root/theirs", user="root")
    assert "theirs" not in read
    workstation.ran(f"ln -sfn {linked} '{place}/current'", user="alice")
    workstation.ran(reload, user="root")
    assert "buildkit-client" not in workstation.ran("id alice", user="root")
    gone = "/etc/buildkit/client/buildkit /etc/buildkit/forward/by-ssh /run/buildkit-forward/by-ssh.sock"
    assert workstation.run(f"ls -d {gone}", user="root").stdout == ""
    assert hosts["client-old"].ran("cat /root/.ssh/authorized_keys", user="root") == ""


def test_absent_takes_all_of_it_away(workstation, workstation_role):
    """One run removes all, though the inventory tells of none of it; to check mode nothing is left to do then."""
    before = workstation.ran(f"ls -d {LEFT}", user="root")
    told = {"buildkit_client_state": "absent", "buildkit_client_users": [], "buildkit_client_forwards": []}
    removed, again = (workstation_role(*options, **told) for options in ([], ["--check"]))
    assert [done.returncode for done in (removed, again)] == [0, 0]
    assert "changed=0" in again.stdout
    assert before.count("\n") == 8
    assert workstation.run(f"ls -d {LEFT}", user="root").stdout == ""
    assert "buildkit-client" not in workstation.ran("getent group", user="root")
    assert workstation.ran("systemctl list-unit-files 'buildkit-forward*' --no-legend --all || true", user="root") == ""
    assert workstation.run("pgrep -f '[b]uildkit-forward'", user="root").returncode != 0
    assert workstation.ran("systemctl is-system-running", user="root") == "running\n"
