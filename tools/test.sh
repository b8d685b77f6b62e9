#!/usr/bin/env bash
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs the parts of `make test`, all or those named, and says at the end which passed and how long each took. What does
# not disturb one another runs side by side (tools/run_jobs.py), each with its output in .cache/test/.
# Usage: tools/test.sh [lint|unit|sanity|importer|integration|molecule|molecule-SCENARIO|newest|bench]...
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
cache=$PWD/.cache
bed=$cache/test/bed.env

# What jobs need of this machine: job, program, package. All that is missing is installed before the first job begins.
programs='
lint git git
lint shellcheck shellcheck
unit openssl openssl
unit readelf binutils
unit shellcheck shellcheck
unit ssh-keygen openssh-client
sanity git git
sanity shellcheck shellcheck
importer git git
integration openssl openssl
integration ssh openssh-client
integration sshd openssh-server
integration podman podman
integration haproxy haproxy
integration nginx nginx-light
integration qemu-aarch64-static qemu-user-static
site ssh openssh-client
molecule openssl openssl
molecule ssh openssh-client
molecule ssh openssh-client
'

# A package that brings a service must not start it: the tests run their own.
install_programs() { # JOB...
  local job wanted program package missing=() emulator=
  for job in "$@"; do
    while read -r wanted program package; do
      if [ "${job%%-*}" != "$wanted" ] || command -v "$program" "${program%-static}" >/dev/null; then continue; fi
      if [ "$package" = qemu-user-static ]; then emulator=$package; else missing+=("$package"); fi
    done <<<"$programs"
  done
  [ -n "${missing[*]}$emulator" ] || return 0
  echo "Installing ${missing[*]} $emulator with apt-get ..."
  local policy=/usr/sbin/policy-rc.d ours=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=yes; } || return
  # What the emulator recommends would let the whole machine run foreign programs.
  from_mirror() {
    apt update
    { [ ${#missing[@]} = 0 ] || apt install -y "${missing[@]}"; } &&
      { [ -z "$emulator" ] || apt install -y --no-install-recommends "$emulator"; }
  }
  from_mirror || { sleep 10 && from_mirror; }
  local code=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$code"
}

apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >/dev/null
}

# The jobs of a part; those with @bed need root, Docker and BuildKit.
jobs_of() { # PART
  case $1 in
    lint | unit | sanity | importer) echo "$1" ;;
    integration) printf '%s\n' integration@bed site@bed ;;
    molecule) dirname -- molecule/*/molecule.yml | sed 's|molecule/|molecule-|; s|$|@bed|' ;;
    newest | bench | molecule-*) echo "$1@bed" ;;
    *) echo "error: there is no part '$1'" >&2; return 2 ;;
  esac
}

export PIP_RETRIES=10 PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-60} # an index that stutters fails nothing
tools/python_env.sh requirements-test.txt || exit 1
export PATH=$PWD/.venv/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$cache/collections ANSIBLE_HOME=$cache/ansible PYTHONPATH=$cache/collections
export ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_FORCE_COLOR=false # tests read what Ansible prints
export HYPOTHESIS_STORAGE_DIRECTORY=$cache/hypothesis

# Lint first, since it is what fails most; then the longest, so that the lanes end together.
parts=("$@")
[ $# != 0 ] || parts=(lint molecule integration unit newest sanity importer)
jobs=()
for part in "${parts[@]}"; do
  found=$(jobs_of "$part") || exit
  mapfile -t -O ${#jobs[@]} jobs <<<"$found"
done

rm -rf "$bed"
if [[ ${jobs[*]} = *@bed* ]]; then
  [ "$(id -u)" = 0 ] || { echo "error: ${parts[*]} runs real builders, and needs root" >&2; exit 1; }
  jobs=(bed "${jobs[@]}")
  # Stopped at the end, unless it ran before.
  docker info >/dev/null 2>&1 || trap 'python tools/docker_engine.py stop >/dev/null' EXIT
fi
install_programs "${jobs[@]%@*}" || exit

# Waiting for daemons and time-outs leaves room for one job more than there are processors.
lanes=${TEST_LANES:-$(($(nproc) + 1))}
if [ ${#jobs[@]} = 1 ]; then
  WORKERS=auto tools/test_job.sh "${jobs[0]}"
else
  python tools/run_jobs.py --lanes "$lanes" "$cache/test" tools/test_job.sh "${jobs[@]}"
fi
status=$?
! grep -qs BUILDKIT_ONE_GENERATION= "$bed" ||
  printf '\n!!! BuildKit 0.25 could not be had: all this ran WITHOUT the generation that drains and offers ALPN.\n'
exit $status
