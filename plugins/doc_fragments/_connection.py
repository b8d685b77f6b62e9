# Copyright (c) 2026 The buildfarm.buildkit authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of every module that speaks to buildkitd, as a client does."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that say where a daemon is and who we are to it."""

    DOCUMENTATION = r"""
requirements:
  - Python 3.10 or newer where the module runs (the controller, by default)
  - grpclib >= 0.4.8, < 0.5
  - protobuf >= 3.20
  - cryptography >= 3.4
options:
  address:
    description:
      - Where the daemon listens, spelled as C(buildctl --addr) spells it.
      - C(tcp://HOST:PORT), with an IPv6 address in brackets, C(tcp://[2001:db8::1]:1234). Without a port it is 1234.
        This is the one kind of address with TLS.
      - C(unix:///path/to/buildkitd.sock) for a local socket.
      - C(ssh://USER@HOST:PORT/path/to/buildkitd.sock) for the socket of another machine, where USER, PORT and path may
        be left out. C(ssh) runs here and C(buildctl) there, so both must be in the C(PATH). It must work without a
        question. Keys, known hosts and everything else are those of ssh's own configuration.
      - C(docker-container://NAME), or C(docker-container://NAME?context=CONTEXT), for a daemon in a container.
        C(docker) runs here, with C(DOCKER_HOST) and everything else of its own configuration, and C(buildctl) in the
        container.
      - C(podman-container://NAME), the same with C(podman).
      - The proxy variables of the environment never apply.
    type: str
  ca_path:
    description:
      - File with the CA certificates, in PEM format, one of which must have issued the certificate of the
        daemon.
      - This and the other options of TLS are for C(tcp://) alone, and refused with any other address.
      - Required for C(tcp://) once a client certificate is given. Nothing else is trusted, the CA
        certificates of the system neither.
    type: path
  client_cert:
    description:
      - File with the client certificate to present to the daemon, in PEM format, followed by the intermediate
        certificates if there are any.
      - Goes with O(client_key).
    type: path
  client_key:
    description:
      - File with the private key of O(client_cert), in PEM format and not encrypted. It is read where the
        module runs and goes nowhere else.
    type: path
  tls_hostname:
    description:
      - Name or IP address that the certificate of the daemon must have among its subject alternative names,
        if it is not the host of the address.
      - The common name of a certificate never counts, as in every Go client.
    type: str
  connect_timeout:
    description:
      - Seconds that may pass until the daemon is connected and TLS is established, for every connection that
        the module makes. What C(ssh), C(docker) or C(podman) need is part of it.
      - The same limit holds for each question that the daemon has to answer at once.
    type: float
    default: 10
"""
