# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input to the playbook site: each is refused before anything changes, and the message says what to do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import tarfile
import typing as t
from pathlib import Path

import pytest
from fleet import NAME, Builder, Fleet


def assert_refused(fleet: Fleet, *says: str, playbook: str = "site", **how: t.Any) -> None:
    """A run that fails with these words, without a traceback, and leaves everything as it was."""
    before = fleet.state()
    run = fleet.play(playbook, *how.pop("arguments", ()), **how)
    assert run.code != 0, run.output
    said = " ".join(run.output.replace("\\n", " ").replace('\\"', '"').split())
    assert [words for words in says if words not in said] == [], run.output
    assert "Traceback" not in run.output
    assert fleet.state() == before
    assert not [line for line in run.output.splitlines() if line.startswith("changed: ")]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"buildkitd_version": "latest"}, ["buildkitd_version is 'latest'", "Name one release, such as"]),
        ({"buildkitd_archive_sha256": ""}, ["archive is set without its checksum", "Set buildkitd_archive_sha256"]),
        ({"buildkitd_archive_sha256": "0" * 64}, ["its sha256 is", "0" * 64, "nothing was installed"]),
        ({"buildkitd_archive": "/none.tar.gz"}, ["there is no archive /none.tar.gz on the controller"]),
        ({"buildkitd_config": {"grpc": {"tls": {"cert": "/x"}}}}, ["open to everyone", "use buildkitd_tls_dir"]),
        ({"buildkitd_config": {"grpc": {"debugAddress": "192.0.2.1:6060"}}}, ["Whoever reaches it needs no"]),
        ({"buildkit_pki_dir": "pki"}, ["buildkit_pki_dir is 'pki', which is no absolute path"]),
        (
            {
                "buildkit_config": {"worker": {"oci": {"gc": None, "maxParallelism": 2}}},
                "buildkit_cache_size": "200",
                "buildkit_proxy": {"https": "http://user:s3cret word@proxy.example.com"},
            },
            [
                "worker.oci.gc is None, but true or false is needed",
                "the nearest one is worker.oci.max-parallelism",
                "buildkitd_cache_size is '200', which is 200 bytes",
                "buildkitd_proxy.https is not a proxy",
            ],
        ),
        (
            {"buildkitd_network_blocked": ["host", "999.1.1.1"], "buildkitd_prune_interval": "10x"},
            ["buildkitd_network_blocked is host, 999.1.1.1: it may hold", "buildkitd_prune_interval is '10x'"],
        ),
        ({"buildkit_names": [], "buildkit_addresses": []}, ["neither dns nor ip", "List what they dial"]),
        ({"buildkit_names": "b1.example.com"}, ["buildkit_names of host builder must be a list"]),
        ({"buildkit_clients": ["../x"]}, ["../x", "cannot be the name of a client"]),
        ({"buildkit_clients": "alice"}, ["buildkit_clients must be a list of names, such as [alice]"]),
        ({"buildkit_endpoint": "http://127.0.0.1:1234"}, ["The endpoint of host builder", "use one of tcp://, unix://"]),
        ({"buildkit_listen_address": "localhost"}, ["The listen address 'localhost' is no IP address"]),
        (
            {"buildkit_pki_valid_for": "30d", "buildkit_pki_renew_before": "31d"},
            ["renew_before (31d) is not shorter than valid_for (30d)"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(fleet: Fleet, variables: dict[str, t.Any], says: list[str]) -> None:
    """Each is refused on a host on which nothing was done yet, and no PKI is made."""
    assert_refused(fleet, *says, **variables)
    assert not fleet.pki.exists()


def test_two_daemons_with_one_name(fleet: Fleet) -> None:
    """Each could answer for the other."""
    fleet.hosts["second"] = {"buildkit_names": ["LOCALHOST"], "buildkit_addresses": ["127.0.0.2"]}
    assert_refused(fleet, f"daemons {NAME} and second both ask for", "localhost", "shared_names")


def test_a_port_in_use_by_something_else(fleet: Fleet) -> None:
    """Who holds it is told."""
    with socket.create_server(("127.0.0.1", fleet.port)):
        assert_refused(
            fleet,
            f"port {fleet.port} is in use by something else",
            f"(process {os.getpid()})",
            "Stop it, or set buildkit_port",
        )


def test_a_foreign_program_where_a_link_is_to_be(fleet: Fleet) -> None:
    """It belongs to somebody else."""
    (fleet.host / "bin").mkdir()
    (fleet.host / "bin" / "buildctl").write_text("of another package")
    assert_refused(fleet, f"Linking {fleet.host}/bin/buildctl to BuildKit failed", "set buildkitd_bin_dir")


def test_an_unsupported_platform(fleet: Fleet) -> None:
    """The host says that it is a machine for which there is no release."""
    machine = fleet.directory / "machine"
    machine.mkdir()
    (machine / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'mips64'\n")
    fleet.variables["ansible_python_interpreter"] = fleet.interpreter(libraries=[machine])
    assert_refused(fleet, "there is no BuildKit release for the platform mips64", "amd64, arm64, arm-v7")


def test_a_host_without_systemd(fleet: Fleet) -> None:
    """A plain process is offered, and never a silent fallback."""
    fleet.variables["ansible_python_interpreter"] = fleet.interpreter(
        '[ ! -d /run/systemd/system ] || [ -n "$hidden" ] || hidden=1 exec unshare --mount '
        'sh -c \'mount -t tmpfs none /run/systemd && exec "$0" "$@"\' "$0" "$@"',
    )
    assert_refused(
        fleet,
        "systemd is not running here",
        "Set buildkitd_service_manager: process",
        buildkitd_service_manager="systemd",
    )


def test_an_archive_without_the_daemon(fleet: Fleet, tmp_path: Path) -> None:
    """Its checksum is right, and it is something else."""
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("bin/buildctl")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"1234"))
    assert_refused(
        fleet,
        f"{path} has no bin/buildkitd",
        buildkitd_archive=str(path),
        buildkitd_archive_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


@pytest.mark.parametrize(
    ("library", "package"),
    [("grpclib", "grpclib"), ("tomli_w", "tomli-w"), ("cryptography", "cryptography")],
)
def test_a_library_that_is_missing_on_the_controller(fleet: Fleet, library: str, package: str) -> None:
    """It is named, with how to install it, even where it would be needed only at the end."""
    fleet.variables["ansible_python_interpreter"] = fleet.interpreter()
    assert_refused(
        fleet,
        f"the Python library {package} (",
        f"there is no {library}",
        f"apt-get install python3-{package}",
        f"-m pip install '{package}>=",
        libraries=[fleet.without(library)],
    )


def test_a_library_that_is_missing_on_the_host(fleet: Fleet) -> None:
    """Where the role may not install it, it says so."""
    fleet.variables["ansible_python_interpreter"] = fleet.interpreter(libraries=[fleet.without("cryptography")])
    assert_refused(
        fleet,
        f"{NAME} lacks the Python library cryptography",
        "python3-cryptography",
        "buildkit_pki_install_cryptography: true",
        buildkit_pki_install_cryptography=False,
    )


@pytest.mark.parametrize(
    ("present", "arguments"),
    [((), ()), (("cert.pem", "key.pem"), ()), (("cert.pem", "key.pem"), ("--check",))],
)
def test_tls_without_a_ca(fleet: Fleet, present: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """The role buildkitd alone, on a host with no certificate, or with one and no CA; check mode refuses too."""
    (fleet.host / "tls").mkdir()
    for name in present:
        (fleet.host / "tls" / name).write_text("x")
    has = ", ".join(present) or "no certificate"
    assert_refused(
        fleet,
        f"{fleet.host}/tls has {has}; ca.pem, cert.pem and key.pem are needed",
        "open to everyone. Run the role buildfarm.buildkit.buildkit_pki on this host first",
        playbook=fleet.role("buildkitd"),
        arguments=arguments,
    )


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> t.Iterator[None]:
    """A file with other content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


class TestWithABuilder:
    """A builder runs already: the run is refused, and the builder lives on."""

    @pytest.fixture(autouse=True)
    def _the_same_daemon(self, builder: Builder) -> t.Iterator[None]:
        pid = builder.fleet.pid()
        assert pid
        yield
        assert builder.fleet.pid() == pid

    @pytest.mark.parametrize("given", ["", "a wrong one"])
    def test_a_wrong_passphrase(self, builder: Builder, given: str) -> None:
        """Or none: no new CA is made in the place of one that cannot be read."""
        fleet: Fleet = builder.fleet
        assert_refused(fleet, f"{fleet.pki}/authorities/default/key.pem", buildkit_pki_ca_passphrase=given)

    def test_a_pki_directory_that_others_can_read(self, builder: Builder) -> None:
        """With the command that closes it."""
        fleet: Fleet = builder.fleet
        fleet.pki.chmod(0o755)
        try:
            assert_refused(fleet, f"chmod -R go= {fleet.pki}")
        finally:
            fleet.pki.chmod(0o700)

    def test_a_ca_file_that_is_no_ca(self, builder: Builder) -> None:
        """The certificate of a client in its place."""
        fleet: Fleet = builder.fleet
        leaf = (fleet.pki / "clients" / "alice" / "cert.pem").read_bytes()
        with replaced(fleet.pki / "authorities" / "default" / "ca.pem", leaf):
            assert_refused(fleet, "is not the certificate of a CA", "Restore the right file from a backup")

    def test_an_empty_pki_directory(self, builder: Builder, tmp_path: Path) -> None:
        """A second controller or a lost disk: the host already trusts a CA, so no other one is made."""
        other = tmp_path / "pki"
        assert_refused(
            builder.fleet,
            "already trusts another CA",
            "Restore the PKI directory from a backup",
            buildkit_pki_dir=str(other),
        )
        assert not other.exists()

    def test_a_lost_authority(self, builder: Builder, tmp_path: Path) -> None:
        """Certificates are on record and their CA is gone."""
        fleet: Fleet = builder.fleet
        shutil.move(fleet.pki / "authorities", tmp_path / "authorities")
        try:
            assert_refused(fleet, "has certificates on record and no CA", "Restore it from a backup")
        finally:
            shutil.move(tmp_path / "authorities", fleet.pki / "authorities")

    def test_a_pid_file_of_somebody_else(self, builder: Builder) -> None:
        """It cannot be told which process is ours."""
        fleet: Fleet = builder.fleet
        with replaced(fleet.host / "run" / "buildkitd.pid", b"1\n"):
            assert_refused(fleet, "nothing was killed. Stop that daemon by hand and remove the file")
