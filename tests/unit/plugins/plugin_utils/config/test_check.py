# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused in a configuration of buildkitd, and with which words."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import check, keys, values

OWN = {"root": "/var/lib/buildkit", "grpc": {"tls": {"ca": "/c"}}, "otel": {"socketPath": "/run/otel.sock"}}
Config = t.Dict[str, t.Any]


def oci(**worker: t.Any) -> Config:
    """A configuration of the OCI worker; underscores stand for hyphens."""
    return {"worker": {"oci": {name.replace("_", "-"): value for name, value in worker.items()}}}


def rule(**limits: t.Any) -> Config:
    """A configuration with one rule of garbage collection."""
    return oci(gcpolicy=[limits])


def problems(config: t.Any, version: str = "0.31.0") -> list[str]:
    """What is wrong."""
    return check.problems(config, version, decided=OWN)


UNKNOWN = [
    ({"workers": {}}, "workers is no key", "worker."),
    ({"max-parallelism": 4}, "max-parallelism is no key", "worker.oci.max-parallelism"),
    ({"ghacache": {}}, "ghacache is no key", "cache.gha"),
    (oci(maxParallelism=4), "worker.oci.maxParallelism is no key", "worker.oci.max-parallelism"),
    (oci(max_parallelismm=4), "worker.oci.max-parallelismm is no key", "worker.oci.max-parallelism"),
    (oci(stargz={}), "worker.oci.stargz is no key", "worker.oci.stargzSnapshotter"),
    (oci(keepBytes="1GB"), "worker.oci.keepBytes is no key", "worker.oci.gckeepstorage"),
    (rule(maxusedspace="1GB"), "worker.oci.gcpolicy[0].maxusedspace is no key", "worker.oci.gcpolicy[0].maxUsedSpace"),
    (
        {"registry": {"docker.io": {"mirror": []}}},
        'registry."docker.io".mirror is no key',
        'registry."docker.io".mirrors',
    ),
    (
        {"frontend": {"dockerfile.v0": {"enable": True}}},
        'frontend."dockerfile.v0".enable is no key',
        'frontend."dockerfile.v0".enabled',
    ),
    ({"worker": {"podman": {}}}, "worker.podman is no key", ""),
]


@pytest.mark.parametrize(("config", "says", "nearest"), UNKNOWN, ids=[case[1] for case in UNKNOWN])
def test_unknown_keys(config: Config, says: str, nearest: str) -> None:
    """By their dotted names, with the one that is most likely meant."""
    [problem] = problems(config)
    assert f"buildkitd_config: {says} of buildkitd.toml, and buildkitd would ignore it silently" in problem
    assert f"the nearest one is {nearest}" in problem if nearest else "nearest" not in problem


@pytest.mark.parametrize("path", [path for path, key in keys.KEYS.items() if key.since])
def test_keys_that_are_newer_than_the_release(path: str) -> None:
    """Each is refused by the release before it, naming the release that brought it, and taken from that on."""
    since = keys.KEYS[path].since
    config: t.Any = None
    for name in reversed([name.replace("\0", ".") for name in path.replace(".v0", "\0v0").split(".")]):
        config = {name.removesuffix("[]"): [config] if name.endswith("[]") else config}
    said = problems(config, "0.13.2+debian")
    assert any(f"is a key from BuildKit {since} on, and 0.13.2+debian would ignore it silently" in one for one in said)
    assert not any("is a key from" in one for one in problems(config, since))


