# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell scripts of a client bundle, for any POSIX shell; env.sh also for zsh.

``@NAME@`` stands for what :func:`render` puts there, which callers have quoted where a shell reads it.
"""

from __future__ import annotations

import re
import typing as t

_PLACE = re.compile(r"@([A-Z_]+)@")


def render(template: str, values: t.Mapping[str, str]) -> str:
    """Replace every ``@NAME@`` of a template.

    :raises KeyError: when there is no value for one.
    """
    return _PLACE.sub(lambda match: values[match.group(1)], template)


# dash and busybox do not tell a sourced file where it is, but Linux does: they hold it open while they read it.
ENV = r"""# Remote BuildKit pool @POOL@, client @CLIENT@. Use it with:  . /path/to/env.sh
# shellcheck shell=sh disable=SC3028,SC3054 # the bash and zsh forms are only evaluated there
case ${ZSH_ARGZERO:-$0} in
  env.sh | */env.sh) echo "env.sh: run so, it sets nothing in your shell; use it with:  . /path/to/env.sh" >&2 ;;
esac
if [ -n "${BASH_VERSION:-}" ]; then
  BUILDKIT_TLS_DIR=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
  BUILDKIT_TLS_DIR=$(eval 'zmodload zsh/parameter; set -- "${funcsourcetrace[@]}"; printf %s "${1%:*}"')
  BUILDKIT_TLS_DIR=$(CDPATH='' cd -- "$(dirname -- "$BUILDKIT_TLS_DIR")" && pwd)
