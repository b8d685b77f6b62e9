# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simple variables, the garbage collection that is sized from the disk, and what is made of all that."""

from __future__ import annotations

import typing as t

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible_collections.buildfarm.buildkit.plugins.filter.buildkitd_config_problems import buildkitd_config_problems
from ansible_collections.buildfarm.buildkit.plugins.filter.buildkitd_gc_policy import buildkitd_gc_policy
from ansible_collections.buildfarm.buildkit.plugins.filter.buildkitd_toml import buildkitd_toml
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import gc, simple, values

GIB = 1024**3
OWN = {"root": "/var/lib/buildkit", "otel": {"socketPath": "/run/otel.sock"}}
UNSET = {"cache_size": "", "max_parallelism": 0, "proxy": {}, "registry_mirrors": {}}


def written(config: t.Any = None, version: str = "0.25.2", disk: int = 500 * GIB, **given: t.Any) -> dict[str, t.Any]:
    """The file, read back."""
    return tomllib.loads(buildkitd_toml(config or {}, version, {**UNSET, **given}, OWN, disk))


def size(text: str) -> int:
    """Bytes of a size that was written."""
    return values.read_size(text)[0]


@pytest.mark.parametrize("disk", [GIB // 2, 8 * GIB, 100 * GIB, 270553174016, 2048 * GIB, 30000 * GIB])
def test_the_cache_is_sized_from_the_disk(disk: int) -> None:
    """With head-room, and so that a full disk can be made emptier."""
    *_early, ordinary, last = written(disk=disk)["worker"]["oci"]["gcpolicy"]
    assert last == {"all": True, **ordinary}
    most, free = size(ordinary["maxUsedSpace"]), size(ordinary["minFreeSpace"])
    assert 0.8 * disk * 0.97 - 1 <= most <= disk - free
    assert free <= 100 * GIB
    assert free >= min(0.2 * disk * 0.97, 100 * GIB)
    assert 0 < size(ordinary["reservedSpace"]) <= min(most / 10, 10 * GIB)


def test_old_daemons_get_half_of_it() -> None:
    """They cannot be told to leave space free."""
    early, ordinary, last = written(version="0.16.0")["worker"]["oci"]["gcpolicy"]
    assert ordinary == {"keepBytes": "250GB"}
    assert last == {"all": True, "keepBytes": "250GB"}
    assert early["keepBytes"] == "125GB"


@pytest.mark.parametrize("version", ["0.13.2", "0.17.0"])
def test_what_can_be_had_again_goes_first(version: str) -> None:
    """Each kind of record is an item of its own: in one text no record would fulfil them all."""
    early = written(version=version)["worker"]["oci"]["gcpolicy"][0]
    assert early["filters"] == ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
    assert early["keepDuration"] == "48h"


@pytest.mark.parametrize(("wished", "most"), [("200GB", "200GB"), ("50%", "250GB"), (200 * GIB, "200GB")])
def test_a_size_of_the_users(wished: t.Any, most: str) -> None:
    """It counts instead of the disk's, and the head-room stays."""
    ordinary = written(cache_size=wished)["worker"]["oci"]["gcpolicy"][1]
    assert (ordinary["maxUsedSpace"], ordinary["minFreeSpace"]) == (most, "100GB")
    assert written(cache_size=wished, version="0.13.2")["worker"]["oci"]["gcpolicy"][1] == {"keepBytes": most}


def test_without_a_known_disk() -> None:
    """Nothing is guessed, and a size in bytes is still taken."""
    assert "worker" not in written(disk=0)
    assert buildkitd_gc_policy({}, "0.25.2", UNSET, OWN, 0) is None
    assert written(disk=0, cache_size="20GB")["worker"]["oci"]["gcpolicy"][1] == {
        "maxUsedSpace": "20GB",
        "reservedSpace": "2048MB",
    }


@pytest.mark.parametrize(
    "worker",
    [
        {"gc": False},
        {"gckeepstorage": "5GB"},
        {"maxUsedSpace": "5GB"},
        {"gcpolicy": [{"all": True, "maxUsedSpace": "5GB"}]},
    ],
)
def test_the_users_own_garbage_collection_wins(worker: dict[str, t.Any]) -> None:
    """Nothing is added to it, and a size beside it is refused."""
    config = {"worker": {"oci": worker}}
    assert written(config)["worker"]["oci"] == worker
    [problem] = buildkitd_config_problems(config, "0.25.2", {"cache_size": "20GB"}, OWN, 500 * GIB)
    assert "buildkitd_cache_size is set, and buildkitd_config decides the garbage collection too" in problem


def test_containerd_as_the_only_worker() -> None:
    """What would be the OCI worker's goes there."""
    config = {"worker": {"oci": {"enabled": False}}}
    worker = written(config, max_parallelism="3")["worker"]["containerd"]
    assert worker["max-parallelism"] == 3
    assert len(worker["gcpolicy"]) == 3


def test_mirrors_and_parallelism() -> None:
    """They join what the configuration says of the same registry and worker."""
    config = {"registry": {"docker.io": {"insecure": True}}, "worker": {"oci": {"selinux": True}}}
    found = written(config, registry_mirrors={"docker.io": ["mirror.example.com"]}, max_parallelism=4)
    assert found["registry"]["docker.io"] == {"insecure": True, "mirrors": ["mirror.example.com"]}
    assert found["worker"]["oci"]["max-parallelism"] == 4
    assert found["worker"]["oci"]["selinux"] is True
    assert found["root"] == "/var/lib/buildkit"


def test_equal_input_gives_equal_text() -> None:
    """Whatever the order of the keys."""
    one = {"log": {"format": "json"}, "debug": True}
    other = {"debug": True, "log": {"format": "json"}}
    assert buildkitd_toml(one, "0.25.2", UNSET, OWN, GIB) == buildkitd_toml(other, "0.25.2", UNSET, OWN, GIB)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cache_size": "big"}, "buildkitd_cache_size is 'big', but a size such as 200GB"),
        ({"cache_size": 200}, "buildkitd_cache_size is 200, which is 200 bytes: write the unit too, such as 200GB"),
        ({"cache_size": "600GB"}, "buildkitd_cache_size is 600GB, more than the 500GB of the file system"),
        ({"max_parallelism": "many"}, "buildkitd_max_parallelism is 'many', but a whole number is needed"),
        ({"max_parallelism": -1}, "buildkitd_max_parallelism is -1, but a whole number"),
        ({"registry_mirrors": ["a"]}, "buildkitd_registry_mirrors is ['a'], but a dictionary of lists"),
        ({"registry_mirrors": {"a": "b"}}, "buildkitd_registry_mirrors: a is 'b', but a list of registries"),
        ({"registry_mirrors": {"a": ["http://b"]}}, "buildkitd_registry_mirrors: a has 'http://b': leave the scheme"),
        ({"proxy": "http://p"}, "buildkitd_proxy must be a dictionary of http, https and no"),
        ({"proxy": {"ftp": "x"}}, "buildkitd_proxy must be a dictionary of http, https and no"),
        ({"proxy": {"https": "http://user:s3cret word@p"}}, "buildkitd_proxy.https is not a proxy as http://"),
        ({"proxy": {"http": "http://p\nEVIL=1"}}, "buildkitd_proxy.http is not a proxy as http://"),
        ({"proxy": {"no": "a b"}}, "buildkitd_proxy.no is not a list of host names"),
        ({"parallelism": 1}, "buildkitd_parallelism is no simple variable"),
    ],
)
def test_simple_variables_that_make_no_sense(given: dict[str, t.Any], says: str) -> None:
    """Each is named, and a password is not shown."""
    [problem] = buildkitd_config_problems({}, "0.25.2", given, OWN, 500 * GIB)
    assert says in problem
    assert "s3cret" not in problem
    with pytest.raises(AnsibleFilterError, match=r"Writing buildkitd\.toml failed: buildkitd_"):
        buildkitd_toml({}, "0.25.2", given, OWN, 500 * GIB)


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({"worker": {"oci": {"max-parallelism": 1}}}, {"max_parallelism": 2}),
        ({"registry": {"a": {"mirrors": []}}}, {"registry_mirrors": {"a": ["b"]}}),
    ],
)
def test_a_thing_that_is_set_twice(config: dict[str, t.Any], given: dict[str, t.Any]) -> None:
    """One of the two would be lost."""
    [problem] = buildkitd_config_problems(config, "0.25.2", given, OWN, 0)
    assert problem.endswith("too: set one of them.")


