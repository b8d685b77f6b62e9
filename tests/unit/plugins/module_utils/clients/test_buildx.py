# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wish for a builder of buildx, what is refused of it, and how it meets what is stored."""

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients import buildx, endpoints, platforms
from ansible_collections.buildfarm.buildkit.plugins.module_utils._clients.errors import ClientError

TLS = {"cacert": "/c/ca.pem", "cert": "/c/cert.pem", "key": "/c/key.pem"}
ONE = "tcp://b1.example.com:1234"
TWO = "tcp://b2.example.com:1234"


def wish(*nodes: t.Mapping[str, t.Any], **how: t.Any) -> buildx.Wish:
    """A builder with these nodes, by default with certificates for all of them."""
    return buildx.wish("pool", nodes, how.pop("tls", TLS), **how)


# What containerd's platforms package makes of them; checked with buildx itself in tests/integration.
SPELLINGS = {
    "linux/x86_64": "linux/amd64",
    "LINUX/aarch64": "linux/arm64",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm64/v9": "linux/arm64/v9",
    "linux/arm": "linux/arm/v7",
    "linux/armhf": "linux/arm/v7",
    "linux/armel": "linux/arm/v6",
    "linux/arm/v6": "linux/arm/v6",
    "linux/arm/6": "linux/arm/v6",
    "linux/i386": "linux/386",
    "linux/amd64/v1": "linux/amd64",
    "linux/amd64/v3": "linux/amd64/v3",
    "linux/riscv64": "linux/riscv64",
}


@pytest.mark.parametrize(("given", "stored"), SPELLINGS.items())
def test_platforms_have_one_spelling(given: str, stored: str) -> None:
    """Whatever it was written as, it is found again in what buildx stores."""
    assert platforms.normalize(given) == stored
    assert platforms.from_stored(platforms.to_stored(stored)) == stored


@pytest.mark.parametrize("text", ["linux", "arm64", "linux/", "/amd64", "linux/arm/v7/x", "linux amd64", ""])
def test_what_is_no_platform_is_refused(text: str) -> None:
    """Half a platform would mean another one on each machine."""
    with pytest.raises(ClientError, match="is none: write it as"):
        platforms.normalize(text)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://[2001:db8::1]:1234",
        "unix:///run/buildkit/buildkitd.sock",
        "ssh://build@b1.example.com:22/run/buildkit/buildkitd.sock",
        "docker-container://buildkitd?context=remote",
        "kube-pod://buildkitd-0?namespace=build&container=buildkitd",
    ],
)
def test_endpoints_of_the_remote_driver_are_taken(endpoint: str) -> None:
    """As they are, with certificates for tcp alone."""
    (node,) = wish({"endpoint": endpoint}).nodes
    assert node.endpoint == endpoint
    assert node.tls == (TLS if endpoint.startswith("tcp:") else {})


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("b1.example.com:1234", "no scheme"),
        ("http://b1.example.com", "no scheme"),
        ("podman-container://b", r"none that buildx's remote driver has: let docker-container://"),
        ("nerdctl-container://b", "none that buildx's remote driver has"),
        ("npipe:////./pipe/b", "it is for Windows"),
        ("tcp://b1.example.com", "needs a host and a port"),
        ("tcp://:1234", "needs a host and a port"),
        ("tcp://b1.example.com:0", "needs a host and a port"),
        ("tcp://b1.example.com:99999", "cannot be read"),
        ("tcp://b1.example.com:1234/x", "more than a host and a port"),
        ("tcp://b1.example.com:1234 ", "has a space"),
        ("unix://run/b.sock", "no absolute path"),
        ("ssh://u:secret@b1.example.com", "has a password"),
        ("tcp://u:secret@b1.example.com:99999", "has a password"),
        ("ssh://", "names no host"),
        ("ssh://b1.example.com?x=1", "more than user"),
        ("docker-container://", "names nothing"),
        ("kube-pod://?namespace=x", "names nothing"),
    ],
)
def test_other_endpoints_are_refused(endpoint: str, why: str) -> None:
    """With the reason, and without a password that stands in one."""
    with pytest.raises(ClientError, match=why) as refusal:
        wish({"endpoint": endpoint})
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.2:1235", "tcp://localhost:1235", "tcp://[::1]:1235"])
def test_plaintext_stays_on_this_machine(endpoint: str) -> None:
    """A proxy or a tunnel on loopback needs no certificates; anything else does."""
    assert endpoints.is_loopback(endpoint)
    assert wish({"endpoint": endpoint}, tls={}).nodes[0].tls == {}
    with pytest.raises(ClientError, match="over the network without TLS"):
        wish({"endpoint": ONE}, tls={})