else
  BUILDKIT_TLS_DIR=$PWD
  if [ -r /proc/self/stat ]; then
    read -r buildkit_pid buildkit_rest </proc/self/stat
    for buildkit_rest in "/proc/$buildkit_pid/fd"/*; do
      buildkit_rest=$(readlink "$buildkit_rest") || continue
      case $buildkit_rest in */env.sh) BUILDKIT_TLS_DIR=${buildkit_rest%/*} ;; esac
    done
    unset buildkit_pid buildkit_rest
  fi
fi
if [ ! -f "$BUILDKIT_TLS_DIR/bundle.json" ] || [ ! -x "$BUILDKIT_TLS_DIR/bin/buildctl" ]; then
  echo "env.sh: this shell does not tell where env.sh is; change into its directory first, then: . ./env.sh" >&2
  unset BUILDKIT_TLS_DIR
else
  [ -f "$BUILDKIT_TLS_DIR/key.pem" ] || echo "env.sh: put your private key into $BUILDKIT_TLS_DIR/key.pem" >&2
  export BUILDKIT_TLS_DIR
  # The builder that buildctl and nerdctl use, and all of them.
  export BUILDKIT_HOST=@FIRST_WORD@
  export BUILDKIT_HOSTS=@ALL@
  # buildctl by itself knows no variable for certificates; the one in bin/ adds them for these builders.
  case ":$PATH:" in
    *":$BUILDKIT_TLS_DIR/bin:"*) ;;
    *) export PATH="$BUILDKIT_TLS_DIR/bin:$PATH" ;;
  esac
  # docker build, docker buildx and docker compose, once setup-buildx.sh has run.
  if [ -f "${BUILDX_CONFIG:-${DOCKER_CONFIG:-${HOME:-}/.docker}/buildx}/instances/@BUILDER@" ]; then
    export BUILDX_BUILDER=@BUILDER@
  fi
fi
"""

BUILDCTL = r"""#!/bin/sh
# buildctl with the certificate of the pool @POOL@, for the builders of this pool alone.
# For every other address, and where a --tls option is given, it is buildctl as it is.
set -eu
# Somebody may have linked it into a directory of PATH.
self=$(readlink -f -- "$0" 2>/dev/null) || self=$0
dir=$(CDPATH='' cd -- "$(dirname -- "$self")/.." && pwd)

# The buildctl behind this one, and the wrapper of another pool that was not asked yet, which knows its own builders.
here=$(cd -- "$dir" && pwd -P)
asked=${BUILDKIT_WRAPPERS:-}:$here:
real=
other=
rest=$PATH:
while [ -n "$rest" ]; do
  candidate=${rest%%:*}/buildctl
  rest=${rest#*:}
  if [ -f "$candidate" ] && [ -x "$candidate" ]; then
    place=$(readlink -f -- "$candidate" 2>/dev/null) || place=$candidate
    place=$(CDPATH='' cd -- "$(dirname -- "$place")/.." && pwd -P)
    if [ ! -f "$place/bundle.json" ]; then
      real=${real:-$candidate}
    else
      case $asked in
        *":$place:"*) ;;
        *) other=${other:-$candidate} ;;
      esac
    fi
  fi
done
if [ -z "$real" ]; then
  echo "buildctl: there is no buildctl in PATH behind this wrapper; install BuildKit's client program" >&2
  exit 127
fi

address=${BUILDKIT_HOST:-}
own_tls=
take=
for argument in "$@"; do
  case $take in
    address) address=$argument take='' ; continue ;;
    other) take='' ; continue ;;
  esac
  case $argument in
    --addr | -addr) take=address ;;
    --addr=* | -addr=*) address=${argument#*=} ;;
    --tls* | -tls*) own_tls=yes other='' ; break ;;
    --timeout | -timeout | --log-format | -log-format) take=other ;;
    -*) ;;
    *) break ;;
  esac
done

server_name=
if [ -z "$own_tls" ]; then
  case $address in
@CASES@
    *) own_tls=none ;;
  esac
fi
if [ -n "$own_tls" ] && [ -n "$other" ]; then
  export BUILDKIT_WRAPPERS="$asked"
  exec "$other" "$@"
fi
unset BUILDKIT_WRAPPERS
[ -z "$own_tls" ] || exec "$real" "$@"
if [ ! -f "$dir/key.pem" ]; then
  echo "buildctl: $dir/key.pem is missing: put your private key there, mode 0600" >&2
  exit 1
fi
exec "$real" --tlsdir "$dir" ${server_name:+--tlsservername "$server_name"} "$@"
"""

# Shared by the scripts that speak to buildx.
_BUILDX = r"""
dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
state=${BUILDX_CONFIG:-${DOCKER_CONFIG:-${HOME:?is not set, and docker buildx keeps its builders there}/.docker}/buildx}

fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# BUILDX names the program, where neither "docker buildx" nor docker-buildx is the one to use.
buildx() {
  if [ -n "${BUILDX:-}" ]; then
    "$BUILDX" "$@"
  elif docker buildx version >/dev/null 2>&1; then
    docker buildx "$@"
  elif command -v docker-buildx >/dev/null 2>&1; then
    docker-buildx "$@"
  elif [ -x /usr/libexec/docker/cli-plugins/docker-buildx ]; then
    /usr/libexec/docker/cli-plugins/docker-buildx "$@"
  else
    fail "there is no docker buildx here; install it (Debian: docker-buildx), or name the program in BUILDX"
  fi
}

# Whether a builder, of which this is the file, uses the certificates of this directory.
is_ours() {
  stored=$(printf '%s' "$dir" | sed 's/&/\\u0026/g; s/</\\u003c/g; s/>/\\u003e/g') # as buildx writes it in JSON
  [ -f "$1" ] && grep -Fq "\"cacert\":\"$stored/ca.pem\"" "$1"
}
"""

SETUP_BUILDX = (
    r"""#!/bin/sh
# Make the builders of the pool @POOL@ for docker buildx. Run it again after each new bundle; it changes what differs.
set -eu
"""
    + _BUILDX
    + r"""
case $dir in
  *[,\"\\]*) fail "docker buildx cannot use paths with a comma, quote or backslash; move $dir elsewhere" ;;
esac
[ -f "$dir/key.pem" ] || fail "$dir/key.pem is missing: put your private key there, mode 0600"
[ ! -e "$state/buildkitd.default.toml" ] ||
  fail "docker buildx makes no remote builder while there is $state/buildkitd.default.toml; move it away and try again"
buildx version >/dev/null || fail "running docker buildx failed; name the program in BUILDX if it is another one"

# See to it that the builder $1 can be changed into what it shall be. The others are its nodes in their order, each with
# its address and + if it has platforms. buildx bears no address twice, not even for a moment, cannot take off the last
# node and keeps platforms that a node has no more; so the builder is made anew where it does more than grow.
builder() {
  builder=$1
  shift
  file=$state/instances/$builder
  [ -f "$file" ] || return 0
  grep -q '"Driver":"remote"' "$file" ||
    fail "there is a builder $builder with another driver; rename it, or remove it with: docker buildx rm $builder"
  place=$(nodes | sed -n 's/.*"cacert":"\([^"]*\)\/ca\.pem".*/\1/p' | head -n 1 |
    sed 's/\\u0026/\&/g; s/\\u003c/</g; s/\\u003e/>/g')
  if [ -f "$place/bundle.json" ] && ! grep -q '"pool": "@POOL@"' "$place/bundle.json"; then
    fail "there is a builder $builder already, of the bundle in $place, which is of another pool"
  fi
  while IFS= read -r known; do
    if [ "${1:-}" != "$known" ]; then
      buildx rm "$builder" >/dev/null 2>&1 || fail "removing the builder $builder, to make it anew, failed"
      return 0
    fi
    shift
  done <<END
