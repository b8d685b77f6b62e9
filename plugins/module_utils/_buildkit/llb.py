# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build graphs in LLB, BuildKit's own language: the two operations that a smoke build needs.

Facts: solver/pb/ops.proto; the rules for a graph are those of loadLLB in solver/llbsolver/vertex.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import messages

# Of a file operation: made from nothing. Of a mount: nothing comes out.
_SCRATCH = _NO_OUTPUT = -1
# Of a new file's time: 1970, so that equal files are equal for the cache.
_EPOCH = 0
# Where a step sees what will be its result.
_RESULT = "/result"


@dataclass(frozen=True)
class Operation:
    """One step of a graph.

    :param data: the serialised C(pb.Op)
    :param inputs: the steps that it builds on
    :param metadata: fields of its C(pb.OpMetadata)
    """

    data: bytes
    inputs: tuple[Operation, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What the others call it: the SHA-256 of exactly these bytes."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


@dataclass(frozen=True)
class File:
    """A file to make; its path has no directory but the root."""

    path: str
    data: bytes
    mode: int = 0o644


def make_file(file: File) -> Operation:
    """A file system with one file and nothing else."""
    action = messages.new(
        "pb.FileAction",
        input=_SCRATCH,
        secondaryInput=_SCRATCH,
        output=0,
        mkfile=messages.new("pb.FileActionMkFile", path=file.path, mode=file.mode, data=file.data, timestamp=_EPOCH),
    )
    return Operation(_serialise(messages.new("pb.Op", file=messages.new("pb.FileOp", actions=[action]))))


@dataclass(frozen=True)
class Conditions:
    """How a step runs.

    :param platform: fields of the C(pb.Platform) to run it as; none for the daemon's own
    :param network: of C(pb.NetMode)
    :param security: of C(pb.SecurityMode)
    :param ignore_cache: run it even if the cache has its result already
    """

    platform: Mapping[str, str] = field(default_factory=dict)
    network: int = messages.NETWORK_NONE
    security: int = messages.SECURITY_SANDBOX
    ignore_cache: bool = True


DEFAULT_CONDITIONS = Conditions()


def run(
    root: Operation, arguments: Sequence[str], *, name: str, conditions: Conditions = DEFAULT_CONDITIONS
) -> Operation:
    """Run a program of a file system.

    The result is that file system as it was. What a step writes would be kept in the cache, once for each run.

    :param arguments: the program and its arguments
    :param name: what to call the step in the log of the build
    """
    execution = messages.new(
        "pb.ExecOp",
        # Without a working directory runc refuses the step.
        meta=messages.new("pb.Meta", args=list(arguments), cwd="/"),
        mounts=[
            messages.new("pb.Mount", input=0, dest="/", output=_NO_OUTPUT, readonly=True),
            messages.new("pb.Mount", input=0, dest=_RESULT, output=0, readonly=True),
        ],
        network=conditions.network,
        security=conditions.security,
    )
    operation = messages.new("pb.Op", inputs=[_input(root)], exec=execution)
    if conditions.platform:
        operation.platform.MergeFrom(messages.new("pb.Platform", **conditions.platform))
    metadata = {"ignore_cache": conditions.ignore_cache, "description": {"llb.customname": name}}
    return Operation(_serialise(operation), (root,), metadata)


def definition(result: Operation) -> Any:
    """The graph that ends in this step, as C(pb.Definition)."""
    graph = messages.new("pb.Definition")
    _add(graph, result)
    # The last entry names the result and does nothing.
    _add(graph, Operation(_serialise(messages.new("pb.Op", inputs=[_input(result)]))))
    return graph


def _add(graph: Any, operation: Operation) -> None:
    for earlier in operation.inputs:
        _add(graph, earlier)
    getattr(graph, "def").append(operation.data)
    # dockerfile.v0 wants an entry for every step of its inputs, an empty one too.
    graph.metadata[operation.digest].MergeFrom(messages.new("pb.OpMetadata", **operation.metadata))


def _input(operation: Operation) -> Any:
    return messages.new("pb.Input", digest=operation.digest, index=0)


def _serialise(message: Any) -> bytes:
    # Newer daemons serialise each step anew before they take its digest, so ours must be in Go's order: that
    # of the numbers.
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised
