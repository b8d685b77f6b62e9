# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can go wrong with the PKI, by whose move it is::

    PkiError
    +-- WishError             what the user asked for makes no sense
    +-- StoreError            the directory on disk cannot be used as it is
    |   +-- UnreadableError   a key, certificate or register there cannot be read
    |   +-- PassphraseError   the key of the CA cannot be opened with what was given
    +-- ForeignTrustError     a host trusts another CA than ours
    +-- CutOffError           good clients or daemons would no longer be accepted
    +-- CsrError              a certificate signing request is not acceptable
    +-- InspectionError       there is no certificate to tell about

Every message says what was being looked at, what is wrong with it and what to do.
"""

from __future__ import annotations


class PkiError(Exception):
    """The PKI cannot do what was asked; nothing has been changed."""


class WishError(PkiError):
    """What was asked for is contradictory or malformed."""


class StoreError(PkiError):
    """The state on disk must be put right by a person first."""


class UnreadableError(StoreError):
    """A file on disk is not what its name promises; it is never overwritten."""


class PassphraseError(StoreError):
    """The passphrase is missing, wrong or superfluous."""


class ForeignTrustError(PkiError):
    """A host trusts a CA that is not in the PKI directory."""


class CutOffError(PkiError):
    """Clients or daemons that are in use would no longer be accepted, and nobody said that this is meant."""


class CsrError(PkiError):
    """A certificate signing request is malformed, forged or asks for too much."""


class InspectionError(PkiError):
    """A certificate that somebody asks about is not there, or is none."""
