#!/bin/sh
# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a command that downloads, up to three times: a mirror or an index that stutters fails nothing.
# Usage: tools/again.sh COMMAND [ARGUMENT]...
for pause in 5 30; do
  "$@" && exit
  echo "This failed, and is tried again in $pause s: $*" >&2
  sleep "$pause"
done
exec "$@"
