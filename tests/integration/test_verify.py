# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of real daemons that are as they should be, and what a proof leaves behind."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import builds
import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit import (
    channel,
    control,
    endpoint,
    llb,
    messages,
    probe,
    smoke,
    verify,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Failure, Kind
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import LONG, until
from certificates import Authority, Pair
from daemon import Daemon, children


def as_client(address: str, authority: Authority, client: Pair) -> verify.Daemon:
    """A daemon to prove, with the good credentials."""
    return verify.Daemon(address, str(authority.path), str(client.cert), str(client.key))


def proof_of(*daemons: verify.Daemon, **settings: object) -> list[dict[str, object]]:
    """The reports in the form that modules return."""
    proof = verify.Proof(**{"connect_timeout": LONG, "build_timeout": LONG, **settings})
    return [report.as_dict() for report in verify.verify(daemons, proof)]


def buildctl(daemon: Daemon, *arguments: str) -> str:
    """What BuildKit's own client prints, over the unix socket."""
    command = [str(daemon.bin / "buildctl"), "--addr", daemon.unix, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_mtls_daemon_is_proved(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """A good daemon builds in both ways, refuses all three strangers, and everything it says of itself is returned."""
    [report] = proof_of(as_client(mtls.tcp, authority, client))
    assert report["failure"] is None
    assert report["ok"] is True
    assert report["version"].startswith("v0.")
    [worker] = report["workers"]
    assert worker["platforms"][0].startswith("linux/")
    assert worker["labels"]["org.mobyproject.buildkit.worker.snapshotter"] == "native"
    assert worker["gc_policy"][-1]["all"] is True
    assert worker["gc_policy"][-1]["reserved_space"] > 0
    assert worker["gc_policy"][0]["keep_duration"] == 48 * 3600
    certificate = report["certificate"]
    assert certificate["subject"] == "CN=server"
    assert certificate["issuer"] == "CN=Builders CA"
    assert certificate["sans"] == ["DNS:builder.example.com", "DNS:localhost", "IP:127.0.0.1"]
    assert certificate["days_left"] == 29
    assert report["refusals"] == {
        "no_certificate": {"refused": True, "how": "alert certificate_required"},
        "foreign_ca": {"refused": True, "how": "alert unknown_ca"},
        "plaintext": {"refused": True, "how": "connection closed"},
    }
    stages = ["connect", "tls", "info", "workers", *verify.DEFAULT_BUILDS, *verify.REFUSALS, "total"]
    assert list(report["timings_ms"]) == stages
    assert all(value > 0 for value in report["timings_ms"].values())


def test_fingerprint_is_that_of_the_file(mtls: Daemon, authority: Authority, client: Pair, server: Pair) -> None:
    """The fingerprint that is returned is what openssl says of the daemon's certificate file."""
    [report] = proof_of(as_client(mtls.tcp, authority, client), builds=(), refusals=())
    command = ["openssl", "x509", "-in", str(server.cert), "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.check_output(command, text=True)
    assert report["certificate"]["fingerprint"] == printed.partition("=")[2].strip().replace(":", "").lower()


def test_unix_socket_is_proved_without_tls(mtls: Daemon) -> None:
    """A unix socket needs no credentials, has no certificate and meets no strangers."""
    [report] = proof_of(verify.Daemon(mtls.unix))
    assert report["failure"] is None
    assert report["certificate"] is None
    assert report["refusals"] == {}
    assert "tls" not in report["timings_ms"]
    assert report["timings_ms"]["exec"] > 0
    assert report["timings_ms"]["dockerfile"] > 0


@pytest.mark.parametrize("wanted", [("exec",), ("dockerfile",), ("exec", "cache"), ("cache",), ()])
def test_only_the_wanted_builds_run(mtls: Daemon, wanted: tuple[str, ...]) -> None:
    """Builds that are not asked for do not run."""
    [report] = proof_of(verify.Daemon(mtls.unix), builds=wanted)
    assert report["ok"] is True
    assert [build for build in verify.BUILDS if build in report["timings_ms"]] == list(wanted)


def test_only_the_wanted_strangers_come(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """Refusals that are not asked for are not tried."""
    [report] = proof_of(as_client(mtls.tcp, authority, client), builds=(), refusals=("foreign_ca",))
    assert report["ok"] is True
    assert list(report["refusals"]) == ["foreign_ca"]


def test_name_of_the_certificate_can_be_another(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """An address that is in no certificate is proved under a name that is."""
    daemon = verify.Daemon(
        mtls.tcp, str(authority.path), str(client.cert), str(client.key), tls_hostname="builder.example.com"
    )
    [report] = proof_of(daemon)
    assert report["failure"] is None


def test_fleet_keeps_its_order_and_hides_nothing(mtls: Daemon, authority: Authority, client: Pair) -> None:
    """Each daemon has its own report, in the given order, and a dead one does not stop the others."""
    dead = verify.Daemon("unix:///run/nobody-listens-here.sock")
    good = as_client(mtls.tcp, authority, client)
    reports = proof_of(dead, good, verify.Daemon(mtls.unix), dead)
    assert [report["ok"] for report in reports] == [False, True, True, False]
    assert [report["address"] for report in reports] == [dead.address, mtls.tcp, mtls.unix, dead.address]


def test_proof_leaves_no_history(mtls: Daemon, tmp_path: Path) -> None:
    """A proof is in no list of builds, while a build of buildctl is."""

    def builds() -> int:
        return len(buildctl(mtls, "debug", "histories").splitlines())

    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n", encoding="utf-8")
    before = builds()
    proof_of(verify.Daemon(mtls.unix))
    assert builds() == before
    local = ("--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}")
    buildctl(mtls, "build", "--frontend", "dockerfile.v0", *local)
    assert builds() > before


def test_proof_leaves_no_process(mtls: Daemon) -> None:
    """No step of a proof goes on running."""
    proof_of(verify.Daemon(mtls.unix))
    until(lambda: children(mtls.process) == [], "the end of all steps")


def test_proof_leaves_no_file(
    mtls: Daemon, authority: Authority, client: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stranger's key, which ssl wants as a file, is gone afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    proof_of(as_client(mtls.tcp, authority, client), builds=(), refusals=("foreign_ca",))
    assert list(tmp_path.iterdir()) == []


def test_proxy_variables_do_not_apply(
    mtls: Daemon, authority: Authority, client: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment, which is for the web, is not asked for a builder."""
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "grpc_proxy",
    ):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    [report] = proof_of(as_client(mtls.tcp, authority, client))
    assert report["failure"] is None


def request_for(worker: control.Worker, *, ignore_cache: bool) -> Any:
    """A build of a step that prints the line, and whose result may come from the cache or not."""
    program = llb.File("/cached", probe.program(worker.platforms[0].architecture), mode=0o755)
    step = llb.run(llb.make_file(program), [program.path], name="run")
    graph = llb.definition(step)
    graph.metadata[step.digest].ignore_cache = ignore_cache
    request = messages.new("moby.buildkit.v1.SolveRequest", Internal=True, Definition=graph)
    request.Cache.SetInParent()
    return request


async def build(
    daemon: Daemon, *, ignore_cache: bool, times: int = 1, client_class: type[control.Control] = control.Control
) -> list[str]:
    """Run such a build, and return the references under which it ran."""
    connection = await channel.open_connection(channel.Peer(endpoint.parse(daemon.unix)), timeout=LONG)
    try:
        client = client_class(connection.channel, timeout=LONG)
        request = request_for((await client.workers())[0], ignore_cache=ignore_cache)
        references = []
        for _round in range(times):
            await smoke.run_request(request, client, name="exec", timeout=LONG)
            references.append(request.Ref)
        return references
    finally:
        await connection.close()


def test_build_that_only_the_cache_answers_is_no_proof(mtls: Daemon) -> None:
    """A step whose result comes from the cache prints nothing, and so is found out."""
    asyncio.run(build(mtls, ignore_cache=True))
    with pytest.raises(Failure, match="did not come back") as caught:
        asyncio.run(build(mtls, ignore_cache=False))
    assert caught.value.kind is Kind.BUILD_FAILED


def test_log_that_comes_late_is_waited_for(mtls: Daemon) -> None:
    """A build that ended well has one, so its absence for a moment is nothing against the daemon."""
    assert asyncio.run(build(mtls, ignore_cache=True, client_class=builds.LateStatus))


def test_build_may_run_again_at_once(mtls: Daemon) -> None:
    """Each run has a reference of its own, since a daemon refuses one that it has just seen."""
    references = asyncio.run(build(mtls, ignore_cache=True, times=2))
    assert len(set(references)) == 2
