# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Earthly's configuration is merged line by line: YAML reads what was meant, and all else stays to the byte."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import earthly
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

OURS = earthly.settings("tcp://builder.example.com:8372", "/c/ca.pem", "/c/cert.pem", "/c/my key.pem")

FILES = {
    "none": "",
    "only comments": "# mine\n\n",
    "no newline at the end": "git:\n  github.com:\n    auth: ssh",
    "other keys": "git:\n  global:\n    url_instead_of: x\n  buildkit_host: tcp://not.this.one:1\n",
    "a start of a document": "---\nglobal:\n  cache_size_mb: 10\n",
    "ours and others": (
        "global:\n  buildkit_host: tcp://old:1\n  cache_size_mb: 10 # small\n\n  tls_enabled: false\ngit: {}\n"
    ),
    "deep indentation": "global:\n      # comment\n      tlsca: '/c/ca.pem' # same\n      git_image: x\nsecret: 1\n",
    "quotes": '"global":\n  "tlscert": "/c/cert.pem"\n  \'tlskey\': /other\n',
    "nothing in it": "global: {} # empty\ngit: {}\n",
    "null": "global:\ngit:\n  a: b\n",
    "a list": "global:\n  buildkit_additional_args: ['-e', 'X=1']\n  buildkit_host:\n    tcp://continued:1\n  z: 1\n",
    "a text": "global:\n  buildkit_additional_config: |\n    tlsca: not this one\n    [registry]\n  tlsca: /old\n",
    "windows": "global:\r\n  cache_size_mb: 10\r\n",
    "no space after": "global:\n  cache_size_mb: 10\n# end",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_merge_means_what_yaml_reads(text: str) -> None:
    """Our keys are set, every other key has the value it had, and another merge changes nothing."""
    merged = earthly.merge(text, OURS)
    before = yaml.safe_load(text) or {}
    expected = {**before, "global": {**(before.get("global") or {}), **OURS}}
    assert yaml.safe_load(merged) == expected
    assert earthly.merge(merged, OURS) == merged


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_removal_leaves_the_rest(text: str) -> None:
    """What is not ours is read as before; what was empty is empty."""
    removed = earthly.remove(earthly.merge(text, OURS), OURS)
    before = yaml.safe_load(text) or {}
    rest = {key: value for key, value in (before.get("global") or {}).items() if key not in OURS}
    others = {key: value for key, value in before.items() if key != "global"}
    found = yaml.safe_load(removed) or {}
    assert (found.pop("global", None) or {}) == rest
    assert found == others
    assert earthly.remove(removed, OURS) == removed


def test_comments_and_other_lines_stay_to_the_byte() -> None:
    """Only the lines of our keys change."""
    text = FILES["ours and others"]
    assert earthly.merge(text, OURS) == (
        "global:\n"
        "  tlsca: /c/ca.pem\n"
        "  tlscert: /c/cert.pem\n"
        '  tlskey: "/c/my key.pem"\n'
        "  buildkit_host: tcp://builder.example.com:8372\n"
        "  cache_size_mb: 10 # small\n"
        "\n"
        "  tls_enabled: true\n"
        "git: {}\n"
    )


def test_values_of_others_are_not_removed() -> None:
    """A daemon that the user has put there in the meantime stays."""
    merged = earthly.merge("", OURS)
    changed = merged.replace("tcp://builder.example.com:8372", "tcp://mine.example.com:8372")
    assert yaml.safe_load(earthly.remove(changed, OURS)) == {"global": {"buildkit_host": "tcp://mine.example.com:8372"}}
    assert earthly.remove(merged, OURS) == ""
    nothing_of_ours = "global:\n  cache_size_mb: 10"
    assert earthly.remove(nothing_of_ours, OURS) == nothing_of_ours


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("global: {a: b}\n", "not a list of lines"),
        ("global: &x\n  a: b\n", "not a list of lines"),
        ("global:\n  a: b\nglobal:\n  c: d\n", "there twice"),
        ("{global: {}}\n", "in braces"),
        ("global:\n\ta: b\n", "tabs"),
        ("global:\n  a: b\n---\nglobal:\n  c: d\n", "more than one document"),
    ],
)
def test_what_cannot_be_edited_by_lines_is_refused(text: str, why: str) -> None:
    """For both ways, with the reason."""
    for edit in (earthly.merge, earthly.remove):
        with pytest.raises(ClientError, match=why):
            edit(text, OURS)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("tcp://127.0.0.1:8372", "its own container on this machine"),
        ("tcp://localhost:8372", "its own container on this machine"),
        ("tcp://LOCALHOST:8372", "its own container on this machine"),
        ("tcp://[::1]:8372", "its own container on this machine"),
        ("docker-container://earthly-buildkitd", "takes tcp://HOST:PORT alone"),
        ("unix:///run/x.sock", "takes tcp://HOST:PORT alone"),
        ("tcp://builder.example.com", "needs a host and a port"),
    ],
)
def test_a_host_that_earthly_would_not_use_is_refused(host: str, why: str) -> None:
    """Or that it would replace."""
    with pytest.raises(ClientError, match=why):
        earthly.settings(host, "/c/ca.pem", "/c/cert.pem", "/c/key.pem")


def test_relative_paths_are_refused() -> None:
    """Earthly would look for them in its own directory."""
    for broken in range(3):
        paths: t.List[str] = ["/c/ca.pem", "/c/cert.pem", "/c/key.pem"]
        paths[broken] = "x.pem"
        with pytest.raises(ClientError, match=r"x\.pem is no absolute path"):
            earthly.settings("tcp://127.0.0.2:8372", *paths)


@pytest.mark.parametrize("path", ["/home/jürgen 😀/ca.pem", '/a"b/c.pem', "/it's/ca.pem", "/back\\slash.pem", "/#x: y"])
def test_any_path_is_found_again(path: str) -> None:
    """What was written reads back as the path, is not written twice, and goes again."""
    wanted = {"tlsca": path}
    text = earthly.merge("git: {}\n", wanted)
    assert yaml.safe_load(text) == {"git": {}, "global": wanted}
    assert earthly.merge(text, wanted) == text
    assert earthly.remove(text, wanted) == "git: {}\n"
    quoted = path.replace("'", "''")
    assert earthly.remove(f"global:\n  tlsca: '{quoted}' # mine\n", wanted) == ""
