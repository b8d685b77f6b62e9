# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can go wrong between a client and a daemon, each cause with its own name and remedy."""

from __future__ import annotations

from enum import Enum

# Of what somebody else says, so many characters of its beginning and of its end are shown.
_SHOWN_BEGINNING, _SHOWN_END = 3000, 1000


def printable(text: str) -> str:
    """A text that may hold what a daemon or a program said, safe to show: no control characters, and not endless."""
    if len(text) > _SHOWN_BEGINNING + _SHOWN_END:
        text = f"{text[:_SHOWN_BEGINNING]} ... {text[-_SHOWN_END:]}"
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)


class Kind(Enum):
    """The cause of a failure. The value is the name that users see and match on; the remedy is one sentence."""

    remedy: str

    def __new__(cls, label: str, remedy: str) -> Kind:
        member = object.__new__(cls)
        member._value_ = label
        member.remedy = remedy
        return member

    UNREACHABLE = (
        "unreachable",
        "Check that the daemon runs and listens on this address, and that the name, the port and every "
        "firewall between are right.",
    )
    TIMEOUT = (
        "timeout",
        "Check the load of the daemon and the network between, or allow more time.",
    )
    HELPER_FAILED = (
        "helper_failed",
        "Run the command of the message in a shell where this runs, as the same user: it must say nothing, ask nothing "
        "and wait.",
    )
    NOT_TLS = (
        "not_tls",
        "Check that this is the port of buildkitd and that the daemon was started with its TLS certificate and key.",
    )
    TLS_EXPECTED = (
        "tls_expected",
        "The port wants TLS, so give the CA, a client certificate and its key.",
    )
    TLS_FAILED = (
        "tls_failed",
        "Check what answers on this port and which TLS versions it allows; 1.2 and 1.3 are ours.",
    )
    SERVER_CERTIFICATE_EXPIRED = (
        "server_certificate_expired",
        "Issue a new certificate for the daemon and restart it, since it reads certificates only at its start.",
    )
    SERVER_CERTIFICATE_NOT_YET_VALID = (
        "server_certificate_not_yet_valid",
        "Set the clocks of both machines right, or issue a certificate that is valid now.",
    )
    SERVER_CERTIFICATE_REFUSED = (
        "server_certificate_refused",
        "Issue a certificate for the daemon that is meant for TLS servers, by a CA that may issue it.",
    )
    SERVER_UNKNOWN_CA = (
        "server_unknown_ca",
        "Give the CA that issued the certificate of the daemon, or give the daemon a certificate of this CA.",
    )
    SERVER_NAME_MISMATCH = (
        "server_name_mismatch",
        "Dial one of the names of the certificate, name one as tls_hostname, or issue a certificate with this name.",
    )
    CLIENT_CERTIFICATE_MISSING = (
        "client_certificate_missing",
        "Give a client certificate and its key, of the CA that the daemon trusts.",
    )
    CLIENT_CERTIFICATE_REFUSED = (
        "client_certificate_refused",
        "Give a client certificate that is valid now, allows client authentication, and is of a CA that "
        "the daemon trusts.",
    )
    CLIENT_KEY_MISMATCH = (
        "client_key_mismatch",
        "Give the key that belongs to the certificate; both come from the same directory of the PKI.",
    )
    NOT_GRPC = (
        "not_grpc",
        "Check that this is the port of buildkitd, and that a proxy between passes TCP or HTTP/2 through unchanged.",
    )
    NOT_BUILDKIT = (
        "not_buildkit",
        "Check the port: another gRPC service answers here.",
    )
    RPC_FAILED = (
        "rpc_failed",
        "Look at the log of the daemon.",
    )
    NO_WORKER = (
        "no_worker",
        "Look at the log of the daemon: it found no usable worker, most often because runc is missing or "
        "not allowed to run.",
    )
    PLATFORM_MISSING = (
        "platform_missing",
        "Use a daemon of this platform, or let its worker offer it: by an emulator in binfmt_misc, or by platforms in "
        "buildkitd.toml.",
    )
    BUILD_FAILED = (
        "build_failed",
        "Look at the log of the daemon: it answers, but cannot run a build step.",
    )
    NOT_CACHED = (
        "not_cached",
        "Look at the limits of the garbage collection and at what else prunes this daemon, since results do not stay "
        "in its cache.",
    )
    VERSION_TOO_OLD = (
        "version_too_old",
        "Upgrade the daemon, or ask for less.",
    )
    VERSION_UNKNOWN = (
        "version_unknown",
        "Install a build of BuildKit that knows its version, or do not ask for one.",
    )
    GC_POLICY_DIFFERS = (
        "gc_policy_differs",
        "Correct the worker's section of buildkitd.toml and restart the daemon, which reads it only at its start and "
        "ignores keys that its version does not know.",
    )
    CERTIFICATE_EXPIRES_SOON = (
        "certificate_expires_soon",
        "Issue a new certificate for the daemon and restart it, since it reads certificates only at its start.",
    )
    ENTITLEMENT_GRANTED = (
        "entitlement_granted",
        "Take the entitlement off insecure-entitlements in buildkitd.toml and restart the daemon, since any of its "
        "clients can use it.",
    )
    OPEN_TO_ANYONE = (
        "open_to_anyone",
        "Stop the daemon now and start it with a CA for its clients (tlscacert), since whoever reaches it"
        " is root on its host.",
    )


class BuildKitError(Exception):
    """Base of all expected errors. The text says what was done, on what, and what happened."""


class InputError(BuildKitError):
    """The wish itself is wrong, and nothing was contacted. The text says what to give instead."""


class Failure(BuildKitError):
    """A daemon that did not prove what it should.

    :param kind: the cause
    :param message: what was done, on what, and what happened, without a final full stop
    :param remedy: what to try, when more is known than the kind alone tells
    """

    def __init__(self, kind: Kind, message: str, *, remedy: str | None = None) -> None:
        self.kind = kind
        self.message = printable(message)
        super().__init__(self.message)
        self.remedy = remedy or kind.remedy

    def as_dict(self) -> dict[str, str]:
        """The form that modules return: kind, message and remedy."""
        return {"kind": self.kind.value, "message": self.message, "remedy": self.remedy}


class ConnectError(Failure):
    """No connection, or one that ended too early."""


class TlsError(Failure):
    """No TLS session, or one that a side refused.

    C(certificate) is that of the server in DER form, when we refused it and could get it.
    """

    certificate: bytes | None = None


class RpcError(Failure):
    """The peer answered a call with an error, or not in gRPC.

    :param status: name of the gRPC status, such as C(UNIMPLEMENTED), or None when there was none
    """

    def __init__(self, kind: Kind, message: str, *, status: str | None = None) -> None:
        super().__init__(kind, message)
        self.status = status


class BuildError(Failure):
    """A smoke build did not do what it should."""