@pytest.mark.parametrize(
    ("tls", "why"),
    [
        ({**TLS, "cacert": "ca.pem"}, "cacert of .* is ca.pem, which is no absolute path"),
        ({**TLS, "cert": "~/cert.pem"}, "no absolute path"),
        ({"cert": "/c/cert.pem", "key": "/c/key.pem"}, "no cacert"),
        ({"servername": "b1"}, "no cacert"),
        ({"cacert": "/c/ca.pem", "cert": "/c/cert.pem"}, "one of cert and key"),
        ({"cacert": "/c/ca.pem", "key": "/c/key.pem"}, "one of cert and key"),
    ],
)
def test_half_a_tls_setup_is_refused(tls: dict[str, str], why: str) -> None:
    """What buildx would refuse, or read from wherever it happens to run."""
    with pytest.raises(ClientError, match=why):
        wish({"endpoint": ONE}, tls=tls)


def test_tls_for_a_socket_is_refused() -> None:
    """buildx would speak TLS to a daemon that does not."""
    with pytest.raises(ClientError, match="TLS over tcp:// alone"):
        wish({"endpoint": "unix:///x", **TLS}, tls={})


def test_a_nodes_own_certificates_count_before_the_shared_ones() -> None:
    """One of another CA, the rest shared."""
    nodes = wish({"endpoint": ONE, "cacert": "/other/ca.pem", "servername": "b1"}, {"endpoint": TWO}).nodes
    assert nodes[0].tls == {**TLS, "cacert": "/other/ca.pem", "servername": "b1"}
    assert nodes[1].tls == TLS


@pytest.mark.parametrize("name", ["", "1pool", "-pool", "a pool", "a/b", "pöol", "pool\n"])
def test_names_that_buildx_does_not_take_are_refused(name: str) -> None:
    """Of builders and of nodes."""
    with pytest.raises(ClientError, match="cannot be named"):
        buildx.wish(name, [{"endpoint": ONE}], TLS)
    if name:
        with pytest.raises(ClientError, match="cannot be named"):
            wish({"endpoint": ONE, "name": name})


@pytest.mark.parametrize("name", ["default", "Default"])
def test_the_engines_own_builder_is_not_touched(name: str) -> None:
    """buildx calls it so."""
    with pytest.raises(ClientError, match="cannot be named default"):
        buildx.check_name(name)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([{"endpoint": ONE}, {"endpoint": ONE}], f"endpoint {ONE} is there twice"),
        ([{"endpoint": ONE, "name": "A"}, {"endpoint": TWO, "name": "a"}], "node name a is there twice"),
        (
            [{"endpoint": ONE, "platforms": ["linux/arm64"]}, {"endpoint": TWO, "platforms": ["linux/aarch64"]}],
            "platform linux/arm64 is there twice: .* buildkit_pick",
        ),
        ([], "at least one node"),
    ],
)
def test_nodes_that_would_not_do_what_they_promise_are_refused(nodes: list[dict[str, t.Any]], why: str) -> None:
    """The same endpoint, name or platform twice, and no node at all."""
    with pytest.raises(ClientError, match=why):
        wish(*nodes)


@pytest.mark.parametrize(
    ("version", "why"),
    [("0.13.1", "and 0.13.1 is used"), (None, "could not be told"), ("none", "could not be told")],
)
def test_default_load_is_refused_where_it_breaks_the_builder(version: str | None, why: str) -> None:
    """Before 0.14, and where nobody can tell."""
    with pytest.raises(ClientError, match=why):
        buildx.check_default_load(version, "/usr/bin/docker-buildx")


