#!/usr/bin/env bash
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs units, the sanity tests that differ, and one `site` run with the newest ansible-core, in a container of the test
# hosts' image: Debian trixie with Python 3.13. Wants the BUILDKIT_* variables of tools/test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
image=$(python tools/host_image.py)
name=buildfarm-newest
trap 'docker rm --force --volumes "$name" >/dev/null 2>&1' EXIT
docker rm --force --volumes "$name" >/dev/null 2>&1 || true

# The machine's own settings for reaching the package index, if it has any.
index=()
for variable in PIP_RETRIES PIP_DEFAULT_TIMEOUT PIP_INDEX_URL PIP_CERT PIP_TRUSTED_HOST SSL_CERT_FILE HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [ -z "${!variable:-}" ] || index+=(--env "$variable")
done
[ ! -f /etc/pip.conf ] || index+=(--volume /etc/pip.conf:/etc/pip.conf:ro)

# The flags stand in for --privileged, as in molecule/shared/create.yml.
docker run --detach --name "$name" --network host --cap-add ALL --cap-drop SYS_RESOURCE \
  --security-opt seccomp=unconfined --security-opt apparmor=unconfined --cgroupns private \
  --volume /var/lib/buildkit --volume /etc/ssl/certs:/etc/ssl/certs:ro "${index[@]}" \
  --volume "$(dirname "$BUILDKIT_NEW_ARCHIVE"):/archive:ro" "$image" idle >/dev/null

# What git knows of; other parts of `make test` write into the checkout meanwhile.
tree=/collections/ansible_collections/buildfarm/buildkit
docker exec "$name" mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create |
  docker exec -i "$name" tar --extract --directory "$tree"

docker exec -i --env "archive=/archive/$(basename "$BUILDKIT_NEW_ARCHIVE")" --env "sha256=$BUILDKIT_NEW_SHA256" \
  --env "version=$BUILDKIT_NEW_VERSION" "$name" bash -s <<'INSIDE'
set -euo pipefail
echo "Setting up the newest ansible-core ..."
python3 -m venv /venv
tree=/collections/ansible_collections/buildfarm/buildkit
"$tree/tools/again.sh" /venv/bin/pip install -q 'ansible-core>=2.21' -r "$tree/requirements.txt" hypothesis pyrage pytest pytest-xdist
export PATH=/venv/bin:$PATH ANSIBLE_COLLECTIONS_PATH=/collections ANSIBLE_LOCALHOST_WARNING=false
ansible --version | sed -n 1p # reads all: who writes to a pipe that is closed fails
cd "$tree"

echo "==> units"
# All but those that end one run hundreds of times at another file operation: they test our own order of steps, which
# depends on neither Ansible nor Python nor OpenSSL. So does shellcheck's word on our scripts; it is not in the image.
PYTHONPATH=/collections python -m pytest -q tests/unit/plugins \
  --ignore tests/unit/plugins/module_utils/pki/test_crash.py \
  --ignore tests/unit/plugins/module_utils/pki/test_trouble.py \
  --deselect tests/unit/plugins/module_utils/clients/test_bundle.py::test_scripts_are_sound

echo "==> sanity tests that differ"
python tools/ansible_test_offline.py
ansible-test sanity --python 3.13 --test import --test compile --test validate-modules --test ansible-doc

echo "==> one site run"
mkdir /srv/newest
cat >/srv/newest/inventory.yml <<YAML
buildkit_daemons:
  hosts:
    localhost:
      ansible_connection: local
      ansible_become: false
      ansible_python_interpreter: "{{ ansible_playbook_python }}"
      buildkit_addresses: [127.0.0.1]
      buildkit_listen_address: 127.0.0.1
      buildkit_port: 12346
      buildkitd_service_manager: process
      buildkitd_version: $version
      buildkitd_archive: $archive
      buildkitd_archive_sha256: $sha256
YAML
ansible-playbook -i /srv/newest/inventory.yml buildfarm.buildkit.site --check
ansible-playbook -i /srv/newest/inventory.yml buildfarm.buildkit.site | tee /srv/newest/first
grep -q 'stranger without TLS refused' /srv/newest/first
ansible-playbook -i /srv/newest/inventory.yml buildfarm.buildkit.site | tee /srv/newest/second | tail -n 3
grep -q 'changed=0 ' /srv/newest/second
ansible-playbook -i /srv/newest/inventory.yml buildfarm.buildkit.remove | tail -n 3
! pgrep -x buildkitd
INSIDE
