# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Platforms such as linux/arm64, in the one spelling that buildx stores.

The rules are those of containerd's platforms package (normalizeArch), which buildx uses.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

_PLATFORM = re.compile(r"([a-z0-9_.-]+)/([a-z0-9_.-]+)(?:/([a-z0-9_.-]+))?")
_ARCHITECTURES = {
    "i386": "386",
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
}
_ARM = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}
# The variants that say no more than the architecture.
_PLAIN = {"amd64": ("v1",), "arm64": ("8", "v8"), "386": ("",)}


def normalize(text: str) -> str:
    """The platform in the spelling that buildx stores: linux/x86_64 is linux/amd64, linux/arm is linux/arm/v7.

    :raises ClientError: where it has no operating system or no architecture.
    """
    match = _PLATFORM.fullmatch(text.strip().lower())
    if not match:
        raise ClientError(f"The platform {text!r} is none: write it as linux/amd64 or linux/arm/v7.")
    system, architecture, variant = match.group(1), match.group(2), match.group(3) or ""
    if architecture in ("armhf", "armel"):
        variant = "v6" if architecture == "armel" else "v7"
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if architecture == "arm":
        variant = _ARM.get(variant, variant)
    elif architecture == "386" or variant in _PLAIN.get(architecture, ()):
        variant = ""
    return "/".join(part for part in ("darwin" if system == "macos" else system, architecture, variant) if part)


def to_stored(platform: str) -> t.Dict[str, str]:
    """A normalized platform as the OCI image specification has it, with the keys in the order that buildx writes."""
    system, architecture, *variant = platform.split("/")
    return {"architecture": architecture, "os": system, **({"variant": variant[0]} if variant else {})}


def from_stored(stored: t.Mapping[str, t.Any]) -> str:
    """The platform of what buildx has stored, in one spelling.

    :raises ClientError: where it has no operating system or no architecture.
    """
    parts = (stored.get("os"), stored.get("architecture"), stored.get("variant"))
    return normalize("/".join(str(part) for part in parts if part))
