# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that build in a loop, and one that only holds a session open, while something is done to their builder."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_DOCKERFILE = "FROM scratch\nCOPY . /\nARG step\nRUN sleep ${step%%-*}\n"
_PROGRAMS = ("/bin/sh", "/bin/sleep")
# What a client says that never got a daemon to talk to.
_REFUSED = re.compile(r"connection refused|deadline exceeded|handshake failed|connection error|listing workers")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Build:
    """How one build went.

    :param step: for how long its step sleeps, in seconds
    :param took: how long it took in all, in seconds
    :param accepted: whether the daemon began it
    :param error: what the client said when it failed
    """

    step: float
    took: float
    accepted: bool
    error: str = ""

    @property
    def waited(self) -> float:
        """How much longer it took than its step."""
        return self.took - self.step


@dataclass
class Load:
    """Clients of one builder.

    :param buildctl: the client; that of the oldest release talks to all of them
    :param files: its ca.pem, cert.pem and key.pem
    :param steps: one client for each, and how long its step sleeps, in seconds
    :param pause: how long a client rests between two builds, in seconds
    """

    address: str
    buildctl: Path
    files: Path
    steps: Sequence[float]
    pause: float = 0.2
    builds: list[Build] = field(default_factory=list)
    sessions: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Have them build until the end of the block, and to the end of what they began."""
        stop = threading.Event()
        with tempfile.TemporaryDirectory() as directory:
            context = _context(Path(directory))
            files = Path(shutil.copytree(self.files, Path(directory, "files")))
            threads = [threading.Thread(target=self._client, args=(one, context, files, stop)) for one in self.steps]
            threads.append(threading.Thread(target=self._idle, args=(files, stop)))
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                stop.set()
                for thread in threads:
                    thread.join()

    @property
    def failed(self) -> list[Build]:
        """Builds that were accepted and failed."""
        return [one for one in self.builds if one.error and one.accepted]

    @property
    def refused(self) -> list[Build]:
        """Clients that were not let in, or gave up."""
        return [one for one in self.builds if one.error and not one.accepted]

    def summary(self) -> str:
        """All of it in a line."""
        longest = max((one.waited for one in self.builds if not one.error), default=0.0)
        return (
            f"{len(self.builds)} builds, {len(self.failed)} failed, {len(self.refused)} refused or timed out, "
            f"longest wait {longest:.1f} s"
        )

    def _client(self, step: float, context: Path, files: Path, stop: threading.Event) -> None:
        command = [str(self.buildctl), "--addr", f"tcp://{self.address}:1234", "--tlsdir", str(files), "build"]
        command += ["--progress", "plain", "--frontend", "dockerfile.v0"]
        command += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        while not stop.wait(self.pause):
            began = time.monotonic()
            argument = ["--opt", f"build-arg:step={step:g}-{secrets.token_hex(8)}"]
            done = subprocess.run([*command, *argument], capture_output=True, text=True, check=False, timeout=900)
            error = "" if done.returncode == 0 else done.stdout + done.stderr
            accepted = "#1 " in done.stderr or not (error and _REFUSED.search(error))
            self.builds.append(Build(step, time.monotonic() - began, accepted, error))

    def _idle(self, files: Path, stop: threading.Event) -> None:
        """A session in which nothing happens, opened again whenever the daemon ends it."""
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        context.load_cert_chain(files / "cert.pem", files / "key.pem")
        context.set_alpn_protocols(["h2"])
        while not stop.wait(0.2):
            with contextlib.suppress(OSError):
                plain = socket.create_connection((self.address, 1234), timeout=120)
                with context.wrap_socket(plain, server_hostname=self.address) as stream:
                    stream.sendall(_PREFACE + _frame(4, 0, 0) + _frame(1, 4, 1, _session_headers()))
                    self.sessions += 1
                    stream.settimeout(0.5)
                    _answer(stream, stop)


def _context(directory: Path) -> Path:
    """A context with a shell and what it needs, and a Dockerfile."""
    context = directory / "context"
    for program in _PROGRAMS:
        libraries = re.findall(r"/\S+", subprocess.check_output(["ldd", program], text=True))
        for path in (program, *libraries):
            copy = context / path[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (context / "Dockerfile").write_text(_DOCKERFILE, encoding="ascii")
    return context


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _session_headers() -> bytes:
    """Those of the call Session, each in full (RFC 7541, 6.2.2)."""
    fields = {
        b":method": b"POST",
        b":scheme": b"https",
        b":path": b"/moby.buildkit.v1.Control/Session",
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"x-docker-expose-session-uuid": secrets.token_hex(12).encode(),
        b"x-docker-expose-session-name": b"idle",
    }
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())


def _answer(stream: ssl.SSLSocket, stop: threading.Event) -> None:
    """Answer settings and pings, until the daemon ends the connection."""
    data = b""
    while not stop.is_set():
        while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
            kind, flags, body = data[3], data[4], data[9 : 9 + size]
            data = data[9 + size :]
            if kind in (4, 6) and not flags & 1:
                stream.sendall(_frame(kind, 1, 0, body if kind == 6 else b""))
        with contextlib.suppress(TimeoutError):
            more = stream.recv(65536)
            if not more:
                return
            data += more
