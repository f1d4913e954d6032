// SPDX-License-Identifier: Apache-2.0

// Tests of how problems are told, and of their exit statuses.

package view

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	timeout := &Problem{
		Code: ExitNetwork,
		What: "no answer from 198.51.100.7:51820 in 10 s (3 handshakes sent, 0 replies)",
		Why:  "UDP may be blocked here, or the key revoked.",
		Try:  []string{"umrun check mullvad-se.conf", "--no-wait"},
	}
	tests := []struct {
		name string
		err  error
		code int
		want string
	}{
		{"whole", timeout, 120, "umrun: no answer from 198.51.100.7:51820 in 10 s (3 handshakes sent, 0 replies)\n" +
			"  UDP may be blocked here, or the key revoked.\n" +
			"  try: umrun check mullvad-se.conf    or: --no-wait\n"},
		{"wrapped", fmt.Errorf("open: %w", timeout), 120, "umrun: open: no answer from 198.51.100.7:51820 in 10 s (3 handshakes sent, 0 replies)\n" +
			"  UDP may be blocked here, or the key revoked.\n" +
			"  try: umrun check mullvad-se.conf    or: --no-wait\n"},
		{"two reasons", &Problem{What: "x", Why: "One.\nTwo."}, 125, "umrun: x\n  One.\n  Two.\n"},
		{"plain", errors.New("disk full"), 125, "umrun: disk full\n"},
		{"not built", NotBuilt("-p/--publish"), 125, "umrun: -p/--publish is not built yet\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			Report(&b, tt.err)
			if d := cmp.Diff(tt.want, b.String()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if got := ExitCode(tt.err); got != tt.code {
				t.Errorf("exit status %d, want %d", got, tt.code)
			}
		})
	}
	if got := ExitCode(nil); got != 0 {
		t.Errorf("exit status of no error: %d", got)
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"Address", "AllowedIPs", "mtu", "host-loopback"}
	for got, want := range map[string]string{
		"Adress": "Address", "AlowedIp": "AllowedIPs", "mut": "mtu", "host-lopback": "host-loopback", "zzz": "",
	} {
		if s, _ := Suggest(got, known); s != want {
			t.Errorf("Suggest(%q) = %q, want %q", got, s, want)
		}
	}
}
