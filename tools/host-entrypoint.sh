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

# systemd and runc want one writable cgroup v2 tree. In the container's own cgroup namespace this mount
# shows the container's part alone, whichever version the machine uses.
umount -R /sys/fs/cgroup
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
