# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of others that stand where a daemon is expected: openssl s_server, nginx and haproxy, each a real one."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from ansible_collections.buildfarm.buildkit.plugins.module_utils._host import proc
from ansible_collections.buildfarm.buildkit.tests.unit.plugins import ports
from ansible_collections.buildfarm.buildkit.tests.unit.plugins.waiting import until
from certificates import Pair

_STOP_LIMIT = 30.0


@contextmanager
def openssl(directory: Path, pair: Pair, *options: str) -> Iterator[str]:
    """Run openssl s_server until the block ends, and yield its address."""
    with ports.held() as port:
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pair.cert, "-key", pair.key]
        with _running([*map(str, command), *options], directory / "openssl.log", port) as address:
            yield address


@contextmanager
def nginx(directory: Path, server: str) -> Iterator[str]:
    """Run nginx until the block ends, and yield its address.

    :param server: what its server block says, C(PORT) standing for the port
    """
    port = ports.kept()
    config = directory / "nginx.conf"
    config.write_text(
        f"""daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    {server.replace("PORT", str(port))}
  }}
}}
""",
        encoding="utf-8",
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    with _running([program, "-c", str(config), "-p", str(directory)], directory / "nginx.log", port) as address:
        yield address


@contextmanager
def haproxy(directory: Path, mode: str, bind: str, backend: str) -> Iterator[str]:
    """Run haproxy until the block ends, and yield its address.

    :param mode: C(tcp) or C(http)
    :param bind: options of its C(bind) line
    :param backend: its C(server) line without the name; empty for no server at all
    """
    port = ports.kept()
    config = directory / "haproxy.cfg"
    config.write_text(
        f"""defaults
  mode {mode}
  timeout connect 60s
  retries 0
  timeout client 600s
  timeout server 600s
frontend builders
  bind 127.0.0.1:{port} {bind}
  default_backend pool
backend pool
  {f"server one {backend}" if backend else ""}
""",
        encoding="utf-8",
    )
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin") or "haproxy"
    with _running([program, "-q", "-db", "-f", str(config)], directory / "haproxy.log", port) as address:
        yield address


@contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[str]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        _wait_until_ready(process, port, log)
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    # Seen from outside: a connection would be the one that s_server takes for its first.
    until(
        lambda: process.poll() is not None or process.pid in [one.pid for one in proc.listeners(port)],
        f"an open port of {process.args}",
    )
    if process.poll() is not None:
        raise RuntimeError(f"{process.args} did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
