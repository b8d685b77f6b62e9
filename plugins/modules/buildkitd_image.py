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
  - The image gets no other name. What an archive calls it is taken away again, or given back to the image that had that
    name before.
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
    description:
      - The image, with tag or digest. C(state=absent) takes one away; where it is an identity, only if it has no name.
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
  wish_options:
    description: More of these, for limits and the log. Where it runs without them alone, that is said.
    type: list
    elements: str
    default: []
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
replaced:
  description: The identity of the image that had this name before, and has none now. Empty when there is none.
  returned: when O(state=present), not in check mode
  type: str
  sample: ""
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


def _examine(params: t.Mapping[str, t.Any]) -> image_archive.ImageArchive:
    archive = image_archive.read(params["archive"], params["sha256"])
    if not archive.has_program:
        raise HostError(
            f"{params['archive']} has no buildkitd. Name an archive of an image of BuildKit, such as what `docker "
            f"save` makes of docker.io/moby/buildkit."
        )
    return archive


def _familiar(name: str) -> str:
    """A name without what engines add to it."""
    return re.sub(r"^((index\.)?docker\.io/)?(library/)?", "", name)


def _names(engine: container.Engine, identity: str) -> t.List[str]:
    found = engine.inspect("image", identity)
    return list((found or {}).get("RepoTags") or [])


def _load(engine: container.Engine, params: t.Mapping[str, t.Any]) -> None:
    """Load an archive, and have its image called what is wanted and nothing else."""
    image, archive = params["image"], _examine(params)
    others = [name for name in archive.names if _familiar(name) != _familiar(image)] if "@" not in image else []
    before = {name: engine.image(name) for name in others}
    said = _must(engine, "load", "--quiet", "--input", params["archive"], doing=f"Loading {params['archive']}")
    if "@" in image:
        return
    # Engines that keep images in containerd have another identity for it, and say what they named it.
    named = re.search(r"^Loaded image(?:\(s\)| ID)?: (\S+)", said, re.MULTILINE)
    source = named[1] if named and not engine.image(archive.identity) else archive.identity
    _must(engine, "tag", source, image, doing=f"Naming the image {image}")
    for name, identity in before.items():
        if not identity:
            engine.run("image", "rm", name)
        elif engine.image(name) != identity:
            engine.run("tag", identity, name)


def _present(params: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Load or pull, and take back what does not run. Returns the module's result."""
    engine, image = container.Engine(params["engine"]), params["image"]
    engine.version()
    before = engine.image(image)
    if params["archive"]:
        _load(engine, params)
    elif not before:
        _must(
            *(engine, "pull", "--quiet", image),
            doing=f"Pulling {image}",
            advice="Give the host a way to the registry, or set buildkitd_container_image_archive.",
        )
    after = engine.image(image)
    if not after:
        raise HostError(f"{params['archive']} was loaded, but is not {image}. Name it by a tag instead of a digest.")
    changed = after != before
    why_not = engine.why_not(image, params["probe_options"], params["wish_options"]) if changed else ""
    if why_not:
        if before:
            engine.run("tag", before, image)
        else:
            engine.run("image", "rm", image)
        raise HostError(f"{why_not} The image was taken away again; nothing else was changed.")
    replaced = before if before and changed and not _names(engine, before) else ""
    return {"changed": changed, "identity": after, "replaced": replaced}


def _absent(params: t.Mapping[str, t.Any], *, dry_run: bool) -> bool:
    """Remove the image where nothing uses it; whether that was, or would be, done."""
    engine, image = container.Engine(params["engine"]), params["image"]
    if not engine.program or not engine.image(image):
        return False
    if re.match(r"[0-9a-f]{64}$", image) and _names(engine, image):
        return False  # somebody has given it a name since
    return dry_run or engine.run("image", "rm", image).returncode == 0


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
            "wish_options": {"type": "list", "elements": "str", "default": []},
        },
        required_together=[("archive", "sha256")],
        required_if=[("state", "examined", ["archive"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "examined":
            module.exit_json(changed=False, identity=_examine(params).identity)
        if params["state"] == "absent":
            module.exit_json(changed=_absent(params, dry_run=module.check_mode))
        if module.check_mode:
            identity = container.Engine(params["engine"]).image(params["image"])
            module.exit_json(changed=bool(params["archive"]) or not identity, identity=identity)
        result = _present(params)
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
