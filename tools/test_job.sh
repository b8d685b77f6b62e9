#!/usr/bin/env bash
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs one job of `make test`. tools/test.sh prepares the environment and calls it; no two runs of a job at once.
# Usage: tools/test_job.sh JOB
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
checkout=$PWD
cache=$checkout/.cache
bed=$cache/test/bed.env

# The two generations of BuildKit, as variables for the tests and the molecule inventory.
obtain_buildkit() {
  [ -z "${BUILDKIT_OLD_VERSION:-}" ] || return 0
  local found generation
  for generation in 0.13 0.25; do
    found=$(python tools/buildkit_archive.py --generation "$generation" --install-runc)
    local code=$?
    if [ "$code" = 3 ] && [ "$generation" = 0.25 ]; then
      export BUILDKIT_ONE_GENERATION=yes # tools/test.sh says so at the end
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

# What the jobs with real builders share; its variables reach them in a file.
job_bed() {
  rm -f "$bed"
  obtain_buildkit && python tools/docker_engine.py start >/dev/null || return
  BUILDKIT_HOST_IMAGE=$(python tools/host_image.py) || return
  export BUILDKIT_HOST_IMAGE
  declare -p "${!BUILDKIT_@}" >"$bed"
}

# A copy of what git knows of: ansible-test wants a real path ending in ansible_collections/<namespace>/<name>, and asks
# git which files there are.
copied_tree() { # JOB
  local tree=$cache/trees/$1/ansible_collections/buildfarm/buildkit
  rm -rf "$tree" && mkdir -p "$tree" &&
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" &&
    git -C "$tree" init -q && git -C "$tree" add -A && echo "$tree"
}

# All of them, so that one run shows all there is to mend.
job_lint() {
  local tree failed=0
  tree=$(copied_tree lint) || return
  python -m ruff check . || failed=1
  python -m ruff format --check . || failed=1
  python -m mypy -p ansible_collections.buildfarm.buildkit.plugins || failed=1
  MYPYPATH=tools python -m mypy tools/*.py || failed=1
  vermin --quiet --no-tips --target=3.8- --violations \
    plugins/module_utils/_files.py plugins/module_utils/_deps.py plugins/module_utils/_pki plugins/module_utils/_host \
    plugins/modules/buildkit_c*.py plugins/modules/buildkit_{files,pki}.py plugins/modules/buildkitd_*.py \
    plugins/module_utils/_clients/{__init__,buildx,buildx_store,earthly,endpoints,errors,identity,platforms,programs,users}.py \
    plugins/modules/{buildx_builder,earthly_config}.py || failed=1
  python -m yamllint -s . || failed=1
  ansible-lint --offline -q || failed=1
  shellcheck tools/*.sh .ci/run molecule/*/*.sh || failed=1
  antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=dependent "$tree" || failed=1
  antsibull-changelog lint || failed=1
  return "$failed"
}

job_sanity() {
  local tree
  tree=$(copied_tree sanity) || return
  python tools/ansible_test_offline.py || return
  (cd "$tree" && ansible-test sanity --color yes --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')")
}

job_importer() {
  local importer=$cache/importer build=$cache/build tree
  tree=$(copied_tree importer) || return
  [ -x "$importer/bin/python" ] || python -m venv "$importer" || return
  tools/again.sh "$importer/bin/python" -m pip install -q --disable-pip-version-check galaxy-importer==0.4.44 || return
  rm -rf "$build" && mkdir -p "$build" &&
    ansible-galaxy collection build --output-path "$build" "$tree" &&
    ansible-galaxy collection install --offline --force -p "$build/installed" "$build"/*.tar.gz || return
  (cd "$build" && PATH="$importer/bin:$PATH" GALAXY_IMPORTER_CONFIG=$checkout/tests/galaxy-importer.cfg \
    "$importer/bin/python" -m galaxy_importer.main ./*.tar.gz) 2>&1 | tee "$build/importer.log"
  [ "${PIPESTATUS[0]}" = 0 ] && ! grep -E '^(ERROR|WARNING)' "$build/importer.log"
}

job_molecule() { # SCENARIO
  export MOLECULE_EPHEMERAL_DIRECTORY=$cache/molecule/$1
  rm -rf "$MOLECULE_EPHEMERAL_DIRECTORY"
  # shellcheck source=/dev/null
  [ ! -e "molecule/$1/environment.sh" ] || . "molecule/$1/environment.sh" || return
  COLUMNS=300 molecule -c molecule/config.yml test --scenario-name "$1" # whole lines, for those who read what failed
}

# shellcheck source=/dev/null
[ "$1" = bed ] || [ ! -e "$bed" ] || . "$bed" || exit
case $1 in
  bed) job_bed ;;
  lint) job_lint ;;
  unit) python -m pytest -q -n "${WORKERS:-0}" tests/unit ;;
  sanity) job_sanity ;;
  importer) job_importer ;;
  integration) python -m pytest -q tests/integration --ignore tests/integration/site ;;
  site) python -m pytest -q tests/integration/site ;;
  molecule-*) job_molecule "${1#molecule-}" ;;
  newest) tools/newest_ansible.sh ;;
  bench) python tests/bench/bench.py ;;
  *) echo "error: there is no job '$1'" >&2; exit 2 ;;
esac
