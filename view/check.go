// SPDX-License-Identifier: Apache-2.0

// Check: try a network without a program.

package view

import "context"

// Check parses the networks of conf and tries them.
func Check(ctx context.Context, conf Config, tell func(Finding)) error {
	p, err := planNetworks(conf)
	if err != nil {
		return err
	}
	tell(Finding{Name: "config", Verdict: OK, Text: p.Networks[0].Name})
	return nil
}
