# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a Docker engine for the tests where none answers, and stop it again.

`start` does nothing when an engine answers; else it installs docker.io if need be and starts dockerd with
its log, pid file and state under .cache/docker-engine/. `stop` stops what `start` started, and nothing else.
Prints {"started_by_us", "version"} as JSON on stdout.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Sequence

import _apt
import _process
import _progress

STATE = Path(__file__).resolve().parent.parent / ".cache" / "docker-engine"
# Where dockerd notes its containerd. It waits in vain for the process of that number, be it a zombie or another's.
CONTAINERD_PID = Path("/var/run/docker/containerd/containerd.pid")
START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 30


def version() -> str:
    """Return the version of the engine that answers, "" when none does."""
    if not shutil.which("docker"):
        return ""
    try:
        return subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ""


def started() -> list[_process.Identity]:
    """Return the processes that are still running of those that an earlier `start` recorded, dockerd first."""
    try:
        recorded = [_process.Identity(**entry) for entry in json.loads((STATE / "state.json").read_text())]
    except (OSError, ValueError, TypeError):
        return []
    return [identity for identity in recorded if _process.identify(identity.pid) == identity]


def record(identities: Sequence[_process.Identity]) -> None:
    """Record what was started."""
    partial = STATE / "state.json.part"
    partial.write_text(json.dumps([asdict(identity) for identity in identities]))
    partial.replace(STATE / "state.json")


def forget() -> None:
    """Remove the record and the pid file of an engine that no longer runs; its log stays."""
    for name in ("state.json", "dockerd.pid"):
        (STATE / name).unlink(missing_ok=True)


def forget_containerd() -> None:
    """Remove dockerd's note of a containerd that no longer runs."""
    try:
        identity = _process.identify(int(CONTAINERD_PID.read_text()))
    except (FileNotFoundError, ValueError):
        return
    if identity is None or Path(identity.executable).name != "containerd":
        CONTAINERD_PID.unlink()


def failed(log: Path, what: str) -> _progress.ToolError:
    """Say why the engine does not run."""
    return _progress.ToolError(
        f"dockerd {what}. The last lines of {log}:\n\n{_progress.tail(log)}\n\n"
        "What to try: start a Docker engine yourself (`docker info` must answer), then run this again."
    )


def launch() -> None:
    """Start dockerd, record it, and wait until it answers."""
    forget_containerd()
    log = STATE / "dockerd.log"
    ticker = _progress.Ticker("Starting a Docker engine")
    with log.open("wb") as output:
        engine = subprocess.Popen(
            ["dockerd", "--pidfile", str(STATE / "dockerd.pid")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    try:
        while not version():
            if engine.poll() is not None:
                raise failed(log, f"ended with code {engine.returncode}")
            if ticker.elapsed > START_TIMEOUT_S:
                raise failed(log, f"does not answer after {START_TIMEOUT_S} s")
            note(engine.pid)
            ticker.tick(_progress.last_line(log))
            time.sleep(0.3)
        note(engine.pid)
    except BaseException:
        ticker.done(ok=False)
        _progress.end(engine)
        stop()
        raise
    ticker.done()


def note(pid: int) -> None:
    """Record dockerd, and the containerd that it starts and that outlives it when it is killed."""
    identity = _process.identify(pid)
    if identity:
        record([identity, *_process.children(pid)])


def start() -> dict[str, object]:
    """Make sure that an engine answers."""
    answer = version()
    if answer:
        ours = bool(started())
        _progress.say(f"a Docker engine ({answer}) answers already" + (", started by an earlier run" if ours else ""))
        return {"started_by_us": ours, "version": answer}
    if os.environ.get("DOCKER_HOST"):
        raise _progress.ToolError(
            f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}. Start it, or unset DOCKER_HOST."
        )
    _apt.need_root("starting a Docker engine")
    _apt.need_programs({"dockerd": "docker.io"}, reason="the test hosts are containers")
    _apt.need_programs({"docker": "docker-cli"}, reason="a package of its own since Debian 13")
    stop()
    if not version():  # the package may have started it
        launch()
    return {"started_by_us": bool(started()), "version": version()}


def stop() -> bool:
    """Stop what `start` started. Tell whether anything ran."""
    running = started()
    if running:
        ticker = _progress.Ticker("Stopping the Docker engine")
        for identity in running:
            ticker.tick(identity.executable)
            _process.stop(identity, timeout=STOP_TIMEOUT_S)
        ticker.done()
    forget()
    return bool(running)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start", "stop"])
    options = parser.parse_args(arguments)
    os.umask(0o022)
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if options.command == "start":
            print(json.dumps(start()))
        elif not stop():
            _progress.say("no Docker engine of ours is running")


if __name__ == "__main__":
    _progress.main(run)
