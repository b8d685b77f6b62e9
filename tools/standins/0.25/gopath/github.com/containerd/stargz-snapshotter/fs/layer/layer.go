// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package layer stands in for the stargz snapshotter's layers.
package layer

// OverlayOpaqueType says which extended attribute marks a directory as opaque.
type OverlayOpaqueType int

// The attributes of trusted and of user namespaces.
const (
	OverlayOpaqueTrusted OverlayOpaqueType = iota
	OverlayOpaqueUser
)
