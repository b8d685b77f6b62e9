#!/usr/bin/env bash
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes .venv with what a requirements file names, and the link by which Ansible finds this checkout as the collection.
# Usage: tools/python_env.sh REQUIREMENTS
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=$1

# ansible-core 2.19 needs Python 3.11 or newer on the controller.
usable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
find_python() {
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

collections=.cache/collections/ansible_collections/buildfarm
mkdir -p "$collections"
ln -sfn ../../../.. "$collections/buildkit"

python=$(find_python) || {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: Python 3.11 or newer with its venv module is needed (Debian, Ubuntu: apt-get install python3-venv)" >&2
    exit 1
  fi
  echo "Installing Python with apt-get ..." >&2
  export DEBIAN_FRONTEND=noninteractive
  tools/again.sh sh -c 'apt-get update -qq && apt-get -o DPkg::Lock::Timeout=300 install -y -qq python3 python3-venv' >&2
  python=$(find_python) || {
    echo "error: this system's Python is older than 3.11; install a newer one" >&2
    exit 1
  }
}

wanted=$(cat "$requirements" requirements.txt | sha256sum | cut -d ' ' -f 1)
stamp=.venv/$(basename "$requirements").sha256
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
# A virtual environment that lost its interpreter cannot be repaired.
.venv/bin/python -c '' 2>/dev/null || rm -rf .venv
echo "Setting up the Python environment of $requirements in .venv ..." >&2
[ -d .venv ] || "$python" -m venv .venv
progress=off
[ -t 2 ] && progress=on
tools/again.sh .venv/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar "$progress" -r "$requirements" &
pip=$!
seconds=0
while kill -0 "$pip" 2>/dev/null; do
  sleep 1
  seconds=$((seconds + 1))
  [ $((seconds % 10)) != 0 ] || echo "  pip is installing: $seconds s" >&2
done
wait "$pip"
printf '%s\n' "$wanted" >"$stamp"
echo "Setting up the Python environment: ok ($seconds s)" >&2
