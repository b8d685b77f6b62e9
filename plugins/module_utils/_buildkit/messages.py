# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protobuf messages that we exchange with buildkitd: the fields we use, and no others.

Field numbers are facts of BuildKit's API (api/services/control/control.proto, api/types/worker.proto,
solver/pb/ops.proto) and of gRPC's reflection service; all of them are the same from 0.13 on. Fields that are left
out are skipped when read. An enumeration is an int32 here, which looks the same on the wire. The descriptors are made
at run time, in a pool of their own, because AnsiballZ carries nothing but Python files, and because generated code
would be bound to one version of protobuf.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

with contextlib.suppress(ImportError):  # reported by _deps before any message is made
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_CONTROL = "moby.buildkit.v1"
_TYPES = "moby.buildkit.v1.types"
_LLB = "pb"
_HEALTH = "grpc.health.v1"
_REFLECTION = "grpc.reflection.v1alpha"

# Package -> message -> fields as (number, name, type). A type is a scalar of protobuf or a full message name;
# "repeated T" and "map T" (with string keys) make the collections.
_MESSAGES: dict[str, dict[str, tuple[tuple[int, str, str], ...]]] = {
    "google.protobuf": {"Timestamp": ((1, "seconds", "int64"), (2, "nanos", "int32"))},
    "google.rpc": {"Status": ((1, "code", "int32"), (2, "message", "string"))},
    _LLB: {
        "Platform": ((1, "Architecture", "string"), (2, "OS", "string"), (3, "Variant", "string")),
        "Input": ((1, "digest", "string"), (2, "index", "int64")),
        "Meta": ((1, "args", "repeated string"), (2, "env", "repeated string"), (3, "cwd", "string")),
        "Mount": (
            (1, "input", "int64"),
            (3, "dest", "string"),
            (4, "output", "int64"),
            (5, "readonly", "bool"),
        ),
        "ExecOp": (
            (1, "meta", "pb.Meta"),
            (2, "mounts", "repeated pb.Mount"),
            (3, "network", "int32"),
            (4, "security", "int32"),
        ),
        "FileActionMkFile": (
            (1, "path", "string"),
            (2, "mode", "int32"),
            (3, "data", "bytes"),
            (5, "timestamp", "int64"),
        ),
        "FileAction": (
            (1, "input", "int64"),
            (2, "secondaryInput", "int64"),
            (3, "output", "int64"),
            (5, "mkfile", "pb.FileActionMkFile"),
        ),
        "FileOp": ((2, "actions", "repeated pb.FileAction"),),
        "Op": (
            (1, "inputs", "repeated pb.Input"),
            (2, "exec", "pb.ExecOp"),
            (4, "file", "pb.FileOp"),
            (10, "platform", "pb.Platform"),
        ),
        "OpMetadata": ((1, "ignore_cache", "bool"), (2, "description", "map string")),
        "Definition": ((1, "def", "repeated bytes"), (2, "metadata", "map pb.OpMetadata")),
    },
    _TYPES: {
        "BuildkitVersion": (
            (1, "package", "string"),
            (2, "version", "string"),
            (3, "revision", "string"),
            (4, "dockerfileVersion", "string"),
        ),
        "GCPolicy": (
            (1, "all", "bool"),
            (2, "keepDuration", "int64"),
            (3, "reservedSpace", "int64"),
            (4, "filters", "repeated string"),
            (5, "maxUsedSpace", "int64"),
            (6, "minFreeSpace", "int64"),
        ),
        "WorkerRecord": (
            (1, "ID", "string"),
            (2, "Labels", "map string"),
            (3, "platforms", "repeated pb.Platform"),
            (4, "GCPolicy", f"repeated {_TYPES}.GCPolicy"),
        ),
    },
    _CONTROL: {
        "InfoRequest": (),
        "InfoResponse": ((1, "buildkitVersion", f"{_TYPES}.BuildkitVersion"),),
        "ListWorkersRequest": ((1, "filter", "repeated string"),),
        "ListWorkersResponse": ((1, "record", f"repeated {_TYPES}.WorkerRecord"),),
        "DiskUsageRequest": ((1, "filter", "repeated string"),),
        "UsageRecord": (
            (1, "ID", "string"),
            (2, "Mutable", "bool"),
            (3, "InUse", "bool"),
            (4, "Size", "int64"),
            (5, "Parent", "string"),
            (7, "LastUsedAt", "google.protobuf.Timestamp"),
            (8, "UsageCount", "int64"),
            (10, "RecordType", "string"),
            (11, "Shared", "bool"),
            (12, "Parents", "repeated string"),
        ),
        "DiskUsageResponse": ((1, "record", f"repeated {_CONTROL}.UsageRecord"),),
        "PruneRequest": (
            (1, "filter", "repeated string"),
            (2, "all", "bool"),
            (3, "keepDuration", "int64"),
            (4, "reservedSpace", "int64"),
            (5, "maxUsedSpace", "int64"),
            (6, "minFreeSpace", "int64"),
        ),
        "BuildHistoryRequest": ((1, "ActiveOnly", "bool"), (2, "Ref", "string"), (3, "EarlyExit", "bool")),
        "BuildHistoryRecord": (
            (1, "Ref", "string"),
            (2, "Frontend", "string"),
            (5, "error", "google.rpc.Status"),
            (6, "CreatedAt", "google.protobuf.Timestamp"),
            (7, "CompletedAt", "google.protobuf.Timestamp"),
            (14, "pinned", "bool"),
        ),
        "BuildHistoryEvent": ((1, "type", "int32"), (2, "record", f"{_CONTROL}.BuildHistoryRecord")),
        "CacheOptions": (),
        "SolveRequest": (
            (1, "Ref", "string"),
            (2, "Definition", "pb.Definition"),
            (6, "Frontend", "string"),
            (7, "FrontendAttrs", "map string"),
            (8, "Cache", f"{_CONTROL}.CacheOptions"),
            (9, "Entitlements", "repeated string"),
            (10, "FrontendInputs", "map pb.Definition"),
            (11, "Internal", "bool"),
        ),
        "SolveResponse": ((1, "ExporterResponse", "map string"),),
        "StatusRequest": ((1, "Ref", "string"),),
        "StatusResponse": (
            (1, "vertexes", f"repeated {_CONTROL}.Vertex"),
            (3, "logs", f"repeated {_CONTROL}.VertexLog"),
        ),
        "Vertex": (
            (1, "digest", "string"),
            (3, "name", "string"),
            (4, "cached", "bool"),
            (7, "error", "string"),
        ),
        "VertexLog": ((1, "vertex", "string"), (3, "stream", "int64"), (4, "msg", "bytes")),
    },
    _HEALTH: {
        "HealthCheckRequest": ((1, "service", "string"),),
        "HealthCheckResponse": ((1, "status", "int32"),),
    },
    _REFLECTION: {
        "ServerReflectionRequest": ((4, "file_containing_symbol", "string"),),
        "FileDescriptorResponse": ((1, "file_descriptor_proto", "repeated bytes"),),
        "ServerReflectionResponse": ((4, "file_descriptor_response", f"{_REFLECTION}.FileDescriptorResponse"),),
    },
}

