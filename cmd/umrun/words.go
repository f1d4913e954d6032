// SPDX-License-Identifier: Apache-2.0

// Which word is the program: settled before cobra parses.

package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"umrun/view"
)

// settle rewrites args so that cobra cannot mistake a program for a subcommand or
// the other way round: a program gets `--` in front and flags become --NAME=VALUE,
// a subcommand stays as it is. Cobra guesses where flag values end, and is wrong
// for `-qn ps curl`; pflag knows.
func settle(root *cobra.Command, args []string) ([]string, error) {
	var f flags
	fs := pflag.NewFlagSet("umrun", pflag.ContinueOnError)
	fs.Usage = func() {}
	f.define(fs)
	fs.BoolP("help", "h", false, "")
	fs.Bool("version", false, "")
	var given []string
	err := fs.ParseAll(args, func(flag *pflag.Flag, value string) error {
		given = append(given, "--"+flag.Name+"="+value)
		return fs.Set(flag.Name, value)
	})
	if err != nil {
		return nil, flagError(root, err)
	}
	rest := fs.Args()
	if len(rest) == 0 || fs.ArgsLenAtDash() == 0 || !isSubcommand(root, rest[0]) {
		return slices.Concat(given, []string{"--"}, rest), nil
	}
	if len(given) > 0 {
		return nil, &view.Problem{
			Code: view.ExitConfig,
			What: fmt.Sprintf("%s stands before the command %q", args[0], rest[0]),
			Why:  "Flags of a run do not go with a command of umrun.",
			Try:  []string{"umrun help " + rest[0], fmt.Sprintf("-- %s, if a program is meant", rest[0])},
		}
	}
	return args, nil
}

func isSubcommand(root *cobra.Command, word string) bool {
	if word == cobra.ShellCompRequestCmd || word == cobra.ShellCompNoDescRequestCmd {
		return true // what completion scripts call
	}
	return slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool {
		return c.Name() == word
	})
}
