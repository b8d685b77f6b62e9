#!/usr/bin/env bash
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs the parts of `make test`, all or those named, and says at the end which passed and how long each took.
# Usage: tools/test.sh [lint|unit|sanity|importer|integration|molecule|newest|bench]...
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
checkout=$PWD
cache=$checkout/.cache
parts=("$@")
[ $# != 0 ] || parts=(lint unit sanity importer integration molecule newest)

say() { printf '\n==> %s\n' "$*"; }

need_root() {
  [ "$(id -u)" = 0 ] || { echo "error: $1 runs real builders, and needs root" >&2; return 1; }
}

# A package that brings a service must not start it: the tests run their own.
apt_install() { # PROGRAM PACKAGE [OPTION...]
  command -v "$1" >/dev/null && return
  echo "Installing $2 with apt-get ..."
  local policy=/usr/sbin/policy-rc.d ours=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=yes; } || return
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${@:2}" >/dev/null
  local code=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$code"
}

# The two generations of BuildKit, as variables for the tests and the molecule inventory.
one_generation=
obtain_buildkit() {
  [ -z "${BUILDKIT_OLD_VERSION:-}" ] || return 0
  local found generation
  for generation in 0.13 0.25; do
    found=$(python tools/buildkit_archive.py --generation "$generation" --install-runc)
    local code=$?
    if [ "$code" = 3 ] && [ "$generation" = 0.25 ]; then
      one_generation='!!! BuildKit 0.25 could not be had: all this ran WITHOUT the generation that drains and offers ALPN.'
      printf '\n%s\n\n' "$one_generation"
      export BUILDKIT_NEW_VERSION=$BUILDKIT_OLD_VERSION BUILDKIT_NEW_ARCHIVE=$BUILDKIT_OLD_ARCHIVE
      export BUILDKIT_NEW_SHA256=$BUILDKIT_OLD_SHA256
      return 0
    fi
    [ "$code" = 0 ] || return "$code"
    field() { python -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$found" "$1"; }
    local name=OLD
    [ "$generation" = 0.13 ] || name=NEW
    export "BUILDKIT_${name}_VERSION=$(field version)" "BUILDKIT_${name}_ARCHIVE=$(field archive)"
    export "BUILDKIT_${name}_SHA256=$(field sha256)"
  done
}

# Stopped at the end, unless it ran before.
docker_started=
start_docker() {
  docker info >/dev/null 2>&1 || docker_started=yes
  python tools/docker_engine.py start >/dev/null
}

# A copy of what git knows of: ansible-test wants a real path ending in ansible_collections/<namespace>/<name>, and asks
# git which files there are.
copied_tree() {
  local tree=$cache/sanity/ansible_collections/buildfarm/buildkit
  rm -rf "$tree" && mkdir -p "$tree" &&
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" &&
    git -C "$tree" init -q && git -C "$tree" add -A && echo "$tree"
}

part_lint() {
  python -m ruff check . && python -m ruff format --check . &&
    python -m mypy -p ansible_collections.buildfarm.buildkit.plugins &&
    MYPYPATH=tools python -m mypy tools/*.py &&
    vermin --quiet --no-tips --target=3.8- --violations \
      plugins/module_utils/_files.py plugins/module_utils/_deps.py plugins/module_utils/_pki plugins/module_utils/_host \
      plugins/modules/buildkit_c*.py plugins/modules/buildkit_{files,pki}.py plugins/modules/buildkitd_*.py \
      plugins/module_utils/_clients/{__init__,buildx,buildx_store,earthly,endpoints,errors,identity,platforms,programs,users}.py \
      plugins/modules/{buildx_builder,earthly_config}.py &&
    python -m yamllint -s . && ansible-lint --offline -q &&
    apt_install shellcheck shellcheck && shellcheck tools/*.sh .ci/run &&
    antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=dependent "$(copied_tree)" &&
    antsibull-changelog lint
}

part_unit() {
  apt_install readelf binutils && apt_install openssl openssl && apt_install shellcheck shellcheck &&
    apt_install ssh-keygen openssh-client || return
  python -m pytest -q -n 2 tests/unit
}

part_sanity() {
  apt_install shellcheck shellcheck || return
  local tree
  tree=$(copied_tree) || return
  python tools/ansible_test_offline.py || return
  (cd "$tree" && ansible-test sanity --color yes --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')")
}

part_importer() {
  local importer=$cache/importer build=$cache/build
  [ -x "$importer/bin/python" ] || python -m venv "$importer" || return
  "$importer/bin/python" -m pip install -q --disable-pip-version-check galaxy-importer==0.4.44 || return
  rm -rf "$build" && mkdir -p "$build" &&
    ansible-galaxy collection build --output-path "$build" "$(copied_tree)" &&
    ansible-galaxy collection install --offline --force -p "$build/installed" "$build"/*.tar.gz || return
  (cd "$build" && PATH="$importer/bin:$PATH" GALAXY_IMPORTER_CONFIG=$checkout/tests/galaxy-importer.cfg \
    "$importer/bin/python" -m galaxy_importer.main ./*.tar.gz) 2>&1 | tee "$build/importer.log"
  [ "${PIPESTATUS[0]}" = 0 ] && ! grep -E '^(ERROR|WARNING)' "$build/importer.log"
}

part_integration() {
  need_root "make integration" && obtain_buildkit && start_docker || return
  apt_install ssh openssh-client && apt_install sshd openssh-server && apt_install podman podman &&
    apt_install openssl openssl && apt_install haproxy haproxy && apt_install nginx nginx-light || return
  # What it recommends would let the whole machine run foreign programs.
  command -v qemu-aarch64 >/dev/null || apt_install qemu-aarch64-static qemu-user-static --no-install-recommends || return
  python -m pytest -q tests/integration
}

part_molecule() {
  need_root "make molecule" && obtain_buildkit && start_docker || return
  BUILDKIT_HOST_IMAGE=$(python tools/host_image.py) || return
  export BUILDKIT_HOST_IMAGE MOLECULE_EPHEMERAL_DIRECTORY=$cache/molecule
  local scenario failed=0
  for scenario in $(cd molecule && dirname -- */molecule.yml); do
    rm -rf "$MOLECULE_EPHEMERAL_DIRECTORY"
    say "molecule: $scenario"
    molecule -c molecule/config.yml test --scenario-name "$scenario" || failed=1
  done
  return "$failed"
}

