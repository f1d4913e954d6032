// SPDX-License-Identifier: Apache-2.0

// Profiles: networks by name.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"umrun/view"
)

// configDir returns $XDG_CONFIG_HOME/umrun, or "" where there is no home. A
// relative XDG_CONFIG_HOME is ignored, as the XDG base directory specification
// wants it.
func configDir() string {
	base := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "umrun")
}

func profileDir() string { return filepath.Join(configDir(), "profiles") }

// refuseConfig returns an error if there is a config.toml: what it asks for would
// be ignored.
func refuseConfig() error {
	file := filepath.Join(configDir(), "config.toml")
	if _, err := os.Stat(file); err == nil {
		return view.NotBuilt(file + ": reading it")
	}
	return nil
}

// parseNetworks reads the SPECs, with profiles resolved. Without any it is the
// profile "default" if there is one, else nat.
func parseNetworks(specs []string) ([]view.Network, error) {
	if len(specs) == 0 {
		specs = []string{"nat"}
		if profileExists("default") {
			specs = []string{"default"}
		}
	}
	var nets []view.Network
	for _, s := range specs {
		n, err := view.ParseNetwork(s)
		if err != nil {
			return nil, err
		}
		if n.Kind == view.Profile {
			if err := resolveProfile(&n); err != nil {
				return nil, err
			}
		}
		nets = append(nets, n)
	}
	return nets, nil
}

func profileExists(name string) bool {
	for _, ext := range []string{".toml", ".conf"} {
		if _, err := os.Stat(filepath.Join(profileDir(), name+ext)); err == nil {
			return true
		}
	}
	return false
}

// resolveProfile makes the network that a profile stands for of n.
func resolveProfile(n *view.Network) error {
	base := filepath.Join(profileDir(), n.Target)
	if _, err := os.Stat(base + ".toml"); err == nil {
		return view.NotBuilt(fmt.Sprintf("-n %s: a profile in TOML (%s.toml)", n.Spec, base))
	}
	_, err := os.Stat(base + ".conf")
	switch {
	case err == nil:
		if n.Name == string(view.Profile) {
			n.Name = n.Target
		}
		n.Kind, n.Target = view.WireGuard, base+".conf"
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf("-n %s: %v", n.Spec, err), Err: err}
	}
	p := &view.Problem{
		Code: view.ExitConfig,
		What: fmt.Sprintf("-n %s: there is no kind of network and no profile %q", n.Spec, n.Target),
		Why:  "A file is written with a / or ends in .conf; profiles are in " + profileDir() + ".",
		Try:  []string{fmt.Sprintf("-n ./%s", n.Target), fmt.Sprintf("-n wg:%s", n.Target)},
	}
	if s, ok := view.Suggest(n.Target, append(view.KindNames(), profiles()...)); ok {
		p.What += fmt.Sprintf(" (did you mean %q?)", s)
	}
	return p
}

// profiles lists the names of the profiles, sorted.
func profiles() []string {
	files, _ := filepath.Glob(filepath.Join(profileDir(), "*.conf")) // fails on a bad pattern only
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".conf"))
	}
	slices.Sort(names)
	return names
}

// completeNet offers kinds and profiles for -n; the shell adds files.
func completeNet(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return append([]string{"nat", "none"}, profiles()...), cobra.ShellCompDirectiveDefault
}
