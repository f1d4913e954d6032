// SPDX-License-Identifier: Apache-2.0

// The keys of a SPEC: which there are, what they take, where they work.

package view

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"umrun/stacks"
	"umrun/stacks/impair"
)

// keys is every key of CLI.md.
var keys = map[string]struct {
	value func(string) error // nil: the key takes no value
	needs trait              // of the kind of network
}{
	"stack":         {oneOf("auto", "netstack", "kernel"), hasStack},
	"mtu":           {inRange(68, 65535), hasLink}, // 68 is the least that IPv4 allows, RFC 791 §3.2
	"cc":            {oneOf("reno", "cubic"), hasStack},
	"rcvbuf":        {isSize, hasStack},
	"sndbuf":        {isSize, hasStack},
	"dns":           {isAddr, hasDNS},
	"domain":        {notEmpty, hasDNS},
	"host-loopback": {nil, isNAT},
	"ip":            {isHost, hasConfig},
	"gw":            {isGateway, hasConfig},
	"mac":           {isMAC, hasEther},
	"fqdn":          {isName, hasEther},
	"dhcp":          {nil, hasEther},
	"dhcp6":         {nil, hasEther},
	"slaac":         {nil, hasEther},
	"rd":            {nil, hasEther},
	"auto":          {nil, hasEther},
	"rate":          {parsed(impair.ParseRate), hasLink},
	"delay":         {parsed(impair.ParseDelay), hasLink},
	"jitter":        {parsed(impair.ParseDelay), hasLink},
	"loss":          {parsed(impair.ParseLoss), hasLink},
	"pcap":          {notEmpty, hasLink},
	"auth":          {notEmpty, hasAuth},
}

// repeatable are the keys of which each value counts.
var repeatable = []string{"ip", "gw", "dns", "domain"}

// check says whether k exists and has the form it needs. Whether it goes with the kind
// of network is for [Network.supported]: what a profile stands for is not known yet.
func (k Key) check() error {
	def, ok := keys[k.Name]
	switch {
	case !ok:
		return fmt.Errorf("unknown key %q%s", k.Name, didYouMean(k.Name, slices.Sorted(maps.Keys(keys))))
	case def.value == nil && k.HasValue:
		return fmt.Errorf("the key %s takes no value", k.Name)
	case def.value != nil && !k.HasValue:
		return fmt.Errorf("the key %s needs a value: %s=VALUE", k.Name, k.Name)
	case def.value != nil:
		if err := def.value(k.Value); err != nil {
			return fmt.Errorf("%s=%s: %w", k.Name, k.Value, err)
		}
	}
	return nil
}

// supported returns the error for what n asks for and umrun has not built, or
// what does not go together.
func (n Network) supported() error {
	if kinds[n.Kind]&isBuilt == 0 {
		return NotBuilt(fmt.Sprintf("-n %s: the network %s", n.Spec, n.Kind))
	}
	for _, k := range n.Keys {
		if kinds[n.Kind]&keys[k.Name].needs == 0 {
			return badConfig("-n %s: the key %s does not go with %s", n.Spec, k.Name, n.Kind)
		}
	}
	if p := n.impairment(); p != nil && p.Jitter != "" && p.Delay == "" {
		return badConfig("-n %s: jitter= is of a delay: add delay=TIME", n.Spec)
	}
	return nil
}

// value returns what key was set to last; ok is false if it was not set.
func (n Network) value(key string) (v string, ok bool) {
	for _, k := range n.Keys {
		if k.Name == key {
			v, ok = k.Value, true
		}
	}
	return v, ok
}

// has tells whether key is there.
func (n Network) has(key string) bool {
	_, ok := n.value(key)
	return ok
}

// values returns everything that a repeatable key was set to.
func (n Network) values(key string) []string {
	var vs []string
	for _, k := range n.Keys {
		if k.Name == key {
			vs = append(vs, k.Value)
		}
	}
	return vs
}

// bytes returns a size key in bytes, 0 if it is not set.
func (n Network) bytes(key string) int {
	v, ok := n.value(key)
	if !ok {
		return 0
	}
	size, _ := parseSize(v) // was checked when parsed
	return size
}

// number returns a numeric key, 0 if it is not set.
func (n Network) number(key string) int {
	v, _ := n.value(key)
	i, _ := strconv.Atoi(v) // was checked when parsed
	return i
}

// dnsKeys returns d with what dns= and domain= say in its place.
func (n Network) dnsKeys(d stacks.DNS) stacks.DNS {
	if s := n.servers(); len(s) > 0 {
		d.Servers = s
	}
	if s := n.values("domain"); len(s) > 0 {
		d.Search = s
	}
	return d
}

// servers returns the name servers that dns= set.
func (n Network) servers() []netip.AddrPort {
	var as []netip.AddrPort
	for _, v := range n.values("dns") {
		if a, err := netip.ParseAddr(v); err == nil {
			as = append(as, netip.AddrPortFrom(a, 53))
		}
	}
	return as
}

func oneOf(words ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(words, v) {
			return fmt.Errorf("it is one of %s", strings.Join(words, ", "))
		}
		return nil
	}
}

func inRange(lo, hi int) func(string) error {
	return func(v string) error {
		if i, err := strconv.Atoi(v); err != nil || i < lo || i > hi {
			return fmt.Errorf("it is a number from %d to %d", lo, hi)
		}
		return nil
	}
}

func isAddr(v string) error {
	if _, err := netip.ParseAddr(v); err != nil {
		return fmt.Errorf("it is an IP address")
	}
	return nil
}

func notEmpty(v string) error {
	if v == "" {
		return fmt.Errorf("it is empty")
	}
	return nil
}

func isSize(v string) error {
	_, err := parseSize(v)
	return err
}

// parseSize reads bytes with an optional K, M (powers of 1024): 4096 to 1 GiB.
func parseSize(v string) (int, error) {
	num, mul := v, 1
	if n := len(v) - 1; n > 0 {
		switch v[n] {
		case 'k', 'K':
			num, mul = v[:n], 1<<10
		case 'm', 'M':
			num, mul = v[:n], 1<<20
		}
	}
	i, err := strconv.Atoi(num)
	if err != nil || i < 0 || i > 1<<30/mul || i*mul < 4096 {
		return 0, fmt.Errorf("it is a size in bytes from 4096 to 1024M; K and M are powers of 1024")
	}
	return i * mul, nil
}