VALUES = [
    (oci(gc=None), "worker.oci.gc is None, but true or false is needed"),
    (oci(gc="yes"), "worker.oci.gc is 'yes', but true or false is needed"),
    (oci(max_parallelism="4"), "worker.oci.max-parallelism is '4', but a whole number from 0 on is needed"),
    (oci(max_parallelism=True), "worker.oci.max-parallelism is True, but a whole number"),
    (oci(max_parallelism=-1), "worker.oci.max-parallelism is -1, but a whole number"),
    (oci(max_parallelism=1.5), "worker.oci.max-parallelism is 1.5, but a whole number"),
    ({"system": {"maxRegistryConcurrency": 0}}, "maxRegistryConcurrency is 0, but a whole number from 1 on"),
    (oci(cniConfigPath="cni.json"), "worker.oci.cniConfigPath is 'cni.json', but an absolute path is needed"),
    (oci(labels={"a": 1}), "worker.oci.labels.a is 1, but text is needed"),
    (oci(labels=["a"]), "worker.oci.labels is ['a'], but a dictionary is needed"),
    (oci(platforms="linux/amd64"), "worker.oci.platforms is 'linux/amd64', but a list of platforms"),
    (oci(platforms=["amd64"]), "worker.oci.platforms has 'amd64', but a list of platforms such as linux/arm64"),
    (oci(networkMode="none"), "worker.oci.networkMode is 'none', but one of auto, host, bridge, cni is needed"),
    (oci(bridgeSubnet="10.0.0.1"), "worker.oci.bridgeSubnet is '10.0.0.1', but a subnet such as"),
    (oci(stargzSnapshotter=[]), "worker.oci.stargzSnapshotter is [], but a dictionary is needed"),
    ({"worker": "oci"}, "worker is 'oci', but a dictionary is needed"),
    (oci(gcpolicy={"all": True}), "worker.oci.gcpolicy is {'all': True}, but a list of dictionaries is needed"),
    (oci(gcpolicy=["all"]), "worker.oci.gcpolicy[0] is 'all', but a dictionary is needed"),
    (
        rule(reservedSpace="10 apples"),
        "gcpolicy[0].reservedSpace is '10 apples', but a number of bytes, a size such as",
    ),
    (rule(reservedSpace="10%%"), "gcpolicy[0].reservedSpace is '10%%', but"),
    (rule(reservedSpace="101%"), "gcpolicy[0].reservedSpace is '101%', but"),
    (rule(reservedSpace="9999999PB"), "gcpolicy[0].reservedSpace is '9999999PB', but"),
    (rule(reservedSpace=-1), "gcpolicy[0].reservedSpace is -1, but"),
    (rule(reservedSpace=1.5), "gcpolicy[0].reservedSpace is 1.5, but"),
    (rule(keepBytes=9000), "gcpolicy[0].keepBytes is 9000, which is 9000 bytes: write the unit too, such as 9000MB"),
    (oci(gckeepstorage="20"), "gckeepstorage is '20', which is 20 bytes: write the unit too"),
    (rule(keepDuration="60d"), "gcpolicy[0].keepDuration is '60d', but a number of seconds, or a length of time of h"),
    (rule(keepDuration=-1), "gcpolicy[0].keepDuration is -1, but"),
    (rule(keepDuration=10**12), "gcpolicy[0].keepDuration is 1000000000000, but"),
    (rule(filters="type==regular"), "gcpolicy[0].filters is 'type==regular', but a list of texts"),
    (rule(filters=["type==a,type==b"]), "has 'type==a,type==b', which no record fulfils"),
    ({"history": {"maxAge": "2 days"}}, "history.maxAge is '2 days', but a number of seconds"),
    ({"dns": {"nameservers": ["ns.example.com"]}}, "dns.nameservers has 'ns.example.com', but a list of IP addresses"),
    ({"log": {"format": "xml"}}, "log.format is 'xml', but one of text, json is needed"),
    ({"log": {"level": "verbose"}}, "log.level is 'verbose', but one of error, warn"),
    ({"insecure-entitlements": ["all"]}, "insecure-entitlements has 'all', but a list of network.host, security"),
    ({"registry": {"a": {"mirrors": ["https://m/"]}}}, "mirrors has 'https://m/': leave the scheme out"),
    ({"registry": {"a": {"mirrors": ["m m"]}}}, "mirrors has 'm m', but a list of registries as host[:port][/path]"),
    ({"registry": {"a": {"ca": "/x"}}}, "registry.a.ca is '/x', but a list of absolute paths is needed"),
    ({"registry": {"a": {"keypair": [{"key": "/k"}]}}}, "registry.a.keypair[0] lacks cert"),
    ({"registry": {"a": {"http": True, "insecure": True}}}, "registry.a has both http and insecure"),
    (
        {"grpc": {"debugAddress": "192.0.2.1:6060"}},
        "grpc.debugAddress is '192.0.2.1:6060'. Whoever reaches it needs no",
    ),
    ("x = 1", "is 'x = 1', but a dictionary is needed"),
]


@pytest.mark.parametrize(("config", "says"), VALUES, ids=[case[1] for case in VALUES])
def test_values_of_the_wrong_type_or_unit(config: Config, says: str) -> None:
    """What is there, and what is needed."""
    [problem] = problems(config)
    assert says in problem
    assert problem.startswith("buildkitd_config")


TOGETHER = [
    (oci(reservedSpace="1GB", gcpolicy=[{"all": True}]), "worker.oci has both gcpolicy and reservedSpace, which would"),
    (oci(gckeepstorage="1GB", gcpolicy=[{"all": True}]), "worker.oci has both gcpolicy and gckeepstorage, which would"),
    (oci(gckeepstorage="1GB", maxUsedSpace="2GB"), "worker.oci.gckeepstorage is ignored beside maxUsedSpace"),
    (rule(keepBytes="1GB", maxUsedSpace="2GB"), "worker.oci.gcpolicy[0] mixes keepBytes with maxUsedSpace"),
    (oci(gc=False, maxUsedSpace="1GB"), "worker.oci.gc is false, so maxUsedSpace would be ignored"),
    (oci(gc=False, gcpolicy=[{"all": True}]), "worker.oci.gc is false, so gcpolicy would be ignored"),
    (oci(noProcessSandbox=True), "worker.oci.noProcessSandbox is for worker.oci.rootless alone"),
    ({"worker": {"oci": {"enabled": False}, "containerd": {"enabled": False}}}, "so nothing could build"),
    ({"worker": {"containerd": {"enabled": True}}}, "only the first worker is ever used"),
]


