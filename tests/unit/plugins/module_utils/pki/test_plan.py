# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner: what is done, and for which reasons. Nothing here touches a disk."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki import (
    compat,
    csr,
    facts,
    keys,
    plan,
    profiles,
    register,
    state,
    trust,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import (
    CsrError,
    ForeignTrustError,
    StoreError,
    WishError,
)
from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.wishes import (
    CLIENT,
    DAEMON,
    AuthorityWish,
    LeafWish,
    Life,
    Wishes,
)

DAY = timedelta(days=1)
CA_LIFE = Life(3650 * DAY, 1000 * DAY)
LIFE = Life(90 * DAY, 30 * DAY)
CA_WISH = AuthorityWish("default", "BuildKit CA", "ecdsa-p256", CA_LIFE)
SANS = frozenset({"DNS:build-1.example.com", "IP:192.0.2.11"})
DAEMON_WISH = LeafWish(DAEMON, "build-1", LIFE, "ecdsa-p256", sans=SANS)
CLIENT_WISH = LeafWish(CLIENT, "ci", LIFE, "ecdsa-p256")


def make_ca(now: datetime, *, left: timedelta = 3650 * DAY, name: str = "BuildKit CA") -> state.Authority:
    """A CA with that much of its life left."""
    key = keys.generate("ecdsa-p256")
    return state.Authority(profiles.build_ca(profiles.subject(name), key, now=now, not_after=now + left), key)


def make_leaf(
    ca: state.Authority, wish: LeafWish, now: datetime, *, left: timedelta = 90 * DAY, **different: t.Any
) -> state.Leaf:
    """A leaf as ``wish`` wants it, or different in something."""
    key = keys.generate(different.pop("key_type", wish.key_type))
    values = {"usage": wish.usage, "sans": wish.sans, "now": now, "not_after": now + left, **different}
    name = values.pop("name", wish.name)
    certificate = profiles.build_leaf(name, key.public_key(), issuer=ca.certificate, issuer_key=ca.key, **values)
    return state.Leaf(certificate, key, trust.to_pem((ca.certificate,)))


def decide(
    now: datetime,
    ca: state.Authority | None,
    *leaves: tuple[LeafWish, state.Leaf | None],
    ca_wish: AuthorityWish = CA_WISH,
    predict: bool = False,
    shared_names: frozenset[str] = frozenset(),
    **found: t.Any,
) -> plan.Plan:
    """Plan for wishes, each with the leaf found on disk."""
    there = {(wish.kind, wish.name): leaf for wish, leaf in leaves if leaf is not None}
    authorities = {} if ca is None else {"default": state.AuthorityState(ca)}
    return plan.make_plan(
        Wishes(ca_wish, tuple(wish for wish, _leaf in leaves), shared_names, ca_name=ca_wish.common_name),
        state.State("/srv/pki", authorities, there, **found),
        now=now,
        predict=predict,
    )


def only(result: plan.Plan) -> tuple[str, tuple[str, ...]]:
    """Action and reasons of the only leaf."""
    (step,) = result.leaves
    return step.action, step.reasons


def test_an_empty_directory_gets_a_ca_and_all_leaves(now: datetime) -> None:
    """The ends are those asked for, to the second."""
    later = now + timedelta(microseconds=999)
    result = decide(later, None, (DAEMON_WISH, None), (CLIENT_WISH, None))
    assert result.changed
    assert (result.authorities[0].action, result.authorities[0].reasons) == ("create", ("/srv/pki holds no CA yet",))
    assert result.authorities[0].not_after == now + 3650 * DAY
    assert [step.action for step in result.leaves] == ["issue", "issue"]
    assert {step.reasons for step in result.leaves} == {("it has no certificate yet",)}
    assert {step.not_after for step in result.leaves} == {now + 90 * DAY}
    assert result.warnings == ()