@pytest.mark.parametrize("version", ["0.14.0", "v0.29.1", "1.0.0"])
def test_default_load_is_taken_by_newer_ones(version: str) -> None:
    """And written as buildx writes it."""
    buildx.check_default_load(version, "here")
    stored = buildx.merge(None, wish({"endpoint": ONE}, default_load=True))
    assert stored["Nodes"][0]["DriverOpts"] == {**TLS, "default-load": "true"}


def test_a_new_builder_has_the_bytes_that_buildx_writes() -> None:
    """Taken from docker-buildx 0.13.1 and 0.29.1, which wrote the same."""
    wished = buildx.wish(
        "pool",
        [
            {"name": "n0", "endpoint": "tcp://127.0.0.1:1", "platforms": ["linux/amd64", "linux/arm/v7"]},
            {"name": "n1", "endpoint": "kube-pod://abc?namespace=x&container=y"},
        ],
        {"key": "/c/key.pem", "cert": "/c/cert.pem", "cacert": "/c/ca.pem", "servername": "x"},
    )
    assert buildx.dump(buildx.merge(None, wished)) == (
        b'{"Name":"pool","Driver":"remote","Nodes":[{"Name":"n0","Endpoint":"tcp://127.0.0.1:1","Platforms":'
        b'[{"architecture":"amd64","os":"linux"},{"architecture":"arm","os":"linux","variant":"v7"}],"DriverOpts":'
        b'{"cacert":"/c/ca.pem","cert":"/c/cert.pem","key":"/c/key.pem","servername":"x"},"Flags":null,"Files":null},'
        b'{"Name":"n1","Endpoint":"kube-pod://abc?namespace=x\\u0026container=y","Platforms":null,"DriverOpts":null,'
        b'"Flags":null,"Files":null}],"Dynamic":false}'
    )


def stored_by_others() -> buildx.Stored:
    """A builder that other tools made and noted things in."""
    return {
        "Name": "Pool",
        "Driver": "remote",
        "Nodes": [
            {
                "Name": "n0",
                "Endpoint": ONE,
                "Platforms": [{"os": "linux", "architecture": "x86_64"}],
                "DriverOpts": {**TLS, "of-a-newer-buildx": "1"},
                "Flags": ["--debug"],
                "Files": {"buildkitd.toml": "eA=="},
                "Noted": {"by": "somebody"},
            },
            {"Name": "n1", "Endpoint": TWO, "Platforms": [], "DriverOpts": dict(TLS)},
        ],
        "Dynamic": True,
        "Future": [1],
    }


def test_what_is_meant_already_is_left_as_it_is() -> None:
    """Empty and missing, other spellings, keys of others: no reason to write."""
    stored = stored_by_others()
    wished = wish(
        {"endpoint": ONE, "name": "n0", "platforms": ["linux/amd64"]}, {"endpoint": TWO, "name": "N1", "platforms": []}
    )
    after = buildx.merge(stored, wished)
    assert after == stored_by_others()
    assert buildx.reasons(stored, after) == []


def test_a_change_keeps_what_others_wrote() -> None:
    """One node moves, the other leaves; unknown keys and options stay."""
    stored, expected = stored_by_others(), stored_by_others()
    del expected["Nodes"][1]
    expected["Nodes"][0]["Endpoint"] = TWO
    expected["Nodes"][0]["DriverOpts"] = {"cacert": "/c/ca.pem", "of-a-newer-buildx": "1"}
    after = buildx.merge(stored, wish({"endpoint": TWO, "name": "n0"}, tls={"cacert": "/c/ca.pem"}))
    assert after == expected
    assert buildx.reasons(stored, after) == [
        "node n1 is not wanted any more",
        "node n0 has another endpoint",
        "node n0 has another set of driver options",
    ]
    assert stored == stored_by_others()


def test_platforms_that_are_not_named_stay() -> None:
    """But for one that another node gets, as when buildx adds a node."""
    stored = stored_by_others()
    nodes = [{"endpoint": ONE, "name": "n0"}, {"endpoint": TWO, "name": "n1", "platforms": ["linux/arm64"]}]
    assert buildx.merge(stored, wish(*nodes))["Nodes"][0]["Platforms"] == stored["Nodes"][0]["Platforms"]
    nodes[1]["platforms"] = ["linux/amd64"]
    after = buildx.merge(stored, wish(*nodes))
    assert [node["Platforms"] for node in after["Nodes"]] == [[], [{"architecture": "amd64", "os": "linux"}]]


