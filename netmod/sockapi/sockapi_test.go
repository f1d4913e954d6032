// SPDX-License-Identifier: Apache-2.0

// The tables hold together, and what is made from them is fresh.

package sockapi_test

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"testing"

	"umrun/netmod/sockapi"
)

// TestGenerated: what is made from the tables is in the tree.
func TestGenerated(t *testing.T) {
	for name, want := range map[string]string{
		"../../docs/compatibility.md":        sockapi.Page(),
		"../../testdata/targets/sockopt.inc": sockapi.Walk(),
	} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is stale: go generate ./netmod/sockapi", name)
		}
	}
}

// TestRows: every row says what it must.
func TestRows(t *testing.T) {
	for _, l := range sockapi.Levels() {
		byNumber, byName := map[int]string{}, map[string]bool{}
		for _, o := range l.Options {
			if was := byNumber[o.Number]; was != "" || byName[o.Name] {
				t.Errorf("%s: %s is there twice (%s)", l.Name, o.Name, was)
			}
			byNumber[o.Number], byName[o.Name] = o.Name, true
			checkRow(t, o.Name, o.Support, o.Errno != 0, o.Gap)
			if o.Access == 0 || l.Kinds(o) == 0 {
				t.Errorf("%s: neither access nor kind", o.Name)
			}
		}
	}
	for _, table := range sockapi.Tables() {
		for _, e := range table.Entries {
			checkRow(t, e.Name, e.Support, e.Errno != 0, e.Gap)
		}
	}
}

func checkRow(t *testing.T, name string, s sockapi.Support, errno bool, gap string) {
	t.Helper()
	switch s {
	case sockapi.Full, sockapi.Kept:
	case sockapi.Part:
		if gap == "" {
			t.Errorf("%s: part without a gap", name)
		}
	case sockapi.Refused:
		if !errno || gap == "" {
			t.Errorf("%s: refused without errno or reason", name)
		}
	default:
		t.Errorf("%s: no support level", name)
	}
	if errno && s != sockapi.Refused {
		t.Errorf("%s: an errno, but not refused", name)
	}
	if strings.ContainsAny(name+gap, "|\n") {
		t.Errorf("%s: cannot be in a table", name)
	}
}

// TestHeaders: no option of the kernel's headers is missing. Names that are no
// options of their own are listed here.
func TestHeaders(t *testing.T) {
	notOptions := regexp.MustCompile(`_PMTUDISC_|^IPV6_(FL|PRIORITY|TLV|FLOWINFO|PREFER)_|^IP_DEFAULT_|_(OLD)$|` +
		`^MCAST_(EXCLUDE|INCLUDE)$|^UDP_ENCAP_|^TCP_(MSS|REPAIR_O|MD5SIG_(MAX|FLAG)|RECEIVE_ZEROCOPY|CM_INQ|NLA|AO_(KEYF|REPAIR_|MAX))|` +
		`^SO_(SECURITY_.*|BSDCOMPAT|GET_FILTER|DETACH_BPF)$|` +
		`^IP_(RECVRETOPTS|ORIGDSTADDR)$|^IPV6_ORIGDSTADDR$|` +
		`^PACKET_(HOST|BROADCAST|MULTICAST|OTHERHOST|OUTGOING|LOOPBACK|USER|KERNEL|FASTROUTE|FANOUT_[^D].*|FANOUT_DATA_.*|MR_.*)$|` +
		`^NETLINK_(ROUTE|UNUSED|USERSOCK|FIREWALL|SOCK_DIAG|NFLOG|XFRM|SELINUX|ISCSI|AUDIT|FIB_LOOKUP|CONNECTOR|NETFILTER|IP6_FW|` +
		`DNRTMSG|KOBJECT_UEVENT|GENERIC|SCSITRANSPORT|ECRYPTFS|RDMA|CRYPTO|SMC|INET_DIAG|RX_RING|TX_RING)$|FILTER_`)
	listed := map[string]bool{}
	for _, l := range sockapi.Levels() {
		for _, o := range l.Options {
			listed[o.Name] = true
		}
	}
	for header, define := range map[string]string{
		"asm-generic/socket.h": `SO_\w+`,
		"linux/in.h":           `(?:IP|MCAST)_\w+`,
		"linux/in6.h":          `IPV6_\w+`,
		"linux/tcp.h":          `TCP_\w+`,
		"linux/udp.h":          `UDP_\w+`,
		"linux/icmp.h":         `ICMP_FILTER`,
		"linux/icmpv6.h":       `ICMPV6_FILTER`,
		"linux/if_packet.h":    `PACKET_\w+`,
		"linux/netlink.h":      `NETLINK_\w+`,
	} {
		f, err := os.Open("/usr/include/" + header)
		if err != nil {
			t.Fatal(err) // the build needs the C library's headers, which need these
		}
		defer f.Close()
		line, found := regexp.MustCompile(`^#\s*define\s+(`+define+`)\s+\S`), 0
		for in := bufio.NewScanner(f); in.Scan(); {
			m := line.FindStringSubmatch(in.Text())
			if m == nil {
				continue
			}
			found++
			if !listed[m[1]] && !notOptions.MatchString(m[1]) {
				t.Errorf("%s of %s has no row", m[1], header)
			}
		}
		if found == 0 {
			t.Errorf("%s: no option found", header)
		}
	}
}
