// SPDX-License-Identifier: Apache-2.0

// Tests of plans: what is decided before anything is done.

package view

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const planConf = `[Interface]
PrivateKey = 6BtVzKv6ioeuvtJvX3Sq0V5bmRjYyMGbMzzrDMmZPUk=
Address = 10.9.0.2/24, fd09::2/64
DNS = 10.9.0.1, corp.example

[Peer]
PublicKey = 8sCLQpCAfoPqWUdHgkeGUAg3vUqmIXjpsqZ8Obxt2GA=
PresharedKey = mOtVEZ4tCcQFYwMtLYm2OZnLkPWoOYEpmvsMGjUVbgk=
AllowedIPs = 10.9.0.0/24, fd09::/64
Endpoint = vpn.example:51820
PersistentKeepalive = 25
`

// TestPlanWG holds the JSON of a WireGuard plan: its names are stable, and no key
// is in it but the public ones.
func TestPlanWG(t *testing.T) {
	file := filepath.Join(t.TempDir(), "office.conf")
	if err := os.WriteFile(file, []byte(planConf), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := ParseNetwork("corp=" + file + ",cc=reno,sndbuf=1M")
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(Config{
		Networks: []Network{n},
		Argv:     []string{"sh", "-c", "true"},
		Env:      []string{"PATH=/bin"},
		Dir:      "/",
		Wait:     1500 * time.Millisecond,
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"6BtVzKv6ioeu", "mOtVEZ4tCcQF"} {
		if bytes.Contains(b, []byte(key)) {
			t.Errorf("the key %s... is in the plan", key)
		}
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	delete(got["dns"].(map[string]any), "listen") // is the machine's
	want := map[string]any{
		"path": "/bin/sh", "argv": []any{"sh", "-c", "true"}, "dir": "/",
		"networks": []any{map[string]any{
			"name": "corp", "kind": "wg", "file": file, "stack": "netstack", "mtu": 1420.0,
			"addresses": []any{"10.9.0.2/24", "fd09::2/64"},
			"routes":    []any{map[string]any{"dst": "fd09::/64"}, map[string]any{"dst": "10.9.0.0/24"}},
			"peers": []any{map[string]any{
				"public_key": "8sCLQpCAfoPqWUdHgkeGUAg3vUqmIXjpsqZ8Obxt2GA=", "preshared_key": true, "endpoint": "vpn.example:51820",
				"allowed_ips": []any{"10.9.0.0/24", "fd09::/64"}, "keepalive_seconds": 25.0,
			}},
			"cc": "reno", "sndbuf_bytes": float64(1 << 20),
		}},
		"dns":  map[string]any{"mode": "tunnel", "servers": []any{"10.9.0.1:53"}, "search": []any{"corp.example"}},
		"dbus": "none", "backend": "notify", "wait_seconds": 1.5, "wait_all": false, "warnings": []any{},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestPlanDNS: keys of a SPEC and --dns decide over what the file says.
func TestPlanDNS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "office.conf")
	if err := os.WriteFile(file, []byte(planConf), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		spec, dns       string
		mode            string
		servers, search []string
		code            int
	}{
		{file, "", "tunnel", []string{"10.9.0.1:53"}, []string{"corp.example"}, 0},
		{file + ",dns=10.9.0.7,domain=a.example", "tunnel", "tunnel", []string{"10.9.0.7:53"}, []string{"a.example"}, 0},
		{file, "10.9.0.8", "10.9.0.8", []string{"10.9.0.8:53"}, []string{"corp.example"}, 0},
		{file, "none", "none", []string{}, []string{}, 0},
		{"none", "tunnel", "none", []string{}, []string{}, 0},
		{file, "https://dns.example/", "https://dns.example/", []string{"10.9.0.1:53"}, []string{"corp.example"}, 0}, // for its address
		{file, "https://10.9.0.9/", "https://10.9.0.9/", []string{}, []string{"corp.example"}, 0},
		{file, "http://dns.example/", "", nil, nil, ExitConfig},
		{file, "bogus", "", nil, nil, ExitConfig},
	}
	for _, tt := range tests {
		t.Run(tt.spec[len(tt.spec)-4:]+" "+tt.dns, func(t *testing.T) {
			n, err := ParseNetwork(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			p, err := planNetworks(Config{Networks: []Network{n}, DNS: tt.dns})
			if ExitCode(err) != tt.code {
				t.Fatalf("status %d (%v), want %d", ExitCode(err), err, tt.code)
			}
			if err != nil {
				return
			}
			p.DNS.Listen = nil
			if d := cmp.Diff(PlanDNS{Mode: tt.mode, Servers: tt.servers, Search: tt.search}, p.DNS); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
