// SPDX-License-Identifier: Apache-2.0

// Tests of which word is the program.

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/view"
)

func TestSettle(t *testing.T) {
	tests := []struct{ in, want string }{
		{"ls", "-- ls"},
		{"ls -l -n x", "-- ls -l -n x"},
		{"ls -- x", "-- ls -- x"},
		{"-n nat ls", "--net=nat -- ls"},
		{"-nnat ls", "--net=nat -- ls"},
		{"--net nat -- ls", "--net=nat -- ls"},
		{"-- ps", "-- ps"},
		{"ps", "ps"},
		{"ps --json", "ps --json"},
		{"-n nat -- ps", "--net=nat -- ps"},
		{"-qn ps curl", "--quiet=true --net=ps -- curl"},
		{"-q --no-wait check", "error"},
		{"-n nat ps", "error"},
		{"--nett nat ls", "error"},
		{"-n", "error"},
		{"--wait soon ls", "error"},
		{"--version", "--version=true --"},
		{"__complete doc", "__complete doc"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := settle(newRoot(), strings.Fields(tt.in))
			if err != nil {
				if tt.want != "error" || view.ExitCode(err) != view.ExitConfig {
					t.Errorf("error %v with status %d", err, view.ExitCode(err))
				}
				return
			}
			if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestContract holds that every flag and command of the contract is there, built
// or reserved.
func TestContract(t *testing.T) {
	root := newRoot()
	for _, f := range strings.Fields(`net route publish publish-all mount fs-engine no-proc dns hosts hostname dbus
		fresh-instance allow deny sandbox wait no-wait pcap flows metrics trace backend name wait-all log dry-run`) {
		if root.Flags().Lookup(f) == nil {
			t.Errorf("there is no flag --%s", f)
		}
	}
	for _, f := range strings.Fields("n p m v q") {
		if root.Flags().ShorthandLookup(f) == nil {
			t.Errorf("there is no flag -%s", f)
		}
	}
	for _, c := range strings.Fields(`ps top stats stop exec attach set view gateway up stack profile check selftest
		doctor demo shell desktop systemd agent completion version help`) {
		if !isSubcommand(root, c) {
			t.Errorf("there is no command %s", c)
		}
	}
}