@pytest.mark.parametrize(("config", "says"), TOGETHER, ids=[case[1] for case in TOGETHER])
def test_keys_that_do_not_go_together(config: Config, says: str) -> None:
    """Each is right alone, and one of them would be ignored."""
    [problem] = problems(config)
    assert says in problem


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"root": "/x"}, "buildkitd_config sets root. Use buildkitd_root"),
        ({"grpc": {"tls": {"cert": "/x"}}}, "buildkitd_config sets grpc.tls. A daemon with TLS but no CA is open to"),
        ({"grpc": {"address": [], "uid": 1, "gid": 1}}, "buildkitd_config sets grpc.address, grpc.gid, grpc.uid."),
        ({"otel": {"socketPath": "/x"}}, "buildkitd_config sets otel.socketPath. The role decides it, and has"),
    ],
)
def test_what_the_role_alone_decides(config: Config, says: str) -> None:
    """With the variable to use instead, in the names of the role."""
    [problem] = problems(config)
    assert says in problem
    other = check.problems(config, "0.31.0", decided=OWN, variable="buildkitd_container_config")
    assert other[0].startswith("buildkitd_container_config sets")


def test_everything_is_told_at_once() -> None:
    """Nobody should have to run it three times."""
    config = {"workers": {}, "history": {"maxAge": "2d"}, **oci(gc=1, reservedSpace="1GB")}
    assert len(problems(config, "0.13.2")) == 4


@pytest.mark.parametrize(
    ("address", "version", "ok"),
    [
        ("127.0.0.1:6060", "0.13.2", True),
        ("[::1]:6060", "0.13.2", True),
        ("unix:///run/debug.sock", "0.25.2", True),
        ("unix:///run/debug.sock", "0.13.2", False),
        ("0.0.0.0:6060", "0.25.2", False),
        ("127.builder.example.com:6060", "0.25.2", False),
        ("127.0.0.1", "0.25.2", False),
        (6060, "0.25.2", False),
    ],
)
def test_debug_addresses(address: t.Any, version: str, ok: bool) -> None:
    """Where only the host itself reaches it, and in a form that the release knows."""
    assert (problems({"grpc": {"debugAddress": address}}, version) == []) is ok


def test_entitlements_by_release() -> None:
    """Devices came later."""
    config = {"insecure-entitlements": ["network.host", "device"]}
    assert problems(config, "0.20.0") == []
    assert "has 'device'" in problems(config, "0.19.0")[0]


@pytest.mark.parametrize("secret", ["s" * 500])
def test_values_are_not_shown_without_end(secret: str) -> None:
    """A pasted file does not fill the screen."""
    assert len(problems(oci(gc=secret))[0]) < 200


def test_every_kind_of_value_is_used_and_known() -> None:
    """The table and the checks name the same kinds."""
    assert {key.kind for key in keys.KEYS.values()} == set(values.KINDS)


GOOD = {
    "debug": True,
    "insecure-entitlements": ["network.host", "security.insecure", "device"],
    "log": {"format": "json", "level": "info"},
    "dns": {"nameservers": ["192.0.2.1", "2001:db8::1"], "options": ["edns0"], "searchDomains": ["example.com"]},
    "history": {"maxAge": "172800", "maxEntries": 10},
    "registry": {
        "docker.io": {"mirrors": ["mirror.example.com:5000/a/b", "[2001:db8::1]:5000"], "ca": ["/etc/ca.pem"]},
        "mirror.example.com:5000": {"http": True, "keypair": [{"key": "/k", "cert": "/c"}]},
    },
    "frontend": {"dockerfile.v0": {"enabled": True}, "gateway.v0": {"allowedRepositories": ["docker.io/docker/x"]}},
    "system": {"platformsCacheMaxAge": "1h", "maxRegistryConcurrency": 2},
    "cache": {"gha": {"verify": {"required": True, "policy": {"tlogThreshold": 1}}, "sign": {"command": ["cosign"]}}},
    "worker": {
        "oci": {
            "labels": {"a.b/c": "d"},
            "max-parallelism": 0,
            "gcpolicy": [
                {
                    "filters": ["type==source.local", "type==exec.cachemount,inuse"],
                    "keepDuration": "1h30m",
                    "keepBytes": 0,
                },
                {"all": True, "reservedSpace": "10%", "maxUsedSpace": "1.5TiB", "minFreeSpace": 10**10},
            ],
        },
        "containerd": {"enabled": False},
    },
}


def test_what_is_right_is_taken() -> None:
    """Every form of every kind of value."""
    assert problems(GOOD) == []
