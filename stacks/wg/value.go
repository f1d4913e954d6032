// SPDX-License-Identifier: Apache-2.0

// The values of a wg-quick file: addresses, endpoints, numbers, and suggestions
// for misspelled keys.

package wg

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of MTU in bytes: RFC 791 asks for 68 and everybody for 576; a UDP
// datagram of 65507 bytes has room for WireGuard's 32 and padding to 16.
const (
	minMTU = 576
	maxMTU = 65440
)

// list yields the fields of a comma-separated value, without empty ones.
func list(value string) []string {
	var fs []string
	for _, f := range strings.Split(value, ",") {
		if f = strings.TrimSpace(f); f != "" {
			fs = append(fs, f)
		}
	}
	return fs
}

// prefix parses ADDRESS or ADDRESS/BITS; without BITS it is the address alone.
func prefix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	pre, err := netip.ParsePrefix(s)
	return pre, err == nil
}

// addresses adds the list in value to as, and warns of those that are there.
func (p *parser) addresses(as []netip.Prefix, value string) ([]netip.Prefix, error) {
	for _, s := range list(value) {
		a, ok := prefix(s)
		switch {
		case !ok:
			return nil, p.errorf("bad Address %q, want for example 10.0.0.2/32", s)
		case a.Addr().IsUnspecified() || a.Addr().IsMulticast():
			return nil, p.errorf("Address %s cannot be an interface's", s)
		case slices.Contains(as, a):
			p.warnAt(p.line, "Address %s is given twice", a)
		default:
			as = append(as, a)
		}
	}
	return as, nil
}

// allowedIPs adds the list in value to ps.
func (p *parser) allowedIPs(ps []netip.Prefix, value string) ([]netip.Prefix, error) {
	for _, s := range list(value) {
		a, ok := prefix(s)
		if !ok {
			return nil, p.errorf("bad AllowedIPs %q, want for example 10.0.0.0/8", s)
		}
		if a = a.Masked(); !slices.Contains(ps, a) { // wg(8) masks silently
			ps = append(ps, a)
		}
	}
	return ps, nil
}

// resolvers takes addresses as servers and everything else as search domains, as
// wg-quick(8) does.
func (p *parser) resolvers(value string) error {
	for _, s := range list(value) {
		if a, err := netip.ParseAddr(s); err == nil {
			p.cfg.DNS = append(p.cfg.DNS, a)
			continue
		}
		domain := strings.Trim(s, ".")
		if !isDomain(domain) {
			return p.errorf("bad DNS %q, want an address or a search domain", s)
		}
		p.cfg.Search = append(p.cfg.Search, domain)
	}
	return nil
}

// isDomain reports whether s can be a host name: labels of letters, digits,
// hyphens and underscores (RFC 952, and what people use), and no mistyped IPv4
// address, whose last label is a number (RFC 1123 §2.1).
func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c >= 0x80
			if !ok {
				return false
			}
		}
	}
	return len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// endpoint parses NAME:PORT, V4:PORT or [V6]:PORT.
func (p *parser) endpoint(value string) (Endpoint, error) {
	if _, err := netip.ParseAddr(value); err == nil {
		if strings.Contains(value, ":") {
			// Seven colons may hide a port; nobody can tell.
			return Endpoint{}, p.errorf("bad Endpoint %q: write an IPv6 address as [ADDRESS]:PORT", value)
		}
		return Endpoint{}, p.errorf("bad Endpoint %q: no port, 51820 is common", value)
	}
	i := strings.LastIndexByte(value, ':')
	if i < 0 {
		return Endpoint{}, p.errorf("bad Endpoint %q: no port, 51820 is common", value)
	}
	host, port := value[:i], value[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Endpoint{}, p.errorf("bad Endpoint %q: the port is a number from 1 to 65535", value)
	}
	e := Endpoint{Host: host, Port: uint16(n)}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() {
			return Endpoint{}, p.errorf("bad Endpoint %q: no IPv6 address between the brackets", value)
		}
		e.Host = inner
		return e, nil
	}
	if strings.Contains(host, ":") {
		return Endpoint{}, p.errorf("bad Endpoint %q: write an IPv6 address as [ADDRESS]:PORT", value)
	}
	if _, err := netip.ParseAddr(host); err != nil && !isDomain(strings.TrimSuffix(host, ".")) {
		return Endpoint{}, p.errorf("bad Endpoint %q: neither an address nor a name before the port", value)
	}
	return e, nil
}

// keepalive parses PersistentKeepalive: off or seconds, of which 0 is off too.
func (p *parser) keepalive(value string) (time.Duration, error) {
	if strings.EqualFold(value, "off") {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return 0, p.errorf("bad PersistentKeepalive %q, want off or seconds up to 65535", value)
	}
	return time.Duration(n) * time.Second, nil
}

// number parses a decimal number within bounds.
func (p *parser) number(key, value string, low, high int) (int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || int(n) < low || int(n) > high {
		return 0, p.errorf("bad %s %q, want a number from %d to %d", key, value, low, high)
	}
	return int(n), nil
}

// fwMark checks a mark as wg(8) takes it: off, decimal or 0x and hexadecimal.
func (p *parser) fwMark(value string) error {
	if strings.EqualFold(value, "off") {
		return nil
	}
	if _, err := strconv.ParseUint(value, 0, 32); err != nil {
		return p.errorf("bad FwMark %q, want off or a number of 32 bits", value)
	}
	return nil
}

// indexFold returns where in names s is, in whatever case, or -1.
func indexFold(names []string, s string) int {
	return slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, s) })
}

// quoteKey quotes a key for a message, or what of it is short enough to be one.
func quoteKey(key string) string {
	if len(key) > 32 { // a key pasted without its name, for all we know
		return "(too long to be a key)"
	}
	return strconv.Quote(key)
}

// suggest returns ` (did you mean "X"?)` for the name nearest to s, or nothing if
// none is near.
func suggest(s string, names []string) string {
	best, least := "", 3
	if len(s) > 64 {
		return ""
	}
	for _, n := range names {
		if d := distance(strings.ToLower(s), strings.ToLower(n)); d < least && d < len(n)-1 {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return ` (did you mean "` + best + `"?)`
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours between a and b (optimal string alignment).
func distance(a, b string) int {
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
