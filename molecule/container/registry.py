# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry of one image, from an archive as `docker save` makes it: what pulling needs of the OCI distribution API.

Usage: registry.py ARCHIVE PORT. It listens on 127.0.0.1, answers to every name and tag, and prints the digest by which
the image can be named.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import tarfile

_TYPE = "application/vnd.docker."


def _described(kind: str, content: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": f"{_TYPE}{kind}", "size": len(content), "digest": digest}


def main() -> None:
    """Serves until it is killed."""
    with tarfile.open(sys.argv[1]) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        (image,) = json.loads(read("manifest.json"))
        config, layers = read(image["Config"]), [read(name) for name in image["Layers"]]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}distribution.manifest.v2+json",
            "config": _described("container.image.v1+json", config),
            "layers": [_described("image.rootfs.diff.tar", layer) for layer in layers],
        }
    ).encode()
    known = {f"sha256:{hashlib.sha256(content).hexdigest()}": content for content in (manifest, config, *layers)}
    name = next(digest for digest, content in known.items() if content is manifest)

    class Handler(http.server.BaseHTTPRequestHandler):
        """Manifests by any tag or digest, and blobs."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """One part of the image."""
            kind, last = self.path.split("/")[-2:]
            content = b"{}" if self.path == "/v2/" else manifest if kind == "manifests" else known.get(last, b"")
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", f"{_TYPE}distribution.manifest.v2+json")
            if kind == "manifests":
                self.send_header("Docker-Content-Digest", name)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    print(name, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
