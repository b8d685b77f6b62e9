#!/bin/sh
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Entry point of the images that stand in for earthly/buildkitd and earthbuild/buildkitd in the tests
# (buildkit_image.py). It turns the variables that those document into a buildkitd.toml, as their entry point does, and
# runs its arguments. Build steps share the container's network: NETWORK_MODE and the variables of CNI change nothing.
set -eu

tmp=${EARTHLY_TMP_DIR:?} toml=/etc/buildkitd.toml

fail() {
    echo "entrypoint: $*" >&2
    exit 1
}

number() { # NAME VALUE
    case $2 in
        '' | *[!0-9]*) fail "$1 is '$2', which is no number" ;;
    esac
}

# Overlays on an overlay: the kernel refuses them, and BuildKit would copy every layer instead.
mkdir -p "$tmp/buildkit"
kind=$(awk -v wanted="$tmp" '
    { at = $2 == "/" ? "" : $2 }
    index(wanted "/", at "/") == 1 && length(at) >= longest { longest = length(at); kind = $3 }
    END { print kind }' /proc/mounts)
[ "$kind" != overlay ] || fail "$tmp is on an overlay. Mount a volume there"

for name in BUILDKIT_MAX_PARALLELISM CACHE_SIZE_MB CACHE_SIZE_PCT CACHE_KEEP_DURATION; do
    eval "number $name \"\${$name:-0}\""
done

# All in MB. None given: 55 % of the disk, but at most the larger of 10 % and 20 GB. Both given: the smaller one.
# shellcheck disable=SC2046 # two words are wanted
set -- $(df -Pm "$tmp" | awk 'NR == 2 { print $2 }') "$@"
disk=$1
shift
size=${CACHE_SIZE_MB:-0}
share=$((disk * ${CACHE_SIZE_PCT:-0} / 100))
if [ "$size" = 0 ] && [ "$share" = 0 ]; then
    size=$((disk / 10 > 20480 ? disk / 10 : 20480))
    share=$((disk * 55 / 100))
fi
[ "$size" != 0 ] || size=$share
[ "$share" = 0 ] || [ "$share" -ge "$size" ] || size=$share

{
    cat <<EOF
debug = ${BUILDKIT_DEBUG:-false}
root = "$tmp/buildkit"
insecure-entitlements = ["security.insecure"]

[worker.oci]
enabled = true
max-parallelism = ${BUILDKIT_MAX_PARALLELISM:-20}
gc = true

[[worker.oci.gcpolicy]]
all = true
keepBytes = $((size * 1000000))
keepDuration = ${CACHE_KEEP_DURATION:-0}

[worker.containerd]
enabled = false

[grpc]
EOF
    if [ "${BUILDKIT_TCP_TRANSPORT_ENABLED:-false}" = true ]; then
        echo 'address = ["tcp://0.0.0.0:8372"]'
    else
        echo 'address = ["unix:///run/buildkit/buildkitd.sock"]'
    fi
    if [ "${BUILDKIT_TLS_ENABLED:-false}" = true ]; then
        printf '[grpc.tls]\ncert = "/etc/cert.pem"\nkey = "/etc/key.pem"\nca = "/etc/ca.pem"\n'
    fi
    printf '%s\n' "${EARTHLY_ADDITIONAL_BUILDKIT_CONFIG:-}"
} >$toml

exec "$@"
