// SPDX-License-Identifier: Apache-2.0

// Command gen writes what is made from the tables of sockapi. It runs in
// netmod/sockapi, where go generate starts it.
package main

import (
	"fmt"
	"os"

	"umrun/netmod/sockapi"
)

func main() {
	for name, text := range map[string]string{
		"../../docs/compatibility.md":        sockapi.Page(),
		"../../testdata/targets/sockopt.inc": sockapi.Walk(),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}
