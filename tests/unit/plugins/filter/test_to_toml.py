# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter to_toml, read back by a TOML parser."""

from __future__ import annotations

import datetime
import sys
import typing as t

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._toml import render as to_toml

CONFIG = {
    "root": "/var/lib/buildkit",
    "debug": False,
    "grpc": {"address": ["tcp://[::]:1234"], "uid": 0},
    "worker": {"oci": {"gcpolicy": [{"all": True, "keepBytes": 512}, {"filters": ["type==source.local"]}]}},
    "registry": {"docker.io": {"mirrors": []}, 'a "quoted" name': {"http": True}},
    "labels": {"text": 'quote " back\\slash\nline\ttab \u0000 \u2713', "empty": "", "ratio": 0.5, "big": 2**53},
    "none": {},
}


def test_what_is_read_back_is_what_was_given() -> None:
    """Tables, arrays of tables, odd keys and odd text."""
    assert tomllib.loads(to_toml(CONFIG)) == CONFIG


def test_equal_input_gives_equal_text() -> None:
    """Whatever the order of the keys."""
    backwards = {key: CONFIG[key] for key in reversed(CONFIG)}
    assert list(backwards) != list(CONFIG)
    assert to_toml(backwards) == to_toml(CONFIG)
    assert to_toml({"b": 1, "a": {"d": 1, "c": 2}, 7: 3}) == "7 = 3\nb = 1\n\n[a]\nc = 2\nd = 1\n"


def test_booleans_stay_booleans() -> None:
    """They are numbers in Python, and not in TOML."""
    assert to_toml({"a": True, "b": 1}) == "a = true\nb = 1\n"


def test_values_that_come_from_ansible() -> None:
    """Values from YAML carry tags of Ansible's; they come out as plain ones."""
    text = "{debug: true, worker: {oci: {max-parallelism: 4, labels: {a: text}}}, list: [1, 0.5]}"
    config = DataLoader().load(text)
    assert config["worker"]["oci"]["labels"]["a"].__class__ is not str  # else this shows nothing
    expected = {"debug": True, "worker": {"oci": {"max-parallelism": 4, "labels": {"a": "text"}}}, "list": [1, 0.5]}
    assert tomllib.loads(to_toml(config)) == expected


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"worker": {"oci": None}}, "worker.oci is None"),
        ({"worker": [{"a": 1}, {"b": None}]}, r"worker\[1\]\.b is None"),
        ({"a": [1, [None]]}, r"a\[1\]\[0\] is None"),
        ({"a": datetime.date(2026, 1, 1)}, r"a is datetime\.date"),
    ],
)
def test_what_toml_cannot_express_is_refused_with_its_path(value: t.Any, path: str) -> None:
    """So that it can be found in the inventory."""
    with pytest.raises(AnsibleFilterError, match=rf"Rendering TOML failed: {path}.*, which TOML cannot express"):
        to_toml(value)


@pytest.mark.parametrize(("value", "kind"), [("a = 1", "str"), ([], "list"), (None, "NoneType")])
def test_a_dictionary_is_needed(value: t.Any, kind: str) -> None:
    """What came instead is told."""
    with pytest.raises(AnsibleFilterError, match=f"a dictionary is needed, not {kind}"):
        to_toml(value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to install it."""
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(AnsibleFilterError, match=r"the Python library tomli-w .*apt-get install python3-tomli-w"):
        to_toml({})
