# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Speaks to buildkitd as a client does: endpoints, TLS, gRPC, smoke builds, refusals.

Needs no Ansible, and Python 3.10.
"""
