// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package snapshot stands in for the stargz snapshotter.
package snapshot

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// FileSystem is empty: the snapshotter is not built in.
type FileSystem interface{}

// Opt is ignored.
type Opt func()

// AsynchronousRemove is ignored.
func AsynchronousRemove() {}

// NoRestore is ignored.
func NoRestore() {}

// NewSnapshotter always fails.
func NewSnapshotter(context.Context, string, FileSystem, ...Opt) (snapshots.Snapshotter, error) {
	return nil, errors.New("stargz is not built into this test build of BuildKit")
}
