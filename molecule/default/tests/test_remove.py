# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook remove takes everything away but the cache, and the cache when told to."""

from __future__ import annotations

testinfra_hosts = ["ansible://buildkit_daemons"]
LEFT = "/etc/buildkit/tls /etc/buildkit/buildkitd.toml /usr/local/lib/buildkit /usr/local/bin/buildctl /run/buildkit"


def test_remove_keeps_the_cache_and_then_purges_it(host, builder, playbook):
    """Nothing of ours is left on the host but the cache, and in the end not even that; a second run changes nothing."""
    predicted = playbook("remove", "--limit", builder.name, "--check")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    assert host.check_output("systemctl is-active buildkit.service") == "active"
    removed = playbook("remove", "--limit", builder.name)
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert host.check_output("systemctl is-system-running") == "running"
    assert host.run(f"ls -d {LEFT}").stdout == ""
    assert host.run("systemctl cat buildkit.service").rc != 0
    assert host.run("pgrep -x buildkitd").rc != 0
    assert host.file("/var/lib/buildkit/cache.db").exists
    again = playbook("remove", "--limit", builder.name)
    assert again.returncode == 0
    assert "changed=0" in again.stdout.partition("PLAY RECAP")[2]
    purged = playbook("remove", "--limit", builder.name, "--extra-vars", "buildkitd_purge_cache=true")
    assert purged.returncode == 0, purged.stdout + purged.stderr
    assert not host.file("/var/lib/buildkit/cache.db").exists
