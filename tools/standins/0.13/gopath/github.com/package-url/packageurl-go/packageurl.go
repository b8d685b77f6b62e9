// Copyright (c) 2026 The buildfarm.buildkit authors
// SPDX-License-Identifier: GPL-3.0-or-later

// Package packageurl stands in for the package URL library, which Debian trixie does not package.
// It writes the package URLs that BuildKit puts into provenance attestations; it does not parse.
package packageurl

import (
	"errors"
	"net/url"
	"sort"
	"strings"
)

// The package types that BuildKit uses.
const (
	TypeDocker = "docker"
	TypeOCI    = "oci"
)

// Qualifier is one key=value pair of a package URL.
type Qualifier struct {
	Key   string
	Value string
}

// Qualifiers are the pairs of a package URL.
type Qualifiers []Qualifier

// PackageURL is a package URL in its parts.
type PackageURL struct {
	Type       string
	Namespace  string
	Name       string
	Version    string
	Qualifiers Qualifiers
	Subpath    string
}

// NewPackageURL puts the parts together.
func NewPackageURL(purlType, namespace, name, version string, qualifiers Qualifiers, subpath string) *PackageURL {
	return &PackageURL{
		Type: purlType, Namespace: namespace, Name: name, Version: version, Qualifiers: qualifiers, Subpath: subpath,
	}
}

// FromString always fails: nothing that the tests do parses a package URL.
func FromString(string) (PackageURL, error) {
	return PackageURL{}, errors.New("parsing package URLs is not built into this test build of BuildKit")
}

// ToString writes the canonical form: pkg:type/namespace/name@version?qualifiers#subpath.
func (p *PackageURL) ToString() string {
	var out strings.Builder
	out.WriteString("pkg:" + strings.ToLower(p.Type) + "/")
	if p.Namespace != "" {
		out.WriteString(escapePath(p.Namespace) + "/")
	}
	out.WriteString(url.PathEscape(p.Name))
	if p.Version != "" {
		out.WriteString("@" + url.PathEscape(p.Version))
	}
	pairs := make([]string, 0, len(p.Qualifiers))
	for _, q := range p.Qualifiers {
		pairs = append(pairs, strings.ToLower(q.Key)+"="+url.QueryEscape(q.Value))
	}
	sort.Strings(pairs)
	if len(pairs) > 0 {
		out.WriteString("?" + strings.Join(pairs, "&"))
	}
	if p.Subpath != "" {
		out.WriteString("#" + escapePath(p.Subpath))
	}
	return out.String()
}

func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}
