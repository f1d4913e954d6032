// SPDX-License-Identifier: Apache-2.0

// Tests of the SPEC grammar.

package view

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNetwork(t *testing.T) {
	kv := func(name, value string) Key { return Key{Name: name, Value: value, HasValue: true} }
	tests := []struct {
		spec string
		want Network
	}{
		{"office.conf", Network{Name: "wg", Kind: WireGuard, Target: "office.conf"}},
		{"./office", Network{Name: "wg", Kind: WireGuard, Target: "./office"}},
		{"wg:office.conf", Network{Name: "wg", Kind: WireGuard, Target: "office.conf"}},
		{"wg:nat", Network{Name: "wg", Kind: WireGuard, Target: "nat"}},
		{"./wg:office.conf", Network{Name: "wg", Kind: WireGuard, Target: "./wg:office.conf"}},
		{"corp=/etc/wg0.conf,mtu=1300", Network{Name: "corp", Kind: WireGuard, Target: "/etc/wg0.conf", Keys: []Key{kv("mtu", "1300")}}},
		{"./a=b.conf", Network{Name: "wg", Kind: WireGuard, Target: "./a=b.conf"}},
		{`a\,b.conf`, Network{Name: "wg", Kind: WireGuard, Target: "a,b.conf"}},
		{"a{b.conf,cc=reno", Network{Name: "wg", Kind: WireGuard, Target: "a{b.conf", Keys: []Key{kv("cc", "reno")}}},
		{"nat", Network{Name: "nat", Kind: NAT}},
		{"nat,host-loopback", Network{Name: "nat", Kind: NAT, Keys: []Key{{Name: "host-loopback"}}}},
		{"nat,mtu=1400,dns=9.9.9.9,dns=2620:fe::fe", Network{Name: "nat", Kind: NAT, Keys: []Key{kv("mtu", "1400"), kv("dns", "9.9.9.9"), kv("dns", "2620:fe::fe")}}},
		{"none,rcvbuf=4M", Network{Name: "none", Kind: None, Keys: []Key{kv("rcvbuf", "4M")}}},
		{`nat,pcap=a\,b`, Network{Name: "nat", Kind: NAT, Keys: []Key{kv("pcap", "a,b")}}},
		{"office", Network{Name: "profile", Kind: Profile, Target: "office"}},
		{"work=office", Network{Name: "work", Kind: Profile, Target: "office"}},
		{"vde:/run/vde.ctl", Network{Name: "vde", Kind: VDE, Target: "/run/vde.ctl"}},
		{"vxvde://239.1.2.3", Network{Name: "vde", Kind: VDE, Target: "vxvde://239.1.2.3"}},
		{"tap://tap7,mtu=1400", Network{Name: "tap", Kind: TAP, Target: "tap7", Keys: []Key{kv("mtu", "1400")}}},
		{"vde://{/run/a,b},mtu=1400", Network{Name: "vde", Kind: VDE, Target: "//{/run/a,b}", Keys: []Key{kv("mtu", "1400")}}},
		{"netns:/run/netns/x", Network{Name: "netns", Kind: NetNS, Target: "/run/netns/x"}},
		{"socks5://me@proxy:1080,auth=f", Network{Name: "socks5", Kind: SOCKS5, Target: "me@proxy:1080", Keys: []Key{kv("auth", "f")}}},
		{"ssh:me@host:22", Network{Name: "ssh", Kind: SSH, Target: "me@host:22"}},
		{"v=tun-provider:openvpn --a b,c=d", Network{Name: "v", Kind: TunProvider, Target: "openvpn --a b,c=d"}},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := ParseNetwork(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Spec = tt.spec
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestParseNetworkErrors(t *testing.T) {
	tests := []struct{ spec, want string }{
		{"", `there is no network in it`},
		{"a=", `there is no network in it`},
		{"wg", `wg needs a target: wg:FILE.conf`},
		{"wg:", `wg needs a target`},
		{"nat:x", `nat takes no target`},
		{"socks5:proxy", `write it as socks5://[USER@]HOST:PORT`},
		{"nta:x", `unknown kind of network "nta" (did you mean "nat"?)`},
		{"nat,mtuu=3", `unknown key "mtuu" (did you mean "mtu"?)`},
		{"nat,zzzzzzzzz", `unknown key "zzzzzzzzz"`},
		{"nat,mtu", `the key mtu needs a value: mtu=VALUE`},
		{"nat,mtu=1", `mtu=1: it is a number from 68 to 65535`},
		{"nat,host-loopback=1", `the key host-loopback takes no value`},
		{"nat,cc=bbr", `cc=bbr: it is one of reno, cubic`},
		{"nat,rcvbuf=1", `rcvbuf=1: it is a size in bytes`},
		{"nat,rcvbuf=99999999999M", `it is a size in bytes`},
		{"nat,dns=one", `dns=one: it is an IP address`},
		{"nat,rate=10", `rate=10: it is a rate, as in 10mbit`},
		{"nat,delay=20", `delay=20: it is a time, as in 20ms`},
		{"nat,delay=20ms,jitter=x", `jitter=x: it is a time`},
		{"nat,loss=1", `loss=1: it is a share of all packets, as in 0.5%`},
		{"nat,", `unknown key ""`},
		{"what is this", `neither a file, nor a kind of network, nor a profile's name`},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			_, err := ParseNetwork(tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q in it", err, tt.want)
			}
			if got := ExitCode(err); got != ExitConfig {
				t.Errorf("exit status %d, want %d", got, ExitConfig)
			}
		})
	}
}

func TestSupported(t *testing.T) {
	tests := []struct {
		spec string
		code int
		want string
	}{
		{"nat,stack=auto,cc=cubic", 0, ""},
		{"none,stack=netstack", 0, ""},
		{"vde:///run/x,ip=192.0.2.1/24", 0, ""},
		{"nat,stack=kernel", 0, ""},
		{"none,pcap=f", ExitConfig, "the key pcap does not go with none"},
		{"host", 0, ""},
		{"host,stack=kernel", ExitConfig, "the key stack does not go with host"},
		{"netns:/run/netns/x,dns=10.0.0.1", ExitConfig, "the key dns does not go with netns"},
		{"a.conf,host-loopback", ExitConfig, "the key host-loopback does not go with wg"},
		{"nat,rate=1gbit,delay=20ms,jitter=5ms,loss=0.5%", 0, ""},
		{"nat,jitter=5ms", ExitConfig, "add delay=TIME"},
		{"none,rate=1mbit", ExitConfig, "the key rate does not go with none"},
		{"tun:t0,dhcp", ExitConfig, "the key dhcp does not go with tun"},
		{"none,dns=192.0.2.1", ExitConfig, "the key dns does not go with none"},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			n, err := ParseNetwork(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			err = n.supported()
			if got := ExitCode(err); got != tt.code {
				t.Errorf("exit status %d, want %d (%v)", got, tt.code, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}

// FuzzParseNetwork holds two things: no input panics, and what parses is the same
// after it was written and parsed again.
func FuzzParseNetwork(f *testing.F) {
	for _, s := range []string{"nat", "a=b.conf,mtu=1300", `x\,y.conf,dns=::1`, "vde://{a,b},rd", "tun-provider:a,b", "socks5://h:1", `nat,pcap=\`, "office", "a=nat,host-loopback", `vde:{\,`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseNetwork(s)
		if err != nil {
			return
		}
		again, err := ParseNetwork(n.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", s, n, err)
		}
		again.Spec = n.Spec
		if d := cmp.Diff(n, again); d != "" {
			t.Fatalf("%q became %q:\n%s", s, n, d)
		}
	})
}
