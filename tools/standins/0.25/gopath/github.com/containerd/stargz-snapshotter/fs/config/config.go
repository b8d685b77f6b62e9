// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package config stands in for the stargz snapshotter's configuration.
package config

// Config is empty: the snapshotter is not built in.
type Config struct{}
