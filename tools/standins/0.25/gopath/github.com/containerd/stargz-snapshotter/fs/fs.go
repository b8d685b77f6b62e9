// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package fs stands in for the stargz snapshotter's file system, whose packaged version is for containerd 1.
package fs

import (
	"errors"

	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/layer"
	"github.com/containerd/stargz-snapshotter/fs/source"
	"github.com/containerd/stargz-snapshotter/snapshot"
	"github.com/sirupsen/logrus"
)

// Option is ignored.
type Option func()

// WithGetSources is ignored.
func WithGetSources(source.GetSources) Option { return func() {} }

// WithMetricsLogLevel is ignored.
func WithMetricsLogLevel(logrus.Level) Option { return func() {} }

// WithOverlayOpaqueType is ignored.
func WithOverlayOpaqueType(layer.OverlayOpaqueType) Option { return func() {} }

// NewFilesystem always fails.
func NewFilesystem(string, config.Config, ...Option) (snapshot.FileSystem, error) {
	return nil, errors.New("stargz is not built into this test build of BuildKit")
}
