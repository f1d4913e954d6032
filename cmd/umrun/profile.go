// SPDX-License-Identifier: Apache-2.0

// Profiles: networks by name.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"umrun/view"
)

// configDir returns $XDG_CONFIG_HOME/umrun, or "" where there is no home. A
// relative XDG_CONFIG_HOME is ignored, as the XDG base directory specification
// wants it, and so is a relative HOME: what lies in the working directory may be
// somebody else's.
func configDir() string {
	if base := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "umrun")
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "umrun")
	}
	return ""
}

// profileDir is where the profiles are, "" where there is no home.
func profileDir() string {
	if dir := configDir(); dir != "" {
		return filepath.Join(dir, "profiles")
	}
	return ""
}

// refuseConfig returns an error if there is a config.toml: what it asks for would
// be ignored.
func refuseConfig() error {
	dir := configDir()
	if dir == "" {
		return nil
	}
	file := filepath.Join(dir, "config.toml")
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
	dir := profileDir()
	for _, ext := range []string{".toml", ".conf"} {
		if _, err := os.Stat(filepath.Join(dir, name+ext)); err == nil && dir != "" {
			return true
		}
	}
	return false
}

// resolveProfile makes the network that a profile stands for of n.
func resolveProfile(n *view.Network) error {
	where := "there are no profiles, as neither HOME nor XDG_CONFIG_HOME is an absolute path"
	if dir := profileDir(); dir != "" {
		where = "profiles are in " + dir
		base := filepath.Join(dir, n.Target)
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
	}
	p := &view.Problem{
		Code: view.ExitConfig,
		What: fmt.Sprintf("-n %s: there is no kind of network and no profile %q", n.Spec, n.Target),
		Why:  "A file is written with a / or ends in .conf; " + where + ".",
		Try:  []string{fmt.Sprintf("-n ./%s", n.Target), fmt.Sprintf("-n wg:%s", n.Target)},
	}
	if s, ok := view.Suggest(n.Target, append(view.KindNames(), profiles()...)); ok {
		p.What += fmt.Sprintf(" (did you mean %q?)", s)
	}
	return p
}

// profiles lists the names of the profiles, sorted.
func profiles() []string {
	dir := profileDir()
	if dir == "" {
		return nil
	}
	files, _ := os.ReadDir(dir) // sorted; none where it cannot be read
	var names []string
	for _, f := range files {
		if name, is := strings.CutSuffix(f.Name(), ".conf"); is {
			names = append(names, name)
		}
	}
	return names
}

// completeNet offers kinds and profiles for -n; the shell adds files.
func completeNet(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return append([]string{"nat", "none", "host"}, profiles()...), cobra.ShellCompDirectiveDefault
}
