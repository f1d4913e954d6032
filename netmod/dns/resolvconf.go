// SPDX-License-Identifier: Apache-2.0

// Reading resolv.conf(5) as the resolvers of programs do.

package dns

import (
	"bufio"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// maxNS is how many servers glibc, musl and Go use (MAXNS of <resolv.h>).
const maxNS = 3

// Resolv is what a resolv.conf says.
type Resolv struct {
	// Nameservers are the servers that glibc uses: the first three that are
	// addresses, with the zone as it is written ("fe80::1%eth0"). A file that
	// names none gives 127.0.0.1, as in res_init(3).
	Nameservers []netip.Addr

	// Beyond are further servers, which c-ares and some others use too.
	Beyond []netip.Addr

	// Implied says that Nameservers is the default and not in the file.
	Implied bool

	Search  []string // the last search or domain line, without trailing dots
	Options []string // all options lines
}

// ParseResolvConf reads a resolv.conf. It never fails on its contents: lines
// that say nothing to glibc are skipped. After a read error it returns what was
// read until then, so that a missing file is an empty reader.
func ParseResolvConf(r io.Reader) Resolv {
	var conf Resolv
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line := sc.Text()
		// Comments begin in the first column; so do keywords, and white space
		// must follow them (glibc resolv/res_init.c).
		if line == "" || strings.ContainsRune("#; \t", rune(line[0])) {
			continue
		}
		words := strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t\r\v\f", c) })
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			a, ok := parseServer(words[1])
			switch {
			case !ok:
			case len(conf.Nameservers) < maxNS:
				conf.Nameservers = append(conf.Nameservers, a)
			default:
				conf.Beyond = append(conf.Beyond, a)
			}
		case "domain":
			conf.Search = domains(words[1:2])
		case "search":
			conf.Search = domains(words[1:])
		case "options":
			conf.Options = append(conf.Options, words[1:]...)
		}
	}
	if len(conf.Nameservers) == 0 {
		conf.Implied = true
		conf.Nameservers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return conf
}

// domains drops trailing dots, and the root domain, which adds nothing.
func domains(words []string) []string {
	var out []string
	for _, w := range words {
		if w = strings.TrimSuffix(w, "."); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// parseServer reads the address of a nameserver line. It ends at a comment
// character; IPv4 addresses have all the forms of inet_aton(3).
func parseServer(word string) (netip.Addr, bool) {
	if i := strings.IndexAny(word, ";#"); i >= 0 {
		word = word[:i]
	}
	if a, ok := parseAton(word); ok {
		return a, true
	}
	a, err := netip.ParseAddr(word)
	return a, err == nil && a.Is6()
}

// parseAton reads an address as inet_aton(3) does: one to four numbers, decimal,
// octal (0...) or hexadecimal (0x...), the last of which fills the rest.
func parseAton(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var addr uint64
	for i, p := range parts {
		base := 10
		switch {
		case len(p) > 2 && (p[:2] == "0x" || p[:2] == "0X"):
			p, base = p[2:], 16
		case len(p) > 1 && p[0] == '0':
			p, base = p[1:], 8
		}
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		n, err := strconv.ParseUint(p, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = addr<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}), true
}