def test_what_is_as_wished_is_kept(now: datetime) -> None:
    """No change, no reason, no warning."""
    ca = make_ca(now)
    result = decide(
        now, ca, (DAEMON_WISH, make_leaf(ca, DAEMON_WISH, now)), (CLIENT_WISH, make_leaf(ca, CLIENT_WISH, now))
    )
    assert not result.changed
    assert {step.action for step in (result.authorities[0], *result.leaves)} == {"keep"}
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (31 * DAY, None),
        (30 * DAY, None),
        (30 * DAY - timedelta(seconds=1), "it expires in 29 days (renew_before 30d)"),
        (12 * DAY, "it expires in 12 days (renew_before 30d)"),
        (timedelta(hours=5), "it expires in 5 hours (renew_before 30d)"),
        (timedelta(0), "it expired less than a minute ago"),
        (-3 * DAY, "it expired 3 days ago"),
    ],
)
def test_renewal_is_a_window(now: datetime, left: timedelta, reason: str | None) -> None:
    """Before the window nothing happens; inside it and after the end the reason says how late it is."""
    issued = now - 90 * DAY
    ca = make_ca(issued)
    leaf = make_leaf(ca, DAEMON_WISH, issued, left=90 * DAY + left)
    expected = ("keep", ()) if reason is None else ("issue", (reason,))
    assert only(decide(now, ca, (DAEMON_WISH, leaf))) == expected


@pytest.mark.parametrize(
    ("wish", "different", "reasons"),
    [
        (DAEMON_WISH, {"sans": SANS - {"IP:192.0.2.11"}}, ("SAN IP:192.0.2.11 added",)),
        (DAEMON_WISH, {"sans": SANS | {"DNS:old.example.com"}}, ("SAN DNS:old.example.com removed",)),
        (
            DAEMON_WISH,
            {"sans": frozenset({"DNS:x.org"})},
            ("SAN DNS:build-1.example.com added", "SAN IP:192.0.2.11 added", "SAN DNS:x.org removed"),
        ),
        (DAEMON_WISH, {"name": "other"}, ("its subject is 'other', not 'build-1'",)),
        (DAEMON_WISH, {"usage": facts.CLIENT}, ("it is for client, not for a server",)),
        (CLIENT_WISH, {"usage": facts.SERVER}, ("it is for server, not for a client",)),
        (CLIENT_WISH, {"sans": SANS}, ("SAN DNS:build-1.example.com removed", "SAN IP:192.0.2.11 removed")),
        (CLIENT_WISH, {"key_type": "ecdsa-p384"}, ("key type changes from ecdsa-p384 to ecdsa-p256",)),
    ],
)
def test_another_content_is_reissued_with_its_reasons(
    now: datetime, wish: LeafWish, different: dict[str, t.Any], reasons: tuple[str, ...]
) -> None:
    """Names are compared as sets; every difference is a reason of its own."""
    ca = make_ca(now)
    assert only(decide(now, ca, (wish, make_leaf(ca, wish, now, **different)))) == ("issue", reasons)


def test_the_certificate_of_a_ca_is_no_leaf(now: datetime) -> None:
    """A CA certificate put in the place of a leaf is replaced."""
    ca = make_ca(now, name="build-1")
    wish = replace(DAEMON_WISH, sans=frozenset())
    leaf = state.Leaf(ca.certificate, ca.key, trust.to_pem((ca.certificate,)))
    action, reasons = only(decide(now, ca, (wish, leaf)))
    assert action == "issue"
    assert "it is for a CA, not for a server" in reasons


def test_a_certificate_of_another_ca_is_reissued(now: datetime) -> None:
    """Even of one with the same name."""
    leaf = make_leaf(make_ca(now), CLIENT_WISH, now)
    assert only(decide(now, make_ca(now), (CLIENT_WISH, leaf))) == ("issue", ("it was issued by another CA",))