NETWORK_HOST, NETWORK_NONE = 1, 2  # pb.NetMode
SECURITY_SANDBOX, SECURITY_INSECURE = 0, 1  # pb.SecurityMode
HEALTH_SERVING = 1  # HealthCheckResponse.ServingStatus
BUILD_STARTED, BUILD_COMPLETE = 0, 1  # BuildHistoryEventType
CANCELLED = 1  # google.rpc.Code


@functools.lru_cache(maxsize=None)
def message_class(name: str) -> Any:
    """The class of a message.

    :param name: full name, such as C(moby.buildkit.v1.InfoRequest)
    """
    descriptor = _pool().FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    factory: Any = message_factory.MessageFactory(_pool())  # protobuf before 4.22
    return factory.GetPrototype(descriptor)


def new(name: str, **fields: Any) -> Any:
    """A new message; the keywords are its fields."""
    return message_class(name)(**fields)


@functools.lru_cache(maxsize=None)
def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    earlier: list[str] = []
    for package, messages in _MESSAGES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3", dependency=list(earlier)
        )
        for name, fields in messages.items():
            _add_message(file.message_type.add(name=name), f".{package}.{name}", fields)
        pool.AddSerializedFile(file.SerializeToString())
        earlier.append(file.name)
    return pool


def _add_message(message: Any, full_name: str, fields: tuple[tuple[int, str, str], ...]) -> None:
    for number, name, kind in fields:
        form, _space, item = kind.rpartition(" ")
        field = message.field.add(name=name, number=number, label=3 if form else 1)  # LABEL_REPEATED, LABEL_OPTIONAL
        if form == "map":
            # The rules for maps: a nested message with this very name, marked as an entry.
            entry = message.nested_type.add(
                name="".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry"
            )
            entry.options.map_entry = True
            _set_type(entry.field.add(name="key", number=1, label=1), "string")
            _set_type(entry.field.add(name="value", number=2, label=1), item)
            item = f"{full_name[1:]}.{entry.name}"
        _set_type(field, item)


def _set_type(field: Any, kind: str) -> None:
    if "." in kind:
        field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{kind}"
    else:
        field.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
