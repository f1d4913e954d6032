// SPDX-License-Identifier: Apache-2.0

// The directory /proc/net.

package procnet

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"umrun/netmod/sockdiag"
	"umrun/stacks"
)

// A Source tells of a view's network at this moment.
type Source struct {
	State    stacks.State
	Counters func(ifIndex int) stacks.Counters // nil: all zero
	Inet     func() []sockdiag.Socket          // as listed for ss(8); nil: none
	Packet   func() []sockdiag.Packet
	Netlink  func() []sockdiag.Netlink

	Neighbours func() []stacks.Neighbour // those that were learnt; nil: none
}

// files are those of /proc/net that the view has of its own.
var files = map[string]func(*bytes.Buffer, *Source){
	"dev":        writeDev,
	"route":      writeRoute,
	"if_inet6":   writeIfInet6,
	"ipv6_route": writeRoute6,
	"arp":        writeARP,
	"tcp":        writeTCP4,
	"tcp6":       writeTCP6,
	"udp":        writeUDP4,
	"udp6":       writeUDP6,
	"udplite":    writeUDPLite4,
	"udplite6":   writeUDPLite6,
	"raw":        writeRaw4,
	"raw6":       writeRaw6,
	"icmp":       writeICMP4,
	"icmp6":      writeICMP6,
	"packet":     writePacket,
	"netlink":    writeNetlink,
	"sockstat":   writeSockstat,
	"sockstat6":  writeSockstat6,
}

// others are files that the kernel has, or a module of it, and a view has not.
var others = known(`anycast6 arp_tables_matches arp_tables_names arp_tables_targets atm ax25 bnep bonding can connector dev_mcast
	dev_snmp6 fib_trie fib_triestat hci icmp ieee80211 if_vlan igmp igmp6 ip6_flowlabel ip6_mr_cache ip6_mr_vif ip6_tables_matches
	ip6_tables_names ip6_tables_targets ip6t_hashlimit ip_mr_cache ip_mr_vif ip_tables_matches ip_tables_names ip_tables_targets
	ip_vs ip_vs_conn ip_vs_stats ipt_hashlimit ipt_recent l2cap llc mcfilter mcfilter6 mptcp netfilter netstat nf_conntrack
	nf_conntrack_expect nf_log nf_queue pnp pppoe pppol2tp protocols psched ptype rfcomm rpc rt6_stats rt_acct rt_cache rxrpc sco
	sctp smc snmp snmp6 softnet_stat stat vlan wireless x25 xfrm_stat xt_recent`)

func known(names string) map[string]bool {
	m := make(map[string]bool)
	for _, n := range strings.Fields(names) {
		m[n] = true
	}
	return m
}

// Known tells whether a name is one of /proc/net on some machine, the view's or
// another.
func Known(name string) bool { return files[name] != nil || others[name] }

// Names returns the files of /proc/net that there are, sorted.
func Names() []string { return slices.Sorted(maps.Keys(files)) }

// File returns the content of a file of /proc/net; ok is false if there is none of
// this name.
func File(name string, from *Source) (content []byte, ok bool) {
	write, ok := files[name]
	if !ok {
		return nil, false
	}
	var b bytes.Buffer
	write(&b, from)
	return b.Bytes(), true
}

// pad fills the line that was begun at start up to width, as seq_pad does, and ends it.
func pad(b *bytes.Buffer, start, width int) {
	for b.Len()-start < width {
		b.WriteByte(' ')
	}
	b.WriteByte('\n')
}
