// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package gha stands in for BuildKit's remote cache "gha", whose dependencies Debian does not package.
package gha

import (
	"context"

	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"
)

var errNotBuiltIn = errors.New("the gha cache is not built into this test build of BuildKit")

// ResolveCacheExporterFunc returns an exporter resolver that always fails.
func ResolveCacheExporterFunc() remotecache.ResolveCacheExporterFunc {
	return func(context.Context, session.Group, map[string]string) (remotecache.Exporter, error) {
		return nil, errNotBuiltIn
	}
}

// ResolveCacheImporterFunc returns an importer resolver that always fails.
func ResolveCacheImporterFunc() remotecache.ResolveCacheImporterFunc {
	return func(context.Context, session.Group, map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		return nil, ocispecs.Descriptor{}, errNotBuiltIn
	}
}
