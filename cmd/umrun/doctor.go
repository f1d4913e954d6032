// SPDX-License-Identifier: Apache-2.0

// umrun doctor: what this machine allows and lacks, and how to mend it.

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"umrun/view"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [--json]",
		Short: "what this machine allows and lacks, and how to mend it",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := view.Doctor(c.Context())
			if asJSON {
				if err := printJSON(c.OutOrStdout(), found); err != nil {
					return err
				}
			} else {
				printFindings(c.OutOrStdout(), found)
			}
			for _, f := range found {
				if f.Verdict == view.Fail {
					return &view.Problem{Code: view.ExitMachine, What: "this machine cannot run a view: " + f.Text}
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}

// printFindings writes a table for people.
func printFindings(w io.Writer, found []view.Finding) {
	width := 0
	for _, f := range found {
		width = max(width, len(f.Name))
	}
	for _, f := range found {
		fmt.Fprintf(w, "%-4s  %-*s  %s\n", f.Verdict, width, f.Name, f.Text)
		if f.Mend != "" {
			fmt.Fprintf(w, "%*s-> %s\n", 8+width, "", f.Mend)
		}
	}
}
