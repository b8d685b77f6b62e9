#!/bin/sh
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# First process of a test host. Undoes what a container engine does to /proc and /sys/fs/cgroup, so that
# the same image serves a host with systemd (command "systemd"), a host without an init system
# (command "idle": waits, reaps orphans, ends at once when asked) and any other command.
set -eu

# Engines mask files under /proc by mounts on top of them; as long as one is there, the kernel lets nobody
# mount a /proc of their own, which every build step needs. Deepest first.
awk '$5 ~ "^/proc/" { print $5 }' /proc/self/mountinfo | sort -r | while read -r masked; do
    umount "$masked"
done

umount -R /sys/fs/cgroup

# On a machine with cgroup v1 or both, the controllers of memory, processors and processes belong to v1, and a v2 tree
# limits nothing. HOST_CGROUPS=machine is for hosts on which limits shall hold: they are then as the machine is.
if [ "${HOST_CGROUPS:-v2}" = machine ] && grep -q '^[0-9]*:.*memory' /proc/self/cgroup; then
    mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs /sys/fs/cgroup
    awk -F: '$2 != "" && $2 !~ "name=" { print $2 }' /proc/self/cgroup | while read -r controllers; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "rw,nosuid,nodev,noexec,$controllers" cgroup "/sys/fs/cgroup/$controllers"
    done
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o rw,nosuid,nodev,noexec,none,name=systemd cgroup /sys/fs/cgroup/systemd
    # systemd 257 refuses cgroup v1 without these words.
    exec /lib/systemd/systemd systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
fi

# systemd and runc want one writable cgroup v2 tree. In the container's own cgroup namespace this mount
# shows the container's part alone, whichever version the machine uses.
mount -t cgroup2 -o rw,nosuid,nodev,noexec cgroup2 /sys/fs/cgroup

if [ "${1:-systemd}" = systemd ]; then
    exec /lib/systemd/systemd
fi

# Without systemd nobody else makes room: cgroup v2 shares out resources only below a group that holds no
# processes of its own.
mkdir -p /sys/fs/cgroup/init
echo $$ >/sys/fs/cgroup/init/cgroup.procs

if [ "$1" = idle ]; then
    trap 'exit 0' TERM INT
    while :; do
        sleep 3600 &
        wait $! || true
    done
fi
exec "$@"
