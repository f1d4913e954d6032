// SPDX-License-Identifier: Apache-2.0

// Settings from the environment: UMRUN_NET for --net, and so on.

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"umrun/view"
)

const envPrefix = "UMRUN_"

// envName returns the variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnv sets the flags that were not given from the environment. A variable that
// looks like a mistyped one is an error: UMRUN_NTE would put the program on another
// network than the one that was meant. Other UMRUN_ variables belong to somebody
// else (wrappers, tests). An empty variable is as good as none.
func fromEnv(fs *pflag.FlagSet) error {
	var known []string
	byEnv := map[string]*pflag.Flag{}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == "version" || f.Name == "dry-run" {
			return // they ask for something else than a run
		}
		byEnv[envName(f.Name)] = f
		known = append(known, strings.TrimPrefix(envName(f.Name), envPrefix))
	})
	for _, kv := range slices.Sorted(slices.Values(os.Environ())) {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" {
			continue
		}
		if name == envName("dry-run") {
			return &view.Problem{
				Code: view.ExitConfig,
				What: name + " is not taken from the environment, and something would run",
				Try:  []string{"--dry-run", "unset " + name},
			}
		}
		f, ok := byEnv[name]
		if !ok {
			if s, near := view.Suggest(strings.TrimPrefix(name, envPrefix), known); near {
				return &view.Problem{
					Code: view.ExitConfig,
					What: fmt.Sprintf("unknown variable %s in the environment (did you mean %s%s?)", name, envPrefix, s),
					Try:  []string{"unset " + name},
				}
			}
			continue
		}
		if f.Changed || (name == "UMRUN_WAIT" && fs.Changed("no-wait")) || (name == "UMRUN_NO_WAIT" && fs.Changed("wait")) {
			continue
		}
		if err := fs.Set(f.Name, value); err != nil {
			what := badValue(err)
			if what == "" {
				what = err.Error()
			}
			return &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf("%s: %s", name, what), Err: err}
		}
	}
	return nil
}
