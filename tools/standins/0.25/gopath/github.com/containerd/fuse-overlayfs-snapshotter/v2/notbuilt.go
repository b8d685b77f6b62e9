// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package fuseoverlayfs stands in for the fuse-overlayfs snapshotter, which Debian does not package.
package fuseoverlayfs

import (
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
)

var errNotBuiltIn = errors.New("fuse-overlayfs is not built into this test build of BuildKit")

// Supported always reports that the snapshotter cannot be used.
func Supported(string) error {
	return errNotBuiltIn
}

// NewSnapshotter always fails.
func NewSnapshotter(string) (snapshots.Snapshotter, error) {
	return nil, errNotBuiltIn
}
