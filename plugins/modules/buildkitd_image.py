#!/usr/bin/python

# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gets the image of buildkitd onto a host, from an archive or a registry, and makes sure that it runs there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: buildkitd_image
short_description: Load or pull the image of buildkitd, and make sure that it runs
version_added: 1.1.0
description:
  - Gives Docker or Podman an image, from an archive as C(docker save) makes them or from a registry, under the name
    that is wanted, and runs C(buildkitd --version) in it with the rights that buildkitd needs.
  - Where that does not work, the image is taken away again, or the one that had its name before is put back.
  - It needs the Python standard library and the engine's command line.
extends_documentation_fragment:
  - buildfarm.buildkit._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to differ.
  idempotent:
    support: partial
    details: An archive is loaded each time; the role calls it only where that is needed.
options:
  engine:
    description: Which engine gets it.
    type: str
    choices: [docker, podman]
    required: true
  image:
    description: The image, with tag or digest. C(state=absent) takes one away.
    type: str
    required: true
  state:
    description:
      - V(examined) looks into O(archive) where the module runs, asks no engine and changes nothing.
      - V(absent) removes the image, unless something uses it.
    type: str
    choices: [present, absent, examined]
    default: present
  archive:
    description: An archive on the host. Without one the image is pulled.
    type: path
  sha256:
    description: The checksum of O(archive).
    type: str
  probe_options:
    description: Options of C(docker run) or C(podman run) that give buildkitd what it needs.
    type: list
    elements: str
    default: [--privileged]
author:
  - The buildfarm.buildkit authors (@buildfarm)
seealso:
  - module: buildfarm.buildkit.buildkitd_container_info
"""

EXAMPLES = r"""
- name: Load an image on a host without internet
  buildfarm.buildkit.buildkitd_image:
    engine: podman
    image: docker.io/moby/buildkit:v0.31.0
    archive: /root/buildkit-v0.31.0.tar
    sha256: b225124484f4f551962f740eaa7f9069eb2695316af7459ba9ee7417008a85e5
"""

RETURN = r"""
identity:
  description: The identity of the image. Empty where it is not known in check mode.
  returned: when O(state) is not V(absent)
  type: str
  sample: 547ea36c34ab87b1b3224b6a05d025989b10021338cae5763180c8e84170b296
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import container, image_archive
from ansible_collections.buildfarm.buildkit.plugins.module_utils._host.errors import HostError

# Seconds that a registry may take.
_PULL_SECONDS = 1800


def _must(engine: container.Engine, *arguments: str, doing: str, advice: str = "") -> str:
    done = engine.run(*arguments, seconds=_PULL_SECONDS)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise HostError(f"{doing} failed: {said}{' ' if advice else ''}{advice}")
    return done.stdout


def _examine(params: t.Mapping[str, t.Any]) -> str:
    archive = image_archive.read(params["archive"], params["sha256"])
    if not archive.has_program:
        raise HostError(
            f"{params['archive']} has no buildkitd. Name an archive of an image of BuildKit, such as what `docker "
            f"save` makes of docker.io/moby/buildkit."
        )
    return archive.identity


def _present(params: t.Mapping[str, t.Any]) -> t.Tuple[bool, str]:
    """Load or pull, and take back what does not run. Returns whether something changed, and the image's identity."""
    engine, image = container.Engine(params["engine"]), params["image"]
    engine.version()
    before = engine.image(image)
    if params["archive"]:
        identity = _examine(params)
        said = _must(engine, "load", "--quiet", "--input", params["archive"], doing=f"Loading {params['archive']}")
        if "@" not in image:
            # Engines that keep images in containerd have another identity for it, and say what they named it.
            named = re.search(r"^Loaded image(?:\(s\)| ID)?: (\S+)", said, re.MULTILINE)
            source = named[1] if named and not engine.image(identity) else identity
            _must(engine, "tag", source, image, doing=f"Naming the image {image}")
    elif not before:
        _must(
            *(engine, "pull", "--quiet", image),
            doing=f"Pulling {image}",
            advice="Give the host a way to the registry, or set buildkitd_container_image_archive.",
        )
    after = engine.image(image)
    if not after:
        raise HostError(f"{params['archive']} was loaded, but is not {image}. Name it by a tag instead of a digest.")
    why_not = engine.why_not(image, params["probe_options"]) if after != before else ""
    if why_not:
        if before:
            engine.run("tag", before, image)
        else:
            engine.run("image", "rm", image)
        raise HostError(f"{why_not} The image was taken away again; nothing else was changed.")
    return after != before, after


def main() -> None:
    """Does what the state says."""
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "choices": ["docker", "podman"], "required": True},
            "image": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "examined"], "default": "present"},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "probe_options": {"type": "list", "elements": "str", "default": ["--privileged"]},
        },
        required_together=[("archive", "sha256")],
        required_if=[("state", "examined", ["archive"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "examined":
            module.exit_json(changed=False, identity=_examine(params))
        engine = container.Engine(params["engine"])
        if params["state"] == "absent":
            there = bool(engine.program) and bool(engine.image(params["image"]))
            gone = there and (module.check_mode or engine.run("image", "rm", params["image"]).returncode == 0)
            module.exit_json(changed=gone)
        if module.check_mode:
            identity = engine.image(params["image"])
            module.exit_json(changed=bool(params["archive"]) or not identity, identity=identity)
        changed, identity = _present(params)
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, identity=identity)


if __name__ == "__main__":
    main()
