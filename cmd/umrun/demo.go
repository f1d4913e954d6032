// SPDX-License-Identifier: Apache-2.0

// umrun demo: the main job on this machine alone.

package main

import (
	"github.com/spf13/cobra"

	"umrun/view"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "show the main job on this machine alone",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return view.NotBuilt("the command demo") },
	}
}
