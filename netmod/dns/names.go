// SPDX-License-Identifier: Apache-2.0

// Names that somebody else resolves, and the addresses that stand for them.

package dns

import (
	"net/netip"
	"strconv"
	"strings"
)

// Names gives each name addresses that stand for it. It is what a network has in
// place of name servers whose other end, a proxy, resolves names: a connection to
// such an address goes there by name. Methods are safe for concurrent use.
type Names interface {
	// Addrs returns the addresses that stand for a name in lower case, without a
	// trailing dot; none if it cannot be a host's name.
	Addrs(name string) []netip.Addr

	// Name returns the name that a stands for; ok is false if a is not among the
	// addresses that are given to names, and name empty if it stands for none.
	Name(a netip.Addr) (name string, ok bool)
}

// noOthers is the text of the answer to questions that nobody can be asked.
const noOthers = "names are resolved by the proxy, which knows addresses only; name a server with the key dns="

// named answers q by [Config.Names], or returns nil if a server has to be asked.
// Every name exists: whether it does in truth, connecting shows. There are no SVCB
// and HTTPS records, since what they hold are addresses and names to connect to.
func (s *Stub) named(q query) []byte {
	switch q.typ {
	case typeA, typeAAAA, typeANY:
		if addrs := s.conf.Names.Addrs(nameText(q.name)); len(addrs) > 0 {
			return q.addresses(addrs)
		}
		return q.failure(rcodeNameError, "")
	case typeSVCB, typeHTTPS:
		return q.failure(rcodeSuccess, "")
	case typePTR:
		if a, ok := parseReverse(nameText(q.name)); ok {
			switch name, ok := s.conf.Names.Name(a); {
			case ok && name != "":
				return q.pointer(name)
			case ok:
				return q.failure(rcodeNameError, "")
			}
		}
	}
	if len(s.conf.Servers) == 0 {
		return q.failure(rcodeNotImpl, noOthers)
	}
	return nil
}

// parseReverse reads what reverseName writes.
func parseReverse(name string) (netip.Addr, bool) {
	if head, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(head, ".")
		var b [4]byte
		if len(parts) != len(b) {
			return netip.Addr{}, false
		}
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != p {
				return netip.Addr{}, false
			}
			b[len(b)-1-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	head, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(head) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(head[2*i:2*i+1], 16, 4)
		if err != nil || i < 31 && head[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
