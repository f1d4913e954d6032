// SPDX-License-Identifier: Apache-2.0

// The grammar of URLs.

package vde

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	vde := func(arg string, opts ...Opt) *URL { return &URL{Scheme: "vde", Arg: arg, Opts: opts} }
	for _, tt := range []struct {
		in   string
		want *URL
	}{
		{"/run/sw", vde("/run/sw")},
		{"sw", vde("sw")},
		{"", vde("")},
		{"vde://", vde("")},
		{"vde:///run/sw", vde("/run/sw")},
		{"vde:///run/sw[3]", vde("/run/sw", Opt{Value: "3"})},
		{"/run/sw[lan]", vde("/run/sw", Opt{Value: "lan"})},
		{"vde:///run/sw[/port=3/mode=0660]", vde("/run/sw", Opt{"port", "3", true}, Opt{"mode", "0660", true})},
		{`vde:///run/a\[b`, vde("/run/a[b")},
		{`vde:///run/'a[b]'[2]`, vde("/run/a[b]", Opt{Value: "2"})},
		{"vde:///run/a%20b", vde("/run/a b")},
		{"vde:///run/100%", vde("/run/100%")},
		{"udp://2000->host:3000", &URL{Scheme: "udp", Arg: "2000->host:3000"}},
		{"cmd://ssh host vde_plug 'a b'", &URL{Scheme: "cmd", Arg: "ssh host vde_plug 'a b'"}},
		{"cmd://sh -c 'echo {}'", &URL{Scheme: "cmd", Arg: "sh -c 'echo {}'"}},
		{"vxvde://", &URL{Scheme: "vxvde"}},
		{"vxvde://239.1.2.3/ttl=4/vni=7/v4", &URL{Scheme: "vxvde", Arg: "239.1.2.3", Opts: []Opt{{"ttl", "4", true}, {"vni", "7", true}, {"v4", "", false}}}},
		{"switch:///tmp/x[mode=0666/hashsize=1024]", &URL{Scheme: "switch", Arg: "/tmp/x", Opts: []Opt{{"mode", "0666", true}, {"hashsize", "1024", true}}}},
		{"vlan://5{vde:///run/sw[3]}", &URL{Scheme: "vlan", Arg: "5", Nested: vde("/run/sw", Opt{Value: "3"})}},
		{"vlan://5{/run/sw}", &URL{Scheme: "vlan", Arg: "5", Nested: vde("/run/sw")}},
		{"vlan://5[untag=4/trunk]{vlan://6{tap://t0}}", &URL{Scheme: "vlan", Arg: "5", Opts: []Opt{{"untag", "4", true}, {"trunk", "", false}},
			Nested: &URL{Scheme: "vlan", Arg: "6", Nested: &URL{Scheme: "tap", Arg: "t0"}}}},
		{"vlan://5/x{cmd://sh -c 'a}b'}", &URL{Scheme: "vlan", Arg: "5", Opts: []Opt{{Name: "x"}}, Nested: &URL{Scheme: "cmd", Arg: "sh -c 'a}b'"}}},
	} {
		got, err := Parse(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", tt.in, got, err, tt.want)
			continue
		}
		again, err := Parse(got.String())
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: written as %s, which is %+v, %v", tt.in, got, again, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"vdee://x":                                   "unknown scheme",
		"vde:///run/sw[3":                            "not closed",
		"vde:///run/sw[3]x":                          "not closed",
		"vde:///run/sw[prot=3]":                      `unknown option "prot"`,
		"vde:///run/sw[port=-2]":                     "ports are",
		"vde:///run/sw[port=9000000]":                "ports are",
		"vde:///run/sw[mode=999]":                    "octal",
		`vde:///run/sw[..]`:                          "no name",
		`vde:///run/sw['a/b']`:                       "no name",
		"udp://2000":                                 "->",
		"udp://0->h:1":                               "no port",
		"udp://1->:2":                                "no host",
		"udp://1->h":                                 "HOST:PORT",
		"cmd://":                                     "no command",
		"cmd://ssh 'x":                               "not closed",
		"tap://":                                     "nothing behind",
		"ptp://":                                     "nothing behind",
		"vxvde://10.0.0.1":                           "no multicast address",
		"vxvde://host":                               "no address of a group",
		"vxvde://239.0.0.1/v6":                       "family",
		"vxvde://239.0.0.1/vni=99999999":             "0 to 16777215",
		"vxlan://239.0.0.1/bind=1.2.3.4":             `unknown option "bind"`,
		"vlan://5":                                   "braces",
		"vlan://{/x}":                                "no VLAN",
		"vlan://4095{/x}":                            "1 to 4094",
		"vlan://5[tag=1-0]{/x}":                      "1 to 4094",
		"vlan://5[tag=7-5]{/x}":                      "meaning already",
		"vlan://5[tag=7-8:7-9]{/x}":                  "meaning already",
		"vlan://5[untag=7/tag=7]{/x}":                "meaning already",
		"vlan://5{vde:///x":                          "not closed",
		"vlan://5{vdx://y}":                          "unknown scheme",
		"switch:///x[expiretime=0]":                  "1 to",
		"hub://" + strings.Repeat("x", 97):           "97 bytes of 96",
		"vlan://1{vlan://2{vlan://3{vlan://4{/x}}}}": "nested more than",
		"a\x00b":                                     "zero byte",
	} {
		if u, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want an error with %q", in, u, err, want)
		}
	}
}

func TestSplitCommand(t *testing.T) {
	for in, want := range map[string][]string{
		`ssh host vde_plug`:       {"ssh", "host", "vde_plug"},
		`  a   b  `:               {"a", "b"},
		`sh -c 'echo "$X" \n' ""`: {"sh", "-c", `echo "$X" \n`, ""},
		`a\ b "c \" d" 'e'f`:      {"a b", `c " d`, "ef"},
		`x "a\b"`:                 {"x", `a\b`},
		``:                        nil,
	} {
		if got, err := splitCommand(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
}

// FuzzURL: a URL that is read is written as one that is read as the same.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"/run/sw[3]", "vlan://5[u=4/t=10:11-12]{vde:///x[port=1]}", "vxvde://239.1.2.3/ttl=4", `vde://a\[b'c]'%5d`, "udp://1->h:2", "cmd://a 'b' {c}", "switch://x[mode=0600]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Errorf("%q is %+v, written as %q, which is %+v, %v", s, u, u, again, err)
		}
	})
}
