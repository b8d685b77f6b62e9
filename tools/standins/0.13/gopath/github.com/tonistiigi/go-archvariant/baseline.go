// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package archvariant stands in for the detection of the x86-64 level, which Debian trixie does not package.
package archvariant

// AMD64Variant names the baseline, which every x86-64 processor supports.
func AMD64Variant() string {
	return "v1"
}
