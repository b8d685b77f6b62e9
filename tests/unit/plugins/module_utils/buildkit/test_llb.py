# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build graphs, by the rules of BuildKit's loader."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import llb, messages

FILE = llb.File("/probe", b"content", mode=0o755)


def operations(graph: Any) -> list[Any]:
    """The steps of a definition, decoded."""
    return [messages.message_class("pb.Op").FromString(data) for data in getattr(graph, "def")]


def test_a_file_is_made_from_nothing() -> None:
    """A file has its path, mode and content, and a time that never changes."""
    made, marker = operations(llb.definition(llb.make_file(FILE)))
    [action] = made.file.actions
    assert (action.input, action.secondaryInput, action.output) == (-1, -1, 0)
    assert (action.mkfile.path, action.mkfile.mode, action.mkfile.data) == ("/probe", 0o755, b"content")
    assert action.mkfile.timestamp == 0
    assert len(marker.inputs) == 1


def test_a_step_runs_without_network_and_writes_nothing() -> None:
    """The root is a throw-away, and the result is the file system as it was, so that the cache keeps no more of it."""
    graph = llb.definition(llb.run(llb.make_file(FILE), ["/probe", "-x"], name="the step"))
    step = operations(graph)[1]
    execution = step.exec
    assert list(execution.meta.args) == ["/probe", "-x"]
    assert execution.meta.cwd == "/"
    assert execution.network == messages.NETWORK_NONE == 2
    root, result = execution.mounts
    assert (root.dest, root.input, root.output, root.readonly) == ("/", 0, -1, True)
    assert (result.input, result.output, result.readonly) == (0, 0, True)
    assert operations(graph)[2].inputs[0].index == 0


def test_a_step_runs_under_the_wished_conditions() -> None:
    """Platform, network, security and the cache are as wished; without a wish no platform is named."""
    conditions = llb.Conditions(
        platform={"OS": "linux", "Architecture": "arm", "Variant": "v7"},
        network=messages.NETWORK_HOST,
        security=messages.SECURITY_INSECURE,
        ignore_cache=False,
    )
    step = llb.run(llb.make_file(FILE), ["/probe"], name="the step", conditions=conditions)
    graph = llb.definition(step)
    made = operations(graph)[1]
    assert (made.platform.OS, made.platform.Architecture, made.platform.Variant) == ("linux", "arm", "v7")
    assert (made.exec.network, made.exec.security) == (messages.NETWORK_HOST, messages.SECURITY_INSECURE) == (1, 1)
    assert graph.metadata[step.digest].ignore_cache is False
    plain = llb.definition(llb.run(llb.make_file(FILE), ["/probe"], name="the step"))
    assert not operations(plain)[1].HasField("platform")


def test_a_graph_is_complete_and_ends_in_its_result() -> None:
    """Each input is a step that came before, by the digest of its bytes; the marker at the end names the result."""
    step = llb.run(llb.make_file(FILE), ["/probe"], name="the step")
    graph = llb.definition(step)
    data = list(getattr(graph, "def"))
    digests = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in data]
    for position, operation in enumerate(operations(graph)):
        assert all(one.digest in digests[:position] for one in operation.inputs)
    [result] = operations(graph)[-1].inputs
    assert result.digest == step.digest == digests[1]


def test_each_step_has_metadata_and_the_running_one_ignores_the_cache() -> None:
    """dockerfile.v0 refuses steps without metadata; only the step that runs must not come from the cache."""
    made = llb.make_file(FILE)
    step = llb.run(made, ["/probe"], name="the step")
    graph = llb.definition(step)
    assert len(graph.metadata) == 3
    assert graph.metadata[step.digest].ignore_cache is True
    assert graph.metadata[step.digest].description["llb.customname"] == "the step"
    assert graph.metadata[made.digest].ignore_cache is False


def test_equal_graphs_are_equal_bytes() -> None:
    """The content is constant, or each proof would leave another copy in the cache."""
    first, second = (llb.definition(llb.run(llb.make_file(FILE), ["/x"], name="n")) for dummy in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
