# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all wishes and all states that earlier runs left, looked for by Hypothesis.

What was carried out leaves nothing to do, check mode foretells it, and OpenSSL accepts every certificate for what it
is meant for, by the CA file that its peer has.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import typing as t
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import csr, fleet, keys
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import CutOffError
from ansible_collections.buildfarm.buildkit.plugins.modules import buildkit_pki
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki import disk
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.module_utils.pki.scenes import options_of
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.run_module import snapshot
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

START = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)

# The same examples in each run: what fails, fails for everyone. Nothing is kept between runs, and time is no failure.
reproducible = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> t.Iterator[None]:
    """Nothing here loses its power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


# --- wishes ---------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"\A[a-z0-9_][a-z0-9._@+-]{0,11}\Z")
DURATIONS = st.sampled_from(
    [("1d", None), ("36h", "12h"), ("2w", "1d"), ("90d", None), ("90d", "89d"), ("400d", "30d")]
)
CA_DURATIONS = st.sampled_from([("3650d", None), ("100d", None), ("100d", "1d"), ("3d", "60h")])
# RSA takes a second to make; it has the tests of the profiles and of real handshakes.
KEY_TYPES = st.sampled_from(["ecdsa-p256", "ecdsa-p384"])


def sans_of(number: int) -> st.SearchStrategy[dict[str, list[str]]]:
    """Names and addresses that no daemon with another number has."""
    dns = st.sampled_from([f"b{number}.example.com", f"*.b{number}.example.com", f"B{number}", f"x.b-{number}.example"])
    addresses = st.sampled_from([f"192.0.2.{number}", f"2001:db8::{number:x}"])
    both = st.fixed_dictionaries({"dns": st.lists(dns, max_size=3), "ip": st.lists(addresses, max_size=2)})
    return both.filter(lambda sans: bool(sans["dns"] or sans["ip"]))


NEXT = "the next phase"
GROUPS = ("default", "release", "night")


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, t.Any]:
    """Options of one run: some daemons and clients in groups, with keys here or where they are used."""
    trust = draw(st.sampled_from(["ca", "ca", "pinned"]))
    clients = [
        {"name": name, "group": draw(st.sampled_from(GROUPS)), "host": trust == "ca" and draw(st.booleans())}
        for name in draw(st.lists(NAMES, unique_by=str.lower, min_size=trust == "pinned", max_size=3))
    ]
    wished = sorted({client["group"] for client in clients})
    admits = st.lists(st.sampled_from(wished), min_size=1, unique=True) if wished else st.none()
    hosts = draw(st.lists(st.sampled_from(range(1, 5)), unique=True, max_size=3))
    daemons = [
        {
            "name": f"build-{number}",
            **draw(sans_of(number)),
            "host": draw(st.booleans()),
            "admits": draw(st.none() | admits),
        }
        for number in hosts
    ]
    valid_for, renew_before = draw(DURATIONS)
    ca_valid_for, ca_renew_before = draw(CA_DURATIONS)
    return {
        "daemons": daemons,
        "clients": clients,
        "trust": trust,
        "valid_for": valid_for,
        "renew_before": renew_before,
        "key_type": draw(KEY_TYPES),
        "ca": {"valid_for": ca_valid_for, "renew_before": ca_renew_before, "key_type": draw(KEY_TYPES)},
        "rollover": draw(st.sampled_from([None, NEXT, NEXT])),
        "accept_missing": True,  # what is refused for the sake of clients has tests of its own
    }


# Runs with the time that passes before each, from none to longer than a CA lives.
HISTORIES = st.lists(
    st.tuples(st.sampled_from([0, 1, 24, 24 * 20, 24 * 70, 24 * 400]), fleets()), min_size=1, max_size=5
)


class Controller:
    """A PKI directory, the hosts of its daemons, and a clock."""

    def __init__(self, directory: str) -> None:
        self.pki = Path(directory, "pki")
        self.now = START
        self._hosts: dict[tuple[str, str], t.Any] = {}

    def options(self, wishes: dict[str, t.Any]) -> dict[str, t.Any]:
        """The module's options; a daemon or client whose key is on its host comes with a request."""
        items = {
            kind: [
                {**{key: value for key, value in item.items() if key != "host"}, "csr": self._request(kind, item)}
                for item in wishes[kind]
            ]
            for kind in ("daemons", "clients")
        }
        return options_of(buildkit_pki, path=str(self.pki), **{**wishes, **items})

    def decided(self, wishes: dict[str, t.Any]) -> dict[str, t.Any]:
        """The wishes with the phase of a rollover that is next, if one is wished and nothing stands against it."""
        authority = self.pki / disk.SIGNING
        without = {**wishes, "rollover": None}
        if wishes["rollover"] != NEXT or not authority.exists():
            return without
        at = {"next": "issue", "previous": "retire"}
        phase = next((then for name, then in at.items() if (authority / name).exists()), "distribute")
        wanted = {**wishes, "rollover": {"phase": phase, "accept_missing": True}}
        try:
            self.run(self.options(wanted), predict=True)
        except CutOffError:
            with pytest.raises(CutOffError, match="still have certificates of it"):
                self.run(self.options(wanted))
            return without
        return wanted

    def _request(self, kind: str, item: dict[str, t.Any]) -> str | None:
        where = (kind, item["name"])
        if not item["host"] and (kind == "clients" or where not in self._hosts):
            return None
        return csr.build_request(item["name"], self._hosts.setdefault(where, keys.generate("ecdsa-p256")))

    def run(self, options: dict[str, t.Any], *, predict: bool = False) -> dict[str, t.Any]:
        """What the module does."""
        return fleet.run(options, now=self.now, predict=predict)


