# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder under systemd, seen by clients and tools that know nothing of this collection."""

from __future__ import annotations

import socket
import subprocess

testinfra_hosts = ["ansible://buildkit_daemons"]


def test_the_system_has_no_failed_unit(host):
    """systemd is content, with the daemon and its socket enabled and active."""
    assert host.check_output("systemctl is-system-running") == "running"
    for unit in ("buildkit.socket", "buildkit.service"):
        assert host.check_output(f"systemctl is-active {unit}") == "active"
        assert host.check_output(f"systemctl is-enabled {unit}") == "enabled"


def test_builds_end_before_the_daemon_is_killed(host):
    """Only the daemon gets SIGTERM, it has ten minutes, and nothing answers a reload with SIGHUP."""
    shown = host.check_output(
        "systemctl show buildkit.service -p Type,KillMode,TimeoutStopUSec,SuccessExitStatus,Restart,Delegate,ExecReload"
    )
    assert set(shown.splitlines()) >= {
        "Type=notify",
        "KillMode=mixed",
        "TimeoutStopUSec=10min",
        "SuccessExitStatus=1",
        "Restart=on-failure",
        "Delegate=yes",
    }
    assert "ExecReload={" not in shown


def test_secrets_belong_to_root_alone(host, mode_of):
    """Key and certificate are root's with mode 0600, and no file under /etc/buildkit/tls is open to others."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        assert mode_of(f"/etc/buildkit/tls/{name}") == "root 600"
    assert host.check_output("find /etc/buildkit/tls -type f -perm /077") == ""
    assert mode_of("/etc/buildkit/tls") == "root 700"


def test_the_daemons_key_never_left_its_host(builder, pki):
    """The controller has the daemon's certificate, but not its key."""
    directory = pki / "daemons" / builder.name
    assert sorted(path.name for path in directory.iterdir()) == ["ca.pem", "cert.pem"]


def test_openssl_accepts_the_daemons_certificate(builder, pki):
    """The served certificate is strictly valid for this server, at the address that clients dial."""
    client = pki / "clients" / "alice"
    shaken = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{builder.address}:1234", "-verify_ip", builder.address),
            *("-x509_strict", "-purpose", "sslserver", "-verify_return_error", "-CAfile", client / "ca.pem"),
            *("-cert", client / "cert.pem", "-key", client / "key.pem"),
        ],
        input="",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Verify return code: 0 (ok)" in shaken.stdout, shaken.stdout + shaken.stderr


def test_buildctl_builds(builder):
    """A client with its certificate builds with buildctl."""
    assert builder.build() == "hello\n"


def test_buildx_builds(host, builder, pki):
    """A client with its certificate builds with docker buildx, which runs without any Docker here."""
    builder.docker("exec", builder.name, "mkdir", "-p", "/srv/alice/context")
    builder.docker("cp", f"{pki}/clients/alice/.", f"{builder.name}:/srv/alice")
    host.check_output("printf 'FROM scratch\\nCOPY hello.txt /\\n' >/srv/alice/context/Dockerfile")
    host.check_output("echo hello >/srv/alice/context/hello.txt")
    buildx = "HOME=/srv/alice DOCKER_HOST=unix:///nowhere /usr/libexec/docker/cli-plugins/docker-buildx"
    files = "cacert=/srv/alice/ca.pem,cert=/srv/alice/cert.pem,key=/srv/alice/key.pem"
    try:
        host.check_output(f"{buildx} create --name remote --driver remote --driver-opt {files} {builder.endpoint}")
        host.check_output(
            f"{buildx} build --builder remote --no-cache --output type=local,dest=/srv/alice/out /srv/alice/context"
        )
        assert host.file("/srv/alice/out/hello.txt").content_string == "hello\n"
    finally:
        host.run("rm -rf /srv/alice")


def test_a_stranger_without_certificate_is_refused(builder, stranger):
    """buildctl with the CA, but without a certificate, gets no answer."""
    refused = builder.buildctl("debug", "workers", tls_dir=stranger(certificate=False))
    assert refused.returncode != 0
    assert "PLATFORMS" not in refused.stdout


def test_a_stranger_with_a_foreign_certificate_is_refused(builder, stranger):
    """buildctl with a certificate that it signed itself gets no answer."""
    refused = builder.buildctl("debug", "workers", tls_dir=stranger(certificate=True))
    assert refused.returncode != 0
    assert "PLATFORMS" not in refused.stdout


def test_plaintext_is_refused(builder):
    """Who speaks HTTP/2 without TLS gets no HTTP/2 settings frame back."""
    with socket.create_connection((builder.address, 1234), timeout=120) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        plain.settimeout(120)
        try:
            answer = plain.recv(64)
        except ConnectionResetError:
            answer = b""
    assert answer[3:4] != b"\x04"


def workers(builder):
    """Has buildctl list the workers; it gives up after 20 seconds, which is nobody's refusal, and is called again."""
    for _wait in range(10):
        listed = builder.buildctl("debug", "workers")
        if "deadline exceeded" not in listed.stderr:
            break
    return listed


def test_the_next_client_starts_a_stopped_daemon(host, builder):
    """systemd keeps the port, so a stopped daemon is started by whoever connects next."""
    host.check_output("systemctl stop buildkit.service")
    assert host.run("systemctl is-active buildkit.service").stdout.strip() == "inactive"
    listed = workers(builder)
    assert listed.returncode == 0, listed.stderr
    assert builder.build() == "hello\n"
    assert host.check_output("systemctl is-active buildkit.service") == "active"


def test_a_restart_does_not_refuse_clients(host, builder):
    """A client that connects while the daemon restarts waits and is served; whom the old one drops tries again."""
    before = host.check_output("systemctl show --property MainPID buildkit.service")
    host.check_output("systemctl restart --no-block buildkit.service")
    for _look in range(1000):
        listed = workers(builder)
        # BuildKit ends connections that it has taken and not served yet, and listens no more by then.
        if listed.returncode and "refused" not in listed.stderr:
            listed = workers(builder)
        assert listed.returncode == 0, listed.stderr
        if host.check_output("systemctl show --property MainPID buildkit.service") not in (before, "MainPID=0"):
            break
    assert host.check_output("systemctl show --property MainPID buildkit.service") != before
    assert workers(builder).returncode == 0


def test_a_unit_that_hit_its_start_limit_is_recovered(host, builder, playbook):
    """systemd closes the socket of a service that fails too often; the next run resets both."""
    # Too often within ten seconds, and a slow host needs longer. systemd would begin to count anew, and listen again.
    longer = "/run/systemd/system/buildkit.service.d"
    host.check_output(f"mkdir {longer} && printf '[Unit]\\nStartLimitIntervalSec=1d\\n' >{longer}/longer.conf")
    host.check_output("systemctl daemon-reload && mv /etc/buildkit/tls/current /etc/buildkit/tls/away")
    try:
        host.run("for attempt in $(seq 8); do systemctl restart buildkit.service; done")
    finally:
        host.check_output("mv /etc/buildkit/tls/away /etc/buildkit/tls/current")
        host.check_output(f"rm -r {longer} && systemctl daemon-reload")
    assert host.run("systemctl is-failed buildkit.socket").stdout.strip() == "failed"
    recovered = playbook("site", "--limit", builder.name)
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert host.check_output("systemctl is-system-running") == "running"
    assert builder.build() == "hello\n"
