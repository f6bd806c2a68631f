// Package version says which build of Margay this is, and which version of
// the agent to forwarder contract it speaks. Every binary prints it for
// --version, and every report that is compared later carries it.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Contract is the version of api/dataplane/v1 that this build speaks. It grows
// by one with every change that the other side must know of; a peer one
// version older is understood, anything else is refused.
const Contract = 1

// unreleased names a build that no tag describes.
const unreleased = "v0.1.0-dev"

// The linker writes these (see LDFLAGS in the Makefile); nothing else does.
var (
	version string
	commit  string
)

// Version is the release this build comes from, as git describes it
// ("v0.1.0", "v0.1.0-14-gabc1234-dirty"), or "v0.1.0-dev" when no tag does.
func Version() string {
	if version != "" {
		return version
	}
	return unreleased
}

// Commit is the abbreviated commit of this build. A build made without the
// Makefile takes it from what the Go tool recorded; "unknown" when it recorded
// nothing.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return recorded(info.Settings)
}

// recorded finds the commit among the settings that the Go tool wrote.
func recorded(settings []debug.BuildSetting) string {
	rev, dirty := "unknown", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision" && s.Value != "":
			rev = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return rev + dirty
}

// Line is what program prints for --version, without a line feed:
//
//	margay-forwarder v0.1.0 (commit 1f2e3d4c5b6a, contract 1, go1.26.8)
func Line(program string) string {
	return fmt.Sprintf("%s %s (commit %s, contract %d, %s)",
		program, Version(), Commit(), Contract, runtime.Version())
}
