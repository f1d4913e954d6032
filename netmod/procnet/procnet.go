// SPDX-License-Identifier: Apache-2.0

// The directory /proc/net.

package procnet

import (
	"bytes"
	"maps"
	"slices"

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
