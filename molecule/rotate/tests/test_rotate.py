# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of a fleet from their first renewal to the revocation of a client, in this order.

Alice keeps on connecting to builders of both generations, with the files that she was given last. Bob gets his late.
The client ci is in a group of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import typing as t
from pathlib import Path

from rotation import HOSTS, SCRATCH, Fleet

Watching = t.Callable[[str], t.ContextManager[t.Any]]


class Processes(threading.Thread):
    """Collects the arguments of all processes of this machine, those in the hosts too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[bytes] = set()
        self.done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())


def secrets(fleet: Fleet) -> dict[str, str]:
    """Every line of a private key, and the passphrases; by where they are."""
    found = {str(path): path.read_text().strip() for path in (SCRATCH / "passphrase", SCRATCH / "imported/passphrase")}
    ca_key = fleet.pki / "authorities" / "default" / "key.pem"
    command = ["openssl", "pkey", "-in", str(ca_key), "-passin", f"file:{SCRATCH}/passphrase"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    texts = {path: path.read_text() for path in fleet.pki.rglob("key.pem")}
    texts[Path("the CA's key, decrypted")] = plain
    for host in HOSTS:
        texts[Path(host)] = fleet.inside(host, "cat", "/etc/buildkit/tls/key.pem")
    for path, text in texts.items():
        lines = [line for line in text.splitlines() if len(line) > 40]
        assert lines, path
        found.update({f"{path} {line[:8]}": line for line in lines})
    return found


def test_the_ca_is_the_imported_one(fleet: Fleet) -> None:
    """The first run signed with it, encrypted its key with the passphrase, and lets in whom it shall."""
    assert fleet.certificate("authorities", "default", "ca.pem") == fleet.fingerprint(
        (SCRATCH / "imported" / "ca.pem").read_text()
    )
    assert "ENCRYPTED" in (fleet.pki / "authorities" / "default" / "key.pem").read_text()
    assert all(fleet.accepted(name) == dict.fromkeys(HOSTS, True) for name in ("alice", "bob", "ci"))


def test_what_is_due_is_renewed(fleet: Fleet, watching: Watching) -> None:
    """New certificates everywhere, one restart each, nobody turned away; nothing secret is printed or an argument."""
    before = {host: (fleet.pids()[host], fleet.served(host)) for host in HOSTS}
    old = secrets(fleet)
    processes = Processes()
    processes.start()
    try:
        with watching("alice"):
            run = fleet.rotate("", "-vvv", "--diff")
    finally:
        processes.done.set()
        processes.join()
    assert run.code == 0, run.output
    assert f"Give alice {fleet.pki}/bundles/" in run.text
    for host, (pid, served) in before.items():
        assert fleet.pids()[host] != pid
        assert fleet.served(host) != served
        assert fleet.served(host) == fleet.certificate("daemons", host, "cert.pem")
    known = {**old, **secrets(fleet)}
    arguments = b"\0".join(processes.seen).decode(errors="replace")
    assert "ansible-playbook" in arguments
    assert "buildkitd" in arguments
    assert [where for where, secret in known.items() if secret in run.output] == []
    assert [where for where, secret in known.items() if secret in arguments] == []


def test_again_it_changes_nothing(fleet: Fleet) -> None:
    """Neither really nor in check mode, and it restarts nothing."""
    before = fleet.pids()
    run = fleet.rotate()
    assert run.changed == 0
    assert "No client needs new files." in run.text
    predicted = fleet.rotate("", "--check", "--diff")
    assert predicted.changed == 0
    assert fleet.pids() == before
    fleet.give("alice", "bob", "ci")


def test_the_ca_is_renewed_with_its_key(fleet: Fleet, watching: Watching) -> None:
    """The builders have the new certificate of the CA, and nobody needs new files."""
    before, key = fleet.certificate("authorities", "default", "ca.pem"), public_key(fleet)
    with watching("alice"):
        run = fleet.rotate("renew_ca")
    assert run.code == 0, run.output
    after = fleet.certificate("authorities", "default", "ca.pem")
    assert after != before
    assert public_key(fleet) == key
    for host in HOSTS:
        assert after == fleet.fingerprint(fleet.inside(host, "cat", "/etc/buildkit/tls/ca.pem"))
    assert fleet.accepted("bob") == dict.fromkeys(HOSTS, True)


def public_key(fleet: Fleet) -> str:
    """The public half of the CA's key."""
    command = ["openssl", "x509", "-in", str(fleet.pki / "authorities/default/ca.pem"), "-noout", "-pubkey"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_distribute_makes_everybody_trust_both(fleet: Fleet, watching: Watching) -> None:
    """No certificate of a builder or client changes, and what to do next is said."""
    before = {host: fleet.served(host) for host in HOSTS}
    trusted = {host: fleet.trusted(host) for host in HOSTS}
    with watching("alice"):
        run = fleet.rotate("distribute")
    assert run.code == 0, run.output
    assert {host: fleet.served(host) for host in HOSTS} == before
    assert {host: fleet.trusted(host) for host in HOSTS} == {host: number + 1 for host, number in trusted.items()}
    assert "CA default: phase distribute." in run.text
    assert "Not yet known to have their new files: alice, bob, ci. When they have:" in run.text
    assert '-e buildkit_rotate=issue -e \'{"buildkit_rotate_given": ["alice", "bob", "ci"]}\'' in run.text


def state(fleet: Fleet) -> dict[str, t.Any]:
    """What a refused run leaves as it is: all but the record of who was given what."""
    files = {str(path): path.read_bytes() for path in fleet.pki.rglob("*.pem") if path.name != "key.pem"}
    return {"pids": fleet.pids(), "files": files, "served": [fleet.served(host) for host in HOSTS]}


def test_issue_names_who_was_not_given_the_bundle(fleet: Fleet) -> None:
    """With nobody given, all; with Alice given, the others. And it wants all builders. Nobody else's files change."""
    fleet.give("alice")
    before = state(fleet)
    refused = fleet.rotate("issue")
    assert refused.code != 0
    assert "would lock out clients that are not known to have their new files: alice, bob, ci." in refused.text
    limited = fleet.rotate("issue", "--limit", "rotate-old", buildkit_rotate_given=["alice", "bob", "ci"])
    assert limited.code != 0
    assert "needs all builders in one run, and these are left out, or failed: rotate-new." in limited.text
    subprocess.run(["docker", "pause", "rotate-new"], check=True, capture_output=True)
    try:
        unreachable = fleet.rotate("issue")
        others = fleet.rotate()
    finally:
        subprocess.run(["docker", "unpause", "rotate-new"], check=True, capture_output=True)
    assert unreachable.code != 0
    assert "these are left out, or failed: rotate-new." in unreachable.text
    assert "Restart and prove the builder" not in unreachable.text
    assert "Not reached, or left out of this run: rotate-new. They are as they were." in others.text
    assert state(fleet) == before
    refused = fleet.rotate("issue", buildkit_rotate_given=["alice"])
    assert refused.code != 0
    assert "would lock out clients that are not known to have their new files: bob, ci." in refused.text
    assert state(fleet) == before


def test_issue_goes_on_after_it_was_killed(fleet: Fleet, watching: Watching) -> None:
    """All certificates are of the new CA, Alice is never turned away, and Bob is, as was accepted, until he has his."""
    before = {host: fleet.served(host) for host in HOSTS}
    yes = {"buildkit_rotate_accept_missing": True}
    with watching("alice"):
        printed = fleet.rotate_until("Service | Run buildkitd (certificate changed)", "issue", **yes)
        assert "Service | Run buildkitd (certificate changed)" in printed, printed
        run = fleet.rotate("issue", **yes)
    assert run.code == 0, run.output
    assert "CA default: phase issue." in run.text
    assert "Not yet known to have their new files: alice, bob." in run.text
    for host in HOSTS:
        assert fleet.served(host) != before[host]
        assert fleet.served(host) == fleet.certificate("daemons", host, "cert.pem")
    told = fleet.buildctl("rotate-new", fleet.files("bob"))
    assert told.returncode != 0
    assert "unknown authority" in told.stderr
    assert fleet.accepted("alice") == dict.fromkeys(HOSTS, True)
    fleet.give("bob", "ci")
    assert fleet.accepted("bob") == fleet.accepted("ci") == dict.fromkeys(HOSTS, True)


def test_retire_ends_the_old_ca(fleet: Fleet, watching: Watching) -> None:
    """Refused while somebody has only the old certificate; then it is accepted nowhere, and the new one everywhere."""
    refused = fleet.rotate("retire", buildkit_rotate_given=["bob"])
    assert refused.code != 0
    assert "would lock out clients that are not known to have their new files: alice." in refused.text
    old = fleet.files("alice")
    assert fleet.buildctl("rotate-old", old).returncode == 0
    fleet.give("alice")
    with watching("alice"):
        run = fleet.rotate("retire", buildkit_rotate_given=["alice"])
    assert run.code == 0, run.output
    assert "phase" not in run.output.rpartition("Report | What is left to do")[2]
    for host in HOSTS:
        assert fleet.buildctl(host, old).returncode != 0
    assert fleet.accepted("bob") == dict.fromkeys(HOSTS, True)


def test_a_group_is_left_out_of_one_builder(fleet: Fleet, watching: Watching) -> None:
    """Its client is refused there and builds elsewhere; the others do not notice."""
    assert fleet.accepted("ci") == dict.fromkeys(HOSTS, True)
    fleet.wishes["admits"] = {"rotate-old": ["default"]}
    with watching("alice"):
        run = fleet.rotate()
    assert run.code == 0, run.output
    assert fleet.accepted("ci") == {"rotate-old": False, "rotate-new": True}
    fleet.wishes["admits"] = {"rotate-old": ["release"]}
    refused = fleet.rotate()
    assert refused.code != 0
    assert "rotate-old does not admit the group default of the client buildkit-verify" in refused.text
    del fleet.wishes["admits"]


def test_pinned_clients_are_revoked_one_by_one(fleet: Fleet, watching: Watching) -> None:
    """Bob's builds die at once and he is refused by every tool, while Alice goes on."""
    fleet.wishes["buildkit_pki_trust"] = "pinned"
    run = fleet.rotate(buildkit_rotate_accept_missing=True)
    assert run.code == 0, run.output
    fleet.give("alice", "bob", "ci")
    assert [fleet.trusted(host) for host in HOSTS] == [4, 4]
    for name in ("alice", "bob", "ci"):
        assert fleet.accepted(name) == dict.fromkeys(HOSTS, True)
    with contextlib.ExitStack() as stack:
        steps = {host: stack.enter_context(endless_build(fleet, host, "bob")) for host in HOSTS}
        wish = {"buildkit_revoke": ["bob"], "buildkit_revoke_now": True}
        fleet.wishes["buildkit_clients"] = ["alice", {"name": "ci", "group": "release"}]
        stack.enter_context(watching("alice"))
        run = fleet.rotate(**wish)
        assert run.code == 0, run.output
        killing = "".join(task for task in run.output.split("TASK [") if "Kill the daemon with all its builds" in task)
        for host in HOSTS:  # told to stop, they would wait for them
            assert f"changed: [{host}]" in killing, run.output
        for host, client in steps.items():
            assert client.wait(timeout=120) != 0
            assert "86399" not in fleet.inside(host, "ps", "-eo", "args")
    assert "Revoked: bob." in run.text
    assert "the credentials of registries that builds used" in run.text
    assert [fleet.trusted(host) for host in HOSTS] == [3, 3]
    assert fleet.accepted("ci") == dict.fromkeys(HOSTS, True)
    for name, expected in (("alice", True), ("bob", False)):
        assert fleet.accepted(name) == dict.fromkeys(HOSTS, expected)
        verified = fleet.play("verify", buildkit_verify_tls_dir=str(fleet.files(name)))
        assert (verified.code == 0) == expected, verified.output
    for host in HOSTS:
        assert fleet.buildx_builds(host, "alice")
        assert not fleet.buildx_builds(host, "bob", limit=10)


@contextlib.contextmanager
def endless_build(fleet: Fleet, host: str, name: str) -> t.Iterator[subprocess.Popen[bytes]]:
    """A build that goes on for ever; yields its client once its step runs."""
    address, generation = HOSTS[host]
    context = fleet.directory / f"endless-{host}"
    context.mkdir()
    for path in fleet.inside(host, "sh", "-c", r"echo /bin/sleep; ldd /bin/sleep | grep -o '/[^ ]*'").split():
        target = context / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["docker", "cp", "--follow-link", f"{host}:{path}", str(target)], check=True, capture_output=True
        )
    (context / "Dockerfile").write_text('FROM scratch\nCOPY . /\nRUN ["/bin/sleep", "86399"]\n')
    command = [str(fleet.directory / f"buildctl-{generation}"), "--addr", f"tcp://{address}:1234"]
    command += ["--tlsdir", str(fleet.files(name)), "build", "--frontend", "dockerfile.v0"]
    command += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            deadline = time.monotonic() + 120
            while "86399" not in fleet.inside(host, "ps", "-eo", "args"):
                assert time.monotonic() < deadline, f"the build on {host} did not start"
                time.sleep(0.1)
            yield client
        finally:
            client.kill()