$(nodes | sed -n -e 's/^"Name":"\([^"]*\)","Endpoint":"\([^"]*\)","Platforms":\[$/\1 \2 +/p' -e t \
    -e 's/^"Name":"\([^"]*\)","Endpoint":"\([^"]*\)",.*/\1 \2 -/p')
END
}

# The file of the builder, with each node on a line.
nodes() {
  tr '{' '\n' <"$file"
}

# Make or refresh a node: builder, node, platforms (or nothing), address, the name in its certificate (or nothing).
node() {
  file=$state/instances/$1
  append=
  if [ -f "$file" ] && ! nodes | grep -Fq "\"Name\":\"$2\",\"Endpoint\":"; then
    append=--append
  fi
  options="cacert=$dir/ca.pem,cert=$dir/cert.pem,key=$dir/key.pem${5:+,servername=$5}"
  said=$(buildx create --name "$1" --node "$2" --driver remote ${append:+"$append"} ${3:+--platform "$3"} \
    --driver-opt "$options" "$4" 2>&1) || fail "making the node $2 of the builder $1 failed: $said"
}

@NODES@

# Those of hosts that left the pool, or need none of their own any more.
builders="@BUILDERS@"
for file in "$state/instances/@POOL@-"*; do
  case " $builders " in
    *" ${file##*/} "*) ;;
    *) ! is_ours "$file" || buildx rm "${file##*/}" >/dev/null 2>&1 || fail "removing the builder ${file##*/} failed" ;;
  esac
done

echo "These builders are ready: $builders"
echo "Use one: docker buildx build --builder @BUILDER@ .  After '. $dir/env.sh' docker build and compose use it too."
"""
)

REMOVE_BUILDX = (
    r"""#!/bin/sh
# Remove every docker buildx builder that uses the certificates of this directory. Nothing on the builders changes.
set -eu
"""
    + _BUILDX
    + r"""
found=
for file in "$state/instances"/*; do
  if is_ours "$file"; then
    found=yes
    buildx rm "${file##*/}"
  fi
