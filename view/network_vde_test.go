// SPDX-License-Identifier: Apache-2.0

// VDE in plans: which URL a SPEC means, what is warned of, what is refused.

package view

import (
	"log/slog"
	"strings"
	"testing"
)

func TestPlanVDE(t *testing.T) {
	for _, tt := range []struct{ spec, url, warning, err string }{
		{"vde:/run/sw,ip=192.0.2.1/24", "vde:///run/sw", "", ""},
		{"vde:sw,ip=192.0.2.1/24", "vde://sw", "", ""},
		{"vde://sw,ip=192.0.2.1/24", "vde://sw", "", ""},
		{"vde:///run/sw[3],ip=192.0.2.1/24", "vde:///run/sw[3]", "", ""},
		{"vde:vxvde://239.1.2.3/ttl=2,ip=192.0.2.1/24", "vxvde://239.1.2.3/ttl=2", "", ""},
		{`lan=cmd://ssh -o A=b\,c host vde_plug,ip=192.0.2.1/24`, "cmd://ssh -o A=b,c host vde_plug", "outside of the view", ""},
		{"vlan://5{cmd://x},ip=192.0.2.1/24", "vlan://5{cmd://x}", `"x" runs outside`, ""},
		{"vde:/run/sw", "vde:///run/sw", "no address", ""},
		{"udp://1->h:2,ip=192.0.2.1/24,mtu=9216", "udp://1->h:2", "", ""},
		{"udp://1->h:2,ip=192.0.2.1/24,mtu=9217", "", "", "9216 at most"},
		{"udp://2000,ip=192.0.2.1/24", "", "", "->"},
		{"vdee://x,ip=192.0.2.1/24", "", "", "unknown scheme"},
	} {
		n, err := ParseNetwork(tt.spec)
		if err != nil {
			t.Errorf("%s: %v", tt.spec, err)
			continue
		}
		p, err := planNetworks(Config{Networks: []Network{n}, DNS: "none", Log: slog.New(slog.DiscardHandler)})
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) || ExitCode(err) != ExitConfig {
				t.Errorf("%s: %v, want %q", tt.spec, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.spec, err)
		case p.Networks[0].URL != tt.url:
			t.Errorf("%s is %s, want %s", tt.spec, p.Networks[0].URL, tt.url)
		case !strings.Contains(strings.Join(p.Warnings, "; "), tt.warning) || tt.warning == "" && len(p.Warnings) > 0:
			t.Errorf("%s: warnings %q, want %q", tt.spec, p.Warnings, tt.warning)
		}
	}
}
