# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our subset of BuildKit's messages. That daemons read them so is for the integration tests to show."""

from __future__ import annotations

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import messages
from google.protobuf import descriptor_pool

NAMES = [f"{package}.{name}" for package, table in messages._MESSAGES.items() for name in table]


@pytest.mark.parametrize("name", NAMES)
def test_each_message_can_be_sent_and_read(name: str) -> None:
    """An empty message of each kind has no bytes, and none are read as one."""
    message = messages.new(name)
    assert message.DESCRIPTOR.full_name == name
    assert message.SerializeToString() == b""
    assert messages.message_class(name).FromString(b"") == message


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_names_are_unique(name: str) -> None:
    """No field of a message shadows another."""
    package, short = name.rsplit(".", 1)
    fields = messages._MESSAGES[package][short]
    assert len({field[0] for field in fields}) == len(fields)
    assert len({field[1] for field in fields}) == len(fields)


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        # What protoc's code writes for the same fields of BuildKit's own files: tag, length, content.
        (
            ("pb.Mount", {"input": -1, "dest": "/", "output": 2, "readonly": True}),
            "08ffffffffffffffffff011a012f20022801",
        ),
        (("pb.Definition", {"def": [b"a", b"b"]}), "0a01610a0162"),
        (("moby.buildkit.v1.StatusRequest", {"Ref": "x"}), "0a0178"),
        (
            ("moby.buildkit.v1.SolveRequest", {"FrontendAttrs": {"k": "v"}, "Internal": True}),
            "3a060a016b1201765801",
        ),
        (("moby.buildkit.v1.types.GCPolicy", {"all": True, "minFreeSpace": 300}), "080130ac02"),
    ],
)
def test_encoding(message: tuple[str, dict[str, object]], encoded: str) -> None:
    """Numbers, signs, maps and repeated fields are on the wire as protobuf says."""
    name, fields = message
    assert messages.new(name, **fields).SerializeToString(deterministic=True).hex() == encoded


def test_unknown_fields_are_skipped() -> None:
    """What a newer daemon adds does not disturb."""
    reply = messages.message_class("moby.buildkit.v1.InfoResponse").FromString(bytes.fromhex("0a051203762e319a0601 78"))
    assert reply.buildkitVersion.version == "v.1"


def test_pool_is_our_own() -> None:
    """Our messages are not in protobuf's common pool, where others may have BuildKit's."""
    messages.message_class("pb.Op")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("pb.Op")
