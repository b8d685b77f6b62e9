# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that a server shows, read without trusting it and without a certificate of our own."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
import typing as t
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.buildfarm.buildkit.plugins.module_utils._pki.errors import InspectionError, WishError

DEFAULT_PORT = 1234

_CHUNK = 65536

# RFC 5246, 6.2.1 and 7.4: content types of records, types of handshake messages
_ALERT = 21
_HANDSHAKE = 22
_CERTIFICATE = 11
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4


@dataclass(frozen=True)
class Peer:
    """A server by host (a name, or an IP address without brackets) and TCP port."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


def parse_address(address: str) -> Peer:
    """Read ``tcp://HOST:PORT``.

    :raises WishError: when it is something else.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "tcp" or not host or rest or any(character.isspace() for character in address):
        raise WishError(
            f"address is {address!r}, which is not where a certificate is served: write tcp://HOST:PORT or "
            "tcp://[IPV6]:PORT. A unix socket has no TLS; give path for a certificate in a file."
        )
    return checked(Peer(host, DEFAULT_PORT if port is None else port))


def checked(peer: Peer) -> Peer:
    """The peer itself.

    :raises WishError: when nobody can listen there.
    """
    if not peer.host or any(character.isspace() for character in peer.host):
        raise WishError(f"host is {peer.host!r}, which is neither a host name nor an IP address.")
    if not 0 < peer.port < 1 << 16:
        raise WishError(f"The port of {peer} is {peer.port}: use one from 1 to 65535.")
    return peer


def fetch(peer: Peer, *, server_name: str | None, timeout: float) -> bytes:
    """Return, in DER, the certificate that a server proves itself by.

    A server that wants a client certificate refuses us only after it has shown its own, which is enough.

    :param server_name: the name to ask for, where a server has certificates for several; None for the host's own.
    :param timeout: seconds for the connection, and again for the handshake.
    :raises WishError: when ``server_name`` cannot be asked for.
    :raises InspectionError: when there is no server, or no certificate comes.
    """
    name = server_name
    if name is None and not _is_address(peer.host):
        name = peer.host
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        session = _context().wrap_bio(incoming, outgoing, server_hostname=name)
    except ValueError as exc:
        raise WishError(f"server_name is {name!r}, which is no host name ({exc}).") from exc
    with _connect(peer, timeout) as connection:
        return _shake_hands(_Handshake(session, incoming, outgoing, connection), peer, timeout)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A weak key or signature is no reason not to tell about it; nothing is ever sent over this connection.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _connect(peer: Peer, timeout: float) -> socket.socket:
    try:
        return socket.create_connection((peer.host, peer.port), timeout=timeout)
    except socket.timeout as exc:
        raise InspectionError(
            f"Connecting to {peer} took longer than {timeout:g} s: is the host up, and does a firewall drop what "
            "goes to this port?"
        ) from exc
    except socket.gaierror as exc:
        raise InspectionError(f"The name {peer.host!r} of {peer} cannot be resolved ({exc.strerror}).") from exc
    except (OSError, UnicodeError) as exc:
        raise InspectionError(
            f"Connecting to {peer} failed ({exc}): does the server run, and is this its port?"
        ) from exc


@dataclass(frozen=True)
class _Handshake:
    """TLS over a pair of buffers, so that what the server sent can also be read as it came."""

    session: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    connection: socket.socket


def _shake_hands(handshake: _Handshake, peer: Peer, timeout: float) -> bytes:
    received = bytearray()
    try:
        _exchange(handshake, received, time.monotonic() + timeout)
        shown = handshake.session.getpeercert(binary_form=True)
    except OSError as exc:  # ssl.SSLError is one
        # Up to TLS 1.2 the refusal comes inside the handshake; the certificate came before it, unencrypted.
        shown = _unencrypted_certificate(bytes(received))
        if shown is None:
            raise InspectionError(_explain(exc, bytes(received), peer, timeout)) from exc
    if not shown:
        raise InspectionError(f"{peer} speaks TLS and showed no certificate.")
    return shown


def _exchange(handshake: _Handshake, received: bytearray, deadline: float) -> None:
    while True:
        try:
            handshake.session.do_handshake()
        except ssl.SSLWantReadError:
            handshake.connection.sendall(handshake.outgoing.read())
            handshake.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = handshake.connection.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError("the server closed the connection") from None
            received += chunk
            handshake.incoming.write(chunk)
        else:
            return


def _explain(exc: OSError, received: bytes, peer: Peer, timeout: float) -> str:
    if received and received[0] not in (_ALERT, _HANDSHAKE):
        return f"{peer} does not speak TLS: its answer is something else. Is it a daemon without TLS, or another port?"
    if isinstance(exc, socket.timeout):
        return (
            f"{peer} took the connection and did not finish a TLS handshake within {timeout:g} s: is it a TLS server, "
            "and not overloaded?"
        )
    if isinstance(exc, ssl.SSLError):
        reason = (exc.reason or str(exc)).replace("_", " ").lower()
        return f"The TLS handshake with {peer} failed ({reason}) before a certificate came."
    return f"{peer} ended the connection ({exc}) before a certificate came: is it a TLS server?"


def _unencrypted_certificate(received: bytes) -> bytes | None:
    """The first certificate of a Certificate message of TLS 1.2 (RFC 5246, 7.4.2) among raw records."""
    messages = bytearray()
    while len(received) > _RECORD_HEADER and received[0] == _HANDSHAKE:
        end = _RECORD_HEADER + int.from_bytes(received[3:_RECORD_HEADER], "big")
        messages += received[_RECORD_HEADER:end]
        received = received[end:]
    for kind, body in _messages(bytes(messages)):
        if kind == _CERTIFICATE:
            length = int.from_bytes(body[3:6], "big")
            certificate = body[6 : 6 + length]
            return certificate if length and len(certificate) == length else None
    return None


def _messages(stream: bytes) -> t.Iterator[tuple[int, bytes]]:
    while len(stream) > _MESSAGE_HEADER:
        end = _MESSAGE_HEADER + int.from_bytes(stream[1:_MESSAGE_HEADER], "big")
        yield stream[0], stream[_MESSAGE_HEADER:end]
        stream = stream[end:]