def reasons(result: dict[str, t.Any]) -> dict[str, list[str]]:
    """Who changed, and why."""
    items = [item for kind in ("authorities", "daemons", "clients") for item in result[kind]]
    return {item["path"]: item["reasons"] for item in items if item["changed"]}


def refused_by_openssl(trusted: Path, leaves: t.Sequence[Path], purpose: str, now: datetime) -> str:
    """What ``openssl verify -x509_strict`` says of certificates that it does not accept."""
    if not leaves:
        return ""
    at = ("-attime", str(int(now.timestamp())))
    command = ["openssl", "verify", "-x509_strict", *at, "-purpose", purpose, "-CAfile", trusted, *leaves]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.count(": OK") + done.stderr.count("verification failed") == len(leaves), done.stderr
    return done.stderr


@reproducible
@given(HISTORIES)
def test_any_run_leaves_nothing_to_do_and_certificates_that_openssl_accepts(
    history: list[tuple[int, dict[str, t.Any]]],
) -> None:
    """Over any history of wishes: foretold, carried out, and then at rest."""
    with tempfile.TemporaryDirectory() as directory:
        controller = Controller(directory)
        for hours, wishes in history:
            controller.now += timedelta(hours=hours)
            wishes = controller.decided(wishes)
            options = controller.options(wishes)
            foretold = controller.run(options, predict=True)
            done = controller.run(options)
            assert reasons(foretold) == reasons(done)
            assert foretold["changed"] == done["changed"] == bool(reasons(done))
            settled = snapshot(controller.pki)
            again = controller.run(controller.options(wishes))
            assert (reasons(again), again["changed"]) == ({}, False)
            assert snapshot(controller.pki) == settled
            assert disk.read(controller.pki).faults == ()
            assert [fault for item in wishes["daemons"] for fault in misfits(controller, "daemons", item)] == []
            assert [fault for item in wishes["clients"] for fault in misfits(controller, "clients", item)] == []
            daemons = [controller.pki / "daemons" / item["name"] / "cert.pem" for item in wishes["daemons"]]
            for item in wishes["daemons"]:
                trusted = controller.pki / "daemons" / item["name"] / "ca.pem"
                admitted = [
                    controller.pki / "clients" / client["name"] / "cert.pem"
                    for client in wishes["clients"]
                    if item["admits"] is None or client["group"] in item["admits"]
                ]
                assert refused_by_openssl(trusted, admitted, "sslclient", controller.now) == ""
            for item in wishes["clients"]:
                trusted = controller.pki / "clients" / item["name"] / "ca.pem"
                assert refused_by_openssl(trusted, daemons, "sslserver", controller.now) == ""


def misfits(controller: Controller, kind: str, item: dict[str, t.Any]) -> t.Iterator[str]:
    """What a certificate on disk does not say as it was wished, read with cryptography alone."""
    [certificate] = disk.certificates(controller.pki / kind / item["name"] / "cert.pem")
    extensions = certificate.extensions
    wanted = {*(f"DNS:{name.lower()}" for name in item.get("dns", ())), *(f"IP:{one}" for one in item.get("ip", ()))}
    said: set[str] = set()
    with contextlib.suppress(x509.ExtensionNotFound):
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        said = {f"{'DNS' if isinstance(name, x509.DNSName) else 'IP'}:{name.value}" for name in names}
    if said != wanted:
        yield f"{item['name']} has the names {said}, not {wanted}"
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if kind == "daemons" else ExtendedKeyUsageOID.CLIENT_AUTH
    if list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) != [purpose]:
        yield f"{item['name']} is for another purpose"
    if (
        certificate.subject.rfc4514_string()
        != x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, item["name"])]).rfc4514_string()
    ):
        yield f"{item['name']} has another subject"
    if not certificate.not_valid_before_utc <= controller.now < certificate.not_valid_after_utc:
        yield f"{item['name']} is not valid now"


@reproducible
@given(fleets(), st.data())
def test_any_order_of_the_same_wishes_is_the_same(wishes: dict[str, t.Any], data: st.DataObject) -> None:
    """Lists are sets: another order, a repeated name and another spelling change nothing."""
    with tempfile.TemporaryDirectory() as directory:
        controller, wishes = Controller(directory), {**wishes, "rollover": None}
        controller.run(controller.options(wishes))
        shuffled = {
            **wishes,
            "daemons": [
                {
                    **daemon,
                    "dns": [*(name.upper() for name in reversed(daemon["dns"])), *daemon["dns"][:1]],
                    "ip": data.draw(st.permutations(daemon["ip"])),
                }
                for daemon in data.draw(st.permutations(wishes["daemons"]))
            ],
            "clients": data.draw(st.permutations(wishes["clients"])),
        }
        assert reasons(controller.run(controller.options(shuffled))) == {}


@reproducible
@given(fleets(), st.sets(st.integers(min_value=0, max_value=20)))
def test_a_directory_with_missing_files_is_mended_or_refused(wishes: dict[str, t.Any], gone: set[int]) -> None:
    """Any files of leaves lost, and the register too: made again where they can be, and then at rest."""
    with tempfile.TemporaryDirectory() as directory:
        controller = Controller(directory)
        options = controller.options({**wishes, "rollover": None})
        controller.run(options)
        had = disk.read(controller.pki)
        lost = sorted([*controller.pki.glob("daemons/*/*.pem"), *controller.pki.glob("clients/*/*.pem")])
        lost.append(controller.pki / "issued.json")
        for number in sorted(gone):
            if number < len(lost):
                lost[number].unlink()
        controller.run(options)
        after = disk.read(controller.pki)
        assert (after.faults, after.authority_keys) == ((), had.authority_keys)
        assert controller.run(options)["changed"] is False
        assert json.loads((controller.pki / "issued.json").read_text())["certificates"]
        assert disk.unregistered(controller.pki) == []
