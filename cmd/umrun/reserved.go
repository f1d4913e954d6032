// SPDX-License-Identifier: Apache-2.0

// Words and flags that are reserved and not built yet.

package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"umrun/view"
)

// reservedFlags are flags of the contract with nothing behind them: long name,
// short name, whether they take a value.
var reservedFlags = []struct {
	name, short string
	value       bool
}{
	{"fresh-instance", "", false},
	{"allow", "", true},
	{"deny", "", true},
	{"sandbox", "", false},
	{"metrics", "", true},
	{"trace", "", true},
}

// reservedCommands are commands of the contract with nothing behind them.
var reservedCommands = []string{
	"top", "stats", "stop", "exec", "attach", "view", "gateway", "up", "stack", "profile", "selftest",
	"shell", "desktop", "systemd", "agent",
}

func defineReserved(fs *pflag.FlagSet) {
	for _, r := range reservedFlags {
		if r.value {
			fs.StringArrayP(r.name, r.short, nil, "")
		} else {
			fs.BoolP(r.name, r.short, false, "")
		}
		fs.Lookup(r.name).Hidden = true
	}
}

// refuseReserved returns the error for the first reserved flag that was set.
func refuseReserved(fs *pflag.FlagSet) error {
	for _, r := range reservedFlags {
		if !fs.Changed(r.name) {
			continue
		}
		what := "--" + r.name
		if r.short != "" {
			what = "-" + r.short + "/" + what
		}
		return view.NotBuilt(what)
	}
	return nil
}

// newReserved makes a command of each reserved word: whatever its arguments are,
// it says that it is not built.
func newReserved() []*cobra.Command {
	var cs []*cobra.Command
	for _, w := range reservedCommands {
		cs = append(cs, &cobra.Command{
			Use:                w,
			Short:              "not built yet",
			Hidden:             true,
			DisableFlagParsing: true,
			RunE:               func(*cobra.Command, []string) error { return view.NotBuilt("the command " + w) },
		})
	}
	return cs
}

// reservedText is the end of the usage text.
func reservedText() string {
	var names []string
	for _, r := range reservedFlags {
		names = append(names, "--"+r.name)
	}
	return "\nReserved, not built yet (exit status 125):\n" +
		wrap(strings.Join(reservedCommands, " ")) + wrap(strings.Join(names, " "))
}

// wrap breaks words into lines of at most 78 columns, indented by two.
func wrap(s string) string {
	var b strings.Builder
	line := " "
	for _, w := range strings.Fields(s) {
		if len(line)+1+len(w) > 78 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + w
	}
	return b.String() + line + "\n"
}