def test_default_load_goes_only_when_asked() -> None:
    """Not named, it stays as it is."""
    stored = buildx.merge(None, wish({"endpoint": ONE}, default_load=True))
    assert buildx.merge(stored, wish({"endpoint": ONE})) == stored
    assert buildx.merge(stored, wish({"endpoint": ONE}, default_load=False))["Nodes"][0]["DriverOpts"] == TLS


def test_the_order_of_nodes_counts() -> None:
    """The first is the one for builds without a platform."""
    stored = buildx.merge(None, wish({"endpoint": ONE, "name": "a"}, {"endpoint": TWO, "name": "b"}))
    after = buildx.merge(stored, wish({"endpoint": TWO, "name": "b"}, {"endpoint": ONE, "name": "a"}))
    assert [node["Name"] for node in after["Nodes"]] == ["b", "a"]
    assert buildx.reasons(stored, after) == ["the nodes come in another order"]


@pytest.mark.parametrize("driver", ["docker-container", "kubernetes", ""])
def test_a_builder_of_another_driver_is_refused(driver: str) -> None:
    """It may own containers and a cache."""
    stored = {**stored_by_others(), "Driver": driver}
    with pytest.raises(ClientError, match="docker buildx rm Pool"):
        buildx.parse(json.dumps(stored).encode(), "/x")


def with_node(**changed: t.Any) -> bytes:
    """A builder with one node that has something odd."""
    return json.dumps({"Driver": "remote", "Name": "x", "Nodes": [{"Name": "n", "Endpoint": ONE, **changed}]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b'{"Driver":"remote"}', b'{"Driver":"remote","Name":"x","Nodes":[1]}', b"\xff"),
        *(b'{"Driver":"remote","Name":5,"Nodes":[]}', b'{"Driver":5,"Name":"x","Nodes":[]}', b"[" * 100_000),
        *(b'{"Driver":"remote","Name":"../x","Nodes":[]}', b'{"Driver":"remote","Name":"x","Nodes":"x"}'),
        *(b'{"Driver":"remote","Name":"x","Nodes":[],"V":NaN}'),
        *(with_node(DriverOpts="x"), with_node(DriverOpts=["x"]), with_node(DriverOpts={"cacert": 5})),
        *(with_node(Platforms="x"), with_node(Platforms=["linux/amd64"]), with_node(Platforms=[{"os": "linux"}])),
        *(with_node(V="\ud800"), with_node(V=float("nan")), with_node(Name=5), with_node(Endpoint=None)),
    ],
)
def test_what_buildx_did_not_write_is_refused(data: bytes) -> None:
    """With the file's name, and no traceback; and no certificate is found in it."""
    with pytest.raises(ClientError, match="/x/pool is not what buildx stores"):
        buildx.parse(data, "/x/pool")
    assert buildx.certificates_of(data, "/x/pool") == set()


CHOSEN = {"Key": "unix:///d", "Name": "pool", "Global": False}


@pytest.mark.parametrize(
    ("current", "default", "expected"),
    [
        ({}, True, {"Key": "", "Name": "pool", "Global": True}),
        (CHOSEN, True, {"Key": "unix:///d", "Name": "pool", "Global": True}),
        ({**CHOSEN, "Global": True}, True, {**CHOSEN, "Global": True}),
        ({**CHOSEN, "Name": "other"}, True, {"Key": "unix:///d", "Name": "pool", "Global": True}),
        (CHOSEN, False, {"Key": "unix:///d", "Name": "", "Global": False}),
        ({**CHOSEN, "Name": "other"}, False, {**CHOSEN, "Name": "other"}),
        (CHOSEN, None, CHOSEN),
        ({}, None, {}),
        ({}, False, {}),
    ],
)
def test_the_default_is_chosen_and_given_up(
    current: dict[str, t.Any], default: bool | None, expected: dict[str, t.Any]
) -> None:
    """Another one's is not given up."""
    before = copy.deepcopy(current)
    assert buildx.make_current(current, "pool", default=default) == expected
    assert current == before
