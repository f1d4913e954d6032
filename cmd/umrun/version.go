// SPDX-License-Identifier: Apache-2.0

// The version, and what umrun is made of and runs on.

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"umrun/view"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "versions of umrun and of what it is made of",
		Args:  noArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), versionText()) },
	}
}

// versionText is one line for umrun, then one for each thing that a report of a
// fault needs to name.
func versionText() string {
	v, deps := "(devel)", map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && v == "(devel)" {
				v = s.Value
			}
		}
		for _, d := range info.Deps {
			deps[d.Path] = d.Version
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "umrun %s\n", v)
	fmt.Fprintf(&b, "go          %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(&b, "kernel      %s\n", kernelRelease())
	fmt.Fprintf(&b, "libseccomp  %s\n", view.LibseccompVersion())
	for _, d := range []struct{ name, path string }{
		{"gvisor", "gvisor.dev/gvisor"},
		{"wireguard", "golang.zx2c4.com/wireguard"},
	} {
		if deps[d.path] != "" {
			fmt.Fprintf(&b, "%-11s %s\n", d.name, deps[d.path])
		}
	}
	return b.String()
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
