# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder without any init system."""

from __future__ import annotations

import json

testinfra_hosts = ["ansible://buildkit_daemons"]
PID_FILE = "/run/buildkit/buildkitd.pid"


def test_there_is_no_init_system_to_help(host):
    """The scenario is what it says: nobody on the host would start the daemon but the role."""
    assert host.check_output("ps -o args= -p 1").endswith("idle")
    assert not host.file("/run/systemd/system").exists


def test_pid_file_and_log_are_roots_alone(mode_of):
    """Nobody but root can read the log or point the pid file at another process."""
    assert mode_of("/run/buildkit") == "root 700"
    assert mode_of(PID_FILE) == "root 600"
    assert mode_of("/var/log/buildkit") == "root 700"
    assert mode_of("/var/log/buildkit/buildkitd.log") == "root 600"


def test_the_pid_file_names_the_only_buildkitd(host):
    """The recorded process is the daemon that runs."""
    recorded = json.loads(host.file(PID_FILE).content_string)
    assert host.check_output("pgrep -x buildkitd") == str(recorded["pid"])


def test_buildctl_builds(builder):
    """A client with its certificate builds with buildctl."""
    assert builder.build() == "hello\n"


def test_a_stranger_is_refused(builder, stranger):
    """buildctl with a certificate that it signed itself gets no answer."""
    refused = builder.buildctl("debug", "workers", tls_dir=stranger(certificate=True))
    assert refused.returncode != 0
    assert "PLATFORMS" not in refused.stdout


def test_a_daemon_that_died_is_started_again(host, builder, playbook):
    """The next run starts the daemon, and does not mistake its old pid file for a running one."""
    host.check_output("pkill -KILL -x buildkitd")
    started = playbook("site", "--limit", builder.name)
    assert started.returncode == 0, started.stdout + started.stderr
    assert builder.build() == "hello\n"


def test_a_changed_configuration_restarts_it_once_and_says_why(host, builder, playbook):
    """A new setting is a reason to restart, named in the task; the same setting again is none."""
    before = host.check_output("pgrep -x buildkitd")
    wish = ("--extra-vars", json.dumps({"buildkitd_config": {"debug": True}}))
    changed = playbook("site", "--limit", builder.name, *wish)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert "Run buildkitd (configuration changed)" in changed.stdout
    after = host.check_output("pgrep -x buildkitd")
    assert after != before
    again = playbook("site", "--limit", builder.name, *wish)
    assert "changed=0" in again.stdout.partition("PLAY RECAP")[2], again.stdout
    assert host.check_output("pgrep -x buildkitd") == after


def test_a_foreign_process_is_not_killed(host, builder, playbook):
    """When the recorded number belongs to another process by now, that process lives on."""
    recorded = json.loads(host.file(PID_FILE).content_string)
    host.check_output("pkill -KILL -x buildkitd")
    stranger = host.check_output("sh -c 'sleep 600 >/dev/null 2>&1 & echo $!'")
    forged = json.dumps({**recorded, "pid": int(stranger)})
    host.check_output(f"echo '{forged}' >{PID_FILE}")
    removed = playbook("remove", "--limit", builder.name)
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert host.run(f"kill -0 {stranger}").rc == 0
    assert not host.file(PID_FILE).exists
    assert host.file("/var/lib/buildkit/cache.db").exists