part_newest() {
  need_root "make newest" && obtain_buildkit && start_docker && tools/newest_ansible.sh
}

part_bench() {
  need_root "make bench" && obtain_buildkit && start_docker || return
  BUILDKIT_HOST_IMAGE=$(python tools/host_image.py) || return
  export BUILDKIT_HOST_IMAGE
  python tests/bench/bench.py
}

tools/python_env.sh requirements-test.txt || exit 1
export PATH=$checkout/.venv/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$cache/collections ANSIBLE_HOME=$cache/ansible PYTHONPATH=$cache/collections
export ANSIBLE_LOCALHOST_WARNING=false
export HYPOTHESIS_STORAGE_DIRECTORY=$cache/hypothesis

run_part() {
  case $1 in
    lint) part_lint ;;
    unit) part_unit ;;
    sanity) part_sanity ;;
    importer) part_importer ;;
    integration) part_integration ;;
    molecule) part_molecule ;;
    newest) part_newest ;;
    bench) part_bench ;;
    *) echo "error: there is no part '$1'" >&2; return 2 ;;
  esac
}

results=() status=0
for part in "${parts[@]}"; do
  say "$part"
  began=$SECONDS
  if run_part "$part"; then
    results+=("$part: ok ($((SECONDS - began)) s)")
  else
    results+=("$part: FAILED ($((SECONDS - began)) s)")
    status=1
  fi
done
[ -z "$docker_started" ] || python tools/docker_engine.py stop >/dev/null
printf '\n'
printf '%s\n' "${results[@]}"
[ -z "$one_generation" ] || printf '\n%s\n' "$one_generation"
exit $status