def test_key_and_certificate_must_belong_together(now: datetime) -> None:
    """A foreign key and a missing one are reasons for a client."""
    ca = make_ca(now)
    leaf = make_leaf(ca, CLIENT_WISH, now)
    foreign = replace(leaf, key=keys.generate("ecdsa-p256"))
    assert only(decide(now, ca, (CLIENT_WISH, foreign))) == ("issue", ("it does not match its key",))
    assert only(decide(now, ca, (CLIENT_WISH, replace(leaf, key=None)))) == ("issue", ("its key is missing",))


def test_a_request_decides_by_its_key_alone(now: datetime) -> None:
    """The same key keeps the certificate whatever key_type says; another key gets another certificate."""
    ca = make_ca(now)
    leaf = replace(make_leaf(ca, DAEMON_WISH, now), key=None)
    host_key = make_leaf(ca, DAEMON_WISH, now).key
    same = csr.Request(leaf.certificate.public_key(), None, frozenset())
    other = csr.Request(host_key.public_key(), None, frozenset())
    wish = replace(DAEMON_WISH, key_type="ecdsa-p384")
    assert only(decide(now, ca, (replace(wish, request=same), leaf))) == ("keep", ())
    assert only(decide(now, ca, (replace(wish, request=other), leaf))) == ("issue", ("the host has a new key",))


def test_a_daemon_with_its_key_on_its_host_needs_a_request_when_due(now: datetime) -> None:
    """Without one it is kept while it is good; then it is an error, and in check mode a prediction."""
    ca = make_ca(now)
    good = replace(make_leaf(ca, DAEMON_WISH, now), key=None)
    due = replace(make_leaf(ca, DAEMON_WISH, now, left=5 * DAY), key=None)
    assert only(decide(now, ca, (DAEMON_WISH, good))) == ("keep", ())
    with pytest.raises(CsrError, match=r"daemon build-1 must be re-issued \(it expires in 5 days .* pass a CSR"):
        decide(now, ca, (DAEMON_WISH, due))
    assert only(decide(now, ca, (DAEMON_WISH, due), predict=True))[0] == "issue"


def test_a_ca_inside_its_window_is_renewed_with_its_key(now: datetime) -> None:
    """Leaves stay valid, get the new CA file, and the reasons say so."""
    issued = now - 3000 * DAY
    ca = make_ca(issued)
    result = decide(now, ca, (CLIENT_WISH, make_leaf(ca, CLIENT_WISH, now)))
    assert result.authorities[0].action == "renew"
    assert result.authorities[0].reasons == ("it expires in 650 days (renew_before 1000d)",)
    assert result.authorities[0].not_after == now + 3650 * DAY
    assert result.authorities[0].signer is ca
    assert only(result) == ("refresh", ("the CA certificate is renewed",))


def test_an_outdated_ca_file_beside_a_leaf_is_refreshed(now: datetime) -> None:
    """The leaf's certificate stays."""
    ca = make_ca(now)
    leaf = make_leaf(ca, CLIENT_WISH, now)
    for bundle in (None, b"", b"hello", trust.to_pem((make_ca(now).certificate,))):
        result = decide(now, ca, (CLIENT_WISH, replace(leaf, bundle=bundle)))
        assert only(result) == ("refresh", ("its CA file is missing or outdated",))


def test_no_leaf_outlives_its_ca(now: datetime) -> None:
    """It ends with its CA and the user is told; asking again changes nothing, even inside the window."""
    ca_wish = replace(CA_WISH, life=Life(3650 * DAY, DAY))
    ca = make_ca(now, left=20 * DAY)
    result = decide(now, ca, (CLIENT_WISH, None), ca_wish=ca_wish)
    assert result.leaves[0].not_after == now + 20 * DAY
    assert "end with their CA on 2026-12-11T09:30:00Z" in result.warnings[0]
    assert "client ci" in result.warnings[0]
    again = decide(now + DAY, ca, (CLIENT_WISH, make_leaf(ca, CLIENT_WISH, now, left=20 * DAY)), ca_wish=ca_wish)
    assert only(again) == ("keep", ())
    assert len(again.warnings) == 1