def test_the_proxy_as_an_environment() -> None:
    """In capitals and in small letters, lists with commas, and nothing of what is empty."""
    proxy = {"http": "", "https": "http://user:p%40ss@proxy.example.com:3128", "no": [".example.com", "192.0.2.0/24"]}
    assert list(simple.problems({}, {"proxy": proxy}, 0, "buildkitd_")) == []
    assert simple.proxy_environment(proxy) == {
        "HTTPS_PROXY": proxy["https"],
        "NO_PROXY": ".example.com,192.0.2.0/24",
        "https_proxy": proxy["https"],
        "no_proxy": ".example.com,192.0.2.0/24",
    }
    assert simple.proxy_environment({}) == {}


def test_what_old_and_new_daemons_make_of_limits() -> None:
    """Four rules, the first with a filter that no record fulfils before 0.31."""
    config = {"worker": {"oci": {"gckeepstorage": "5GB"}}}
    for version, filters in (("0.13.2", 1), ("0.30.0", 1), ("0.31.0", 3)):
        found = gc.effective(config, version, 0)
        assert [len(one["filters"]) for one in found] == [filters, 0, 0, 0]
        assert [one["keep_duration"] for one in found] == ["172800", "5184000", "0", "0"]
        assert found[-1]["reserved_space"] == str(5 * GIB)
    assert gc.effective(config, "0.16.0", 0)[0]["reserved_space"] == "512000000"
    assert gc.effective(config, "0.17.0", 0)[0]["max_used_space"] == "512000000"


@pytest.mark.parametrize("worker", [{"gcpolicy": [{"keepBytes": "10%"}]}, {}])
def test_what_cannot_be_foretold(worker: dict[str, t.Any]) -> None:
    """A percentage of a disk that is not known, and a daemon that looks at its disk by itself."""
    assert gc.effective({"worker": {"oci": worker}}, "0.25.2", 0) is None
