// SPDX-License-Identifier: Apache-2.0

// Proxies in plans.

package view

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxyNames: with several proxies what stands for a name leads to the network
// that gave it, with and without rules, and every one of them knows the name.
func TestProxyNames(t *testing.T) {
	p, err := several(t, "nat a=socks5://192.0.2.1:1080,domain=a.example b=http://192.0.2.2:3128 c=socks5://192.0.2.3:1080", "0.0.0.0/0=nat", "*.b.example=b")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(p.nets); i++ {
		stub := p.stubs[i]
		for _, a := range stub.Names.Addrs("far.example") {
			if n, _ := p.table.Dest(netip.AddrPortFrom(a, 80)); n != i {
				t.Errorf("%v of network %d leads to network %d", a, i, n)
			}
			for j := 1; j < len(p.nets); j++ {
				if name, ok := p.stubs[j].Names.Name(a); name != "far.example" || !ok {
					t.Errorf("%v of network %d is %q to network %d", a, i, name, j)
				}
			}
		}
		if !stub.Stream || stub.Reason != "" || len(stub.Servers) > 0 {
			t.Errorf("network %d: %+v", i, stub)
		}
	}
}

// TestProxyPlan: targets that are read and refused, and that no secret is in a plan.
func TestProxyPlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(file, []byte("me\nswordfish\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chmod(file, 0o644)
	for _, tt := range []struct{ spec, proxy, err string }{
		{spec: "socks5://proxy.example:1080,auth=" + file, proxy: "proxy.example:1080"},
		{spec: "socks5://me@[2001:db8::1]:1080/,auth=" + file, proxy: "[2001:db8::1]:1080"},
		{spec: "http://192.0.2.1:3128", proxy: "192.0.2.1:3128"},
		{spec: "socks5://192.0.2.1", err: "the port is missing"},
		{spec: "socks5://192.0.2.1:0", err: "0 is no port"},
		{spec: "socks5://192.0.2.1:70000", err: "70000 is no port"},
		{spec: "socks5://192.0.2.1:1080/path", err: "write it as"},
		{spec: "http://:80", err: "write it as"},
		{spec: "socks5://you@192.0.2.1:1080,auth=" + file, err: "not the one before the @"},
		{spec: "socks5://192.0.2.1:1080,auth=/nonexistent", err: "no such file"},
		{spec: "socks5://192.0.2.1:1080,mtu=1000", err: "1280"},
	} {
		p, err := several(t, tt.spec)
		if err != nil {
			if tt.err == "" || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "swordfish") {
				t.Errorf("%s: %v", tt.spec, err)
			}
			continue
		}
		b, err := json.Marshal(p)
		if tt.err != "" || err != nil || p.Networks[0].Proxy != tt.proxy || strings.Contains(string(b), "swordfish") {
			t.Errorf("%s: %s, %v, want the error %q", tt.spec, b, err, tt.err)
		}
		if auth := strings.Contains(tt.spec, "auth="); auth != (len(p.Warnings) == 1) || auth != (p.Networks[0].AuthFile == file) {
			t.Errorf("%s: warnings %q, file %q", tt.spec, p.Warnings, p.Networks[0].AuthFile)
		}
	}
	for _, spec := range []string{"socks5://me:swordfish@h:1", "x=http://me:swordfish@h:1,mtu=1300", "ssh:me:swordfish@h", "socks5h://me:swordfish@h:1", "https://me:swordfish@h:1",
		"http://me:a,swordfish@h:1", "http://m/e:swordfish@h:1", "http://me:sword/swordfish@h", "p=socks5://me:a,stack=swordfish@h:1", "http://me:1,b,swordfish@h:1",
		"ssh:me:a,auth=swordfish@h", `http://me:a\,swordfish@h:1`, "http://me:a@swordfish@h:1"} {
		if _, err := ParseNetwork(spec); err == nil || !strings.Contains(err.Error(), "auth=FILE") || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	for _, spec := range []string{"http://h:1,auth=/a@b", "ssh:me@h:22,auth=a@b", "ssh:h,pcap=a@b", "http://[::1]:3128,auth=/a:c@b", "ssh:me@[::1],auth=x:y@z", "ssh:[::1],auth=x@z", "socks5://me@h:1,mtu=1300,pcap=@"} {
		if _, err := ParseNetwork(spec); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}