def test_a_leaf_that_outlives_its_ca_is_reissued(now: datetime) -> None:
    """It would fail before its own end."""
    ca_wish = replace(CA_WISH, life=Life(3650 * DAY, DAY))
    ca = make_ca(now, left=20 * DAY)
    action, reasons = only(decide(now, ca, (CLIENT_WISH, make_leaf(ca, CLIENT_WISH, now)), ca_wish=ca_wish))
    assert action == "issue"
    assert reasons == ("it outlives its CA, which ends on 2026-12-11T09:30:00Z",)


def test_an_existing_ca_keeps_its_name_and_key_type(now: datetime) -> None:
    """Another name or key would be another CA; the wish is answered by a warning."""
    ca = make_ca(now)
    wish = replace(CA_WISH, common_name="Other", key_type="rsa-3072")
    result = decide(now, ca, ca_wish=wish)
    assert not result.changed
    assert ["keeps its name 'BuildKit CA'" in result.warnings[0], "ecdsa-p256 key" in result.warnings[1]] == [True] * 2


def test_a_ca_from_the_future_means_a_wrong_clock(now: datetime) -> None:
    """A clock set back a year is an error, not a reason to re-issue everything."""
    with pytest.raises(StoreError, match="set the clock right"):
        decide(now - 365 * DAY, make_ca(now))


def test_a_leaf_from_the_future_is_reissued(now: datetime) -> None:
    """It was issued while the clock was ahead, and nobody would accept it today."""
    ca = make_ca(now)
    leaf = make_leaf(ca, CLIENT_WISH, now + 365 * DAY)
    assert only(decide(now, ca, (CLIENT_WISH, leaf))) == ("issue", ("it is valid only from 2027-11-21T08:30:00Z on",))


@pytest.mark.parametrize("has_ca", [True, False])
@pytest.mark.parametrize("predict", [True, False])
def test_a_host_that_trusts_another_ca_stops_the_run(now: datetime, has_ca: bool, predict: bool) -> None:
    """A lost or a second PKI directory: the message has the fingerprint, the path and the remedies."""
    wish = replace(DAEMON_WISH, trusts=frozenset({"ab" * 32}))
    with pytest.raises(ForeignTrustError) as caught:
        decide(now, make_ca(now) if has_ca else None, (wish, None), predict=predict)
    text = str(caught.value)
    assert "ab" * 32 in text
    assert "/srv/pki holds " + ("a different CA" if has_ca else "no CA") in text
    for remedy in ("Restore the PKI directory from a backup", "buildkit_pki_dir", "remove the builder first"):
        assert remedy in text


def test_a_host_that_trusts_our_ca_is_welcome(now: datetime) -> None:
    """One of ours among its CAs is enough, and so is one from before a renewal."""
    ca = make_ca(now)
    ours, past, foreign = compat.fingerprint(ca.certificate), "cd" * 32, "ab" * 32
    for trusts in ({ours}, {ours, foreign}, {past}):
        wish = replace(DAEMON_WISH, trusts=frozenset(trusts))
        known = register.Register(({"kind": "ca", "name": "default", "fingerprint": past},))
        assert decide(now, ca, (wish, None), register=known).changed


def test_names_of_daemons_outside_this_run_stay_reserved(now: datetime) -> None:
    """As long as their certificates are valid, unless the name is shared on purpose."""
    ca = make_ca(now)
    others = {(DAEMON, "build-9"): make_leaf(ca, DAEMON_WISH, now, left=10 * DAY, name="build-9")}
    with pytest.raises(WishError, match=r"daemon build-9 has a certificate until .*/srv/pki/daemons/build-9"):
        decide(now, ca, (DAEMON_WISH, None), others=others)
    assert decide(now, ca, (DAEMON_WISH, None), others=others, shared_names=SANS).changed
    assert decide(now + 11 * DAY, ca, (DAEMON_WISH, None), others=others).changed