done
[ -n "$found" ] || echo "No builder uses the certificates in $dir."
"""
)

# What a daemon sends first over HTTP/2 is its SETTINGS frame, and only to those it accepts; nothing else tells
# accepted from refused for sure, since with TLS 1.3 the handshake ends before the daemon has seen the certificate.
VERIFY = r"""#!/bin/sh
# Prove the builders of the pool @POOL@ from here: each accepts this client, refuses strangers, and builds.
set -eu
dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
command -v openssl >/dev/null 2>&1 || { echo "verify.sh: openssl is needed" >&2; exit 1; }
[ -f "$dir/key.pem" ] || { echo "verify.sh: $dir/key.pem is missing: put your private key there" >&2; exit 1; }
openssl x509 -in "$dir/cert.pem" -noout -checkend 0 >/dev/null ||
  { echo "verify.sh: the certificate ended: $(openssl x509 -in "$dir/cert.pem" -noout -enddate)" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# How long a builder may take to answer.
seconds=${VERIFY_SECONDS:-30}

limited() {
  if command -v timeout >/dev/null 2>&1; then
    timeout "$seconds" "$@"
  else
    "$@"
  fi
}

# How many bytes of HTTP/2 a builder answers. $1: host and port; $2: dns or ip; $3: that name; then options of openssl.
answer() {
  address=$1 kind=$2 name=$3
  shift 3
  rm -f "$work/answered"
  case $kind in
    ip) set -- -verify_ip "$name" "$@" ;;
    *) set -- -servername "$name" -verify_hostname "$name" "$@" ;;
  esac
  {
    printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\000\000\000\004\000\000\000\000\000'
    # openssl ends with its input.
    waited=0
    while [ ! -e "$work/answered" ] && [ "$waited" -lt "$seconds" ]; do
      sleep 1
      waited=$((waited + 1))
    done
  } | limited openssl s_client -quiet -no_ign_eof -connect "$address" -alpn h2 -CAfile "$dir/ca.pem" \
    -verify_return_error "$@" 2>"$work/log" | {
    head -c 9 | wc -c | tr -d ' '
    : >"$work/answered"
  }
}

# Why openssl ended.
why() {
  said=$(grep -i -e 'verify error' -e error -e errno "$work/log" | head -n 1)
  echo "${said:-it does not answer}"
}

check() {
  endpoint=$1
  shift
  if [ "$(answer "$@" -cert "$dir/cert.pem" -key "$dir/key.pem")" != 9 ]; then
    echo "$endpoint: FAILED, it does not accept this client: $(why)"
    failed=1
    return
  fi
  if [ "$(answer "$@")" = 9 ]; then
    echo "$endpoint: FAILED, it accepts strangers without a certificate"
    failed=1
    return
  fi
  said="accepts this client, refuses strangers"
  if "$dir/bin/buildctl" --version >/dev/null 2>&1; then
    printf 'FROM scratch\nCOPY hello.txt /\n' >"$work/Dockerfile"
    echo hello >"$work/hello.txt"
    rm -rf "$work/out"
    if ! "$dir/bin/buildctl" --addr "$endpoint" build --no-cache --frontend dockerfile.v0 --local context="$work" \
      --local dockerfile="$work" --output "type=local,dest=$work/out" >"$work/log" 2>&1 ||
      [ ! -f "$work/out/hello.txt" ]
    then
      echo "$endpoint: FAILED, it $said, and does not build: $(tail -n 1 "$work/log")"
      failed=1
      return
    fi
    said="$said, builds"
  else
    said="$said (there is no buildctl here to build with)"
  fi
  echo "$endpoint: ok, it $said"
}

@CHECKS@

echo "This client's certificate: $(openssl x509 -in "$dir/cert.pem" -noout -enddate)"
exit "$failed"
"""

EARTHLY = r"""#!/bin/sh
# Print the part of Earthly's or EarthBuild's config.yml (~/.earthly/, ~/.earth/) that uses this builder.
# Only for a builder that runs their own daemon: they do not build on plain BuildKit.
set -eu
dir=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
quoted=$(printf '%s' "$dir" | sed "s/'/''/g")
cat <<END
global:
  buildkit_host: "@FIRST@"
  tls_enabled: true
  tlsca: '$quoted/ca.pem'
  tlscert: '$quoted/cert.pem'
  tlskey: '$quoted/key.pem'
END
"""

COMPOSE = r"""#!/bin/sh
# docker compose build on the pool @POOL@:  compose.sh [option...] [service...]
# A remote builder's images go to a registry (--push), or with a Docker engine here into that.
set -eu
dir=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
"$dir/setup-buildx.sh" >/dev/null
BUILDX_BUILDER=@BUILDER@ exec docker compose build "$@"
"""
