# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our messages beside the description that daemons from v0.17 on give of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import channel, control, endpoint, messages
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG
from daemon import Daemon
from google.protobuf import descriptor_pb2
from grpclib.client import StreamStreamMethod

REFLECTION = "grpc.reflection.v1alpha"
TYPES = {name[len("TYPE_") :].lower(): number for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()}
# Fields that came after the daemons of these tests.
NEWER = {("moby.buildkit.v1.types.BuildkitVersion", "dockerfileVersion")}  # v0.30
ROOTS = ("moby.buildkit.v1.Control", "grpc.health.v1.Health", f"{REFLECTION}.ServerReflection")


async def connected(daemon: Daemon, work: Callable[[channel.Connection], Awaitable[Any]]) -> Any:
    """Do something with a connection."""
    opened = await channel.open_connection(channel.Peer(endpoint.parse(daemon.unix)), timeout=LONG)
    try:
        return await work(opened)
    finally:
        await opened.close()


async def described(opened: channel.Connection) -> dict[str, Any]:
    """All messages that the daemon knows, by their full names."""
    request = messages.message_class(f"{REFLECTION}.ServerReflectionRequest")
    response = messages.message_class(f"{REFLECTION}.ServerReflectionResponse")
    method = StreamStreamMethod(
        opened.channel, f"/{REFLECTION}.ServerReflection/ServerReflectionInfo", request, response
    )
    found: dict[str, Any] = {}

    def add(prefix: str, message: Any) -> None:
        found[f"{prefix}.{message.name}"] = message
        for nested in message.nested_type:
            add(f"{prefix}.{message.name}", nested)

    for root in ROOTS:
        async with method.open(timeout=LONG) as exchange:
            await exchange.send_message(request(file_containing_symbol=root), end=True)
            reply = await exchange.recv_message()
        for file in reply.file_descriptor_response.file_descriptor_proto:
            parsed = descriptor_pb2.FileDescriptorProto.FromString(file)
            for message in parsed.message_type:
                add(parsed.package, message)
    return found


def test_fields_are_those_of_the_daemon(plaintext: Daemon) -> None:
    """Each field has the name, the number and the type that the daemon has; 0.13 does not describe itself."""
    theirs = asyncio.run(connected(plaintext, described))
    if "0.13" in str(plaintext.bin):
        assert not [name for name in theirs if name.startswith("moby.")]
        return
    compared = 0
    for package, table in messages._MESSAGES.items():
        for name, fields in table.items():
            known = {field.number: field for field in theirs[f"{package}.{name}"].field}
            for number, field, kind in fields:
                if (f"{package}.{name}", field) in NEWER:
                    assert number not in known
                    continue
                assert compare(known[number], f"{package}.{name}", field, kind), f"{name}.{field}"
                compared += 1
    assert compared > 100


def compare(theirs: Any, message: str, name: str, kind: str) -> bool:
    """Whether it is the same field."""
    form, _space, item = kind.rpartition(" ")
    repeated = theirs.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    if theirs.name != name or repeated is not bool(form):
        return False
    if form == "map":
        return theirs.type_name.startswith(f".{message}.") and theirs.type_name.endswith("Entry")
    if "." in item:
        return theirs.type_name == f".{item}"
    return theirs.type in (TYPES[item], TYPES["enum"] if item == "int32" else None)


@pytest.mark.parametrize(
    ("message", "field", "known"),
    [
        ("PruneRequest", "maxUsedSpace", True),
        ("PruneRequest", "minFreeSpace", True),
        ("PruneRequest", "noSuchField", False),
        ("NoSuchMessage", "filter", None),
    ],
)
def test_daemon_says_what_it_knows(plaintext: Daemon, message: str, field: str, known: bool | None) -> None:
    """A newer one does, an older one does not, and then nothing is known."""

    async def ask(opened: channel.Connection) -> bool | None:
        return await control.Control(opened.channel, timeout=LONG).knows_field(message, field)

    assert asyncio.run(connected(plaintext, ask)) is (None if "0.13" in str(plaintext.bin) else known)
