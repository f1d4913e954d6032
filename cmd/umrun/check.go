// SPDX-License-Identifier: Apache-2.0

// umrun check: parse, and try the network.

package main

import (
	"fmt"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"umrun/view"
)

func newCheck() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "check [flags] SPEC...",
		Short: "parse, and try each network: handshake, DNS, MTU",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := refuseEmpty(c.Flags()); err != nil {
				return err
			}
			if f.wait < 0 {
				return badFlag("--wait %v is less than nothing", f.wait)
			}
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			log, closeLog, err := openLog(&f, c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer closeLog()
			nets, err := parseNetworks(args)
			if err != nil {
				return err
			}
			err = view.Check(ctx, view.Config{Networks: nets, DNS: f.dns, Wait: f.wait, Log: log}, func(r view.Finding) {
				fmt.Fprintf(c.OutOrStdout(), "%-4s  %-10s %s\n", r.Verdict, r.Name, r.Text)
			})
			if ctx.Err() != nil {
				return exitStatus(128 + int(unix.SIGINT)) // given up by the user
			}
			return err
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.dns, "dns", "tunnel", "`WHO` answers names: tunnel, the address of a server in it, https://HOST/PATH, or none")
	fs.DurationVar(&f.wait, "wait", 10*time.Second, "wait so long for the network to be up")
	fs.StringVar(&f.logFile, "log", "", "append the log to `FILE`")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "more in the log")
	return c
}
