// SPDX-License-Identifier: Apache-2.0

// Sockets.

package procnet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/sockdiag"
	"umrun/stacks"
)

// inet returns the sockets of a family that are wanted, in a stable order.
func inet(s *Source, family int, wanted func(*sockdiag.Socket) bool) (out []sockdiag.Socket) {
	if s.Inet == nil {
		return nil
	}
	for _, x := range s.Inet() {
		if x.Family == family && wanted(&x) {
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(a, b sockdiag.Socket) int {
		return cmp.Or(cmp.Compare(a.Local.Port(), b.Local.Port()), a.Local.Addr().Compare(b.Local.Addr()), cmp.Compare(a.Inode, b.Inode))
	})
	return out
}

func of(proto int) func(*sockdiag.Socket) bool {
	return func(x *sockdiag.Socket) bool { return x.Proto == proto }
}

// isRaw tells a raw socket; the port of its name is the protocol that it receives.
func isRaw(x *sockdiag.Socket) bool { return x.Proto == unix.IPPROTO_RAW }

// address is one as the kernel prints it: its 32-bit words in the machine's order.
func address(family int, a netip.AddrPort) string {
	if family == unix.AF_INET {
		return fmt.Sprintf("%08X:%04X", word(a.Addr().Unmap()), a.Port())
	}
	var raw [16]byte
	if a.Addr().IsValid() {
		raw = a.Addr().As16()
	}
	w := func(i int) uint32 { return binary.NativeEndian.Uint32(raw[i:]) }
	return fmt.Sprintf("%08X%08X%08X%08X:%04X", w(0), w(4), w(8), w(12), a.Port())
}

// line writes the columns that all kinds of sockets have, but for the number.
func line(b *bytes.Buffer, x *sockdiag.Socket) {
	t := x.Timer
	resent, probes := t.Retries, 0
	if t.Kind != stacks.TimerRetransmit {
		resent, probes = 0, t.Retries
	}
	fmt.Fprintf(b, "%s %s %02X %08X:%08X %02X:%08X %08X %5d %8d %d", address(x.Family, x.Local), address(x.Family, x.Remote),
		x.State, x.SendQ, x.RecvQ, t.Kind, t.Expires/clockTick, resent, x.UID, probes, x.Inode)
}

// clockTick is what times are told in, USER_HZ.
const clockTick = time.Second / 100

func writeTCP4(b *bytes.Buffer, s *Source) { writeTCP(b, s, unix.AF_INET) }
func writeTCP6(b *bytes.Buffer, s *Source) { writeTCP(b, s, unix.AF_INET6) }

// writeTCP is net/ipv4/tcp_ipv4.c:tcp4_seq_show and net/ipv6/tcp_ipv6.c:tcp6_seq_show.
// Of a listener the queues are what waits to be accepted.
func writeTCP(b *bytes.Buffer, s *Source, family int) {
	const width = 149
	if family == unix.AF_INET {
		start := b.Len()
		b.WriteString("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")
		pad(b, start, width)
	} else {
		b.WriteString("  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n")
	}
	for i, x := range inet(s, family, of(unix.IPPROTO_TCP)) {
		if x.State == sockdiag.Listen {
			x.SendQ = 0
		}
		start := b.Len()
		fmt.Fprintf(b, "%4d: ", i)
		line(b, &x)
		switch x.State {
		case sockdiag.TimeWait, sockdiag.SynRecv:
			fmt.Fprintf(b, " 1 %016x", 0)
		case sockdiag.Listen:
			fmt.Fprintf(b, " 1 %016x 100 0 0 10 0", 0)
		default:
			fmt.Fprintf(b, " 1 %016x 20 0 0 10 -1", 0)
		}
		if family == unix.AF_INET {
			pad(b, start, width)
		} else {
			b.WriteByte('\n')
		}
	}
}

func writeUDP4(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET, unix.IPPROTO_UDP) }
func writeUDP6(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET6, unix.IPPROTO_UDP) }

// There are no sockets of UDP-Lite.
func writeUDPLite4(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET, unix.IPPROTO_UDPLITE) }
func writeUDPLite6(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET6, unix.IPPROTO_UDPLITE) }

func writeICMP4(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET, unix.IPPROTO_ICMP) }
func writeICMP6(b *bytes.Buffer, s *Source) { writeUDP(b, s, unix.AF_INET6, unix.IPPROTO_ICMPV6) }

// datagram6 is the heading of all datagram sockets of IPv6, include/net/transp_v6.h.
const datagram6 = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"

// writeUDP is net/ipv4/udp.c:udp4_seq_show, net/ipv4/ping.c:ping_v4_seq_show and
// net/ipv6/datagram.c:__ip6_dgram_sock_seq_show.
func writeUDP(b *bytes.Buffer, s *Source, family, proto int) {
	const width = 127
	if family == unix.AF_INET {
		start := b.Len()
		if proto != unix.IPPROTO_ICMP {
			b.WriteByte(' ')
		}
		b.WriteString("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops")
		pad(b, start, width)
	} else {
		b.WriteString(datagram6)
	}
	for i, x := range inet(s, family, of(proto)) {
		start := b.Len()
		fmt.Fprintf(b, "%5d: ", i)
		line(b, &x)
		fmt.Fprintf(b, " 2 %016x %d", 0, 0)
		if family == unix.AF_INET {
			pad(b, start, width)
		} else {
			b.WriteByte('\n')
		}
	}
}

func writeRaw4(b *bytes.Buffer, s *Source) { writeRaw(b, s, unix.AF_INET) }
func writeRaw6(b *bytes.Buffer, s *Source) { writeRaw(b, s, unix.AF_INET6) }

// writeRaw is net/ipv4/raw.c:raw_seq_show; the port is the protocol.
func writeRaw(b *bytes.Buffer, s *Source, family int) {
	format := "%4d: "
	if family == unix.AF_INET {
		b.WriteString("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n")
	} else {
		b.WriteString(datagram6)
		format = "%5d: "
	}
	for _, x := range inet(s, family, isRaw) {
		fmt.Fprintf(b, format, x.Local.Port()&255)
		line(b, &x)
		fmt.Fprintf(b, " 2 %016x %d\n", 0, 0)
	}
}

// writePacket is net/packet/af_packet.c:packet_seq_show.
func writePacket(b *bytes.Buffer, s *Source) {
	fmt.Fprintf(b, "%-16s RefCnt Type Proto  Iface R Rmem   User   Inode\n", "sk")
	if s.Packet == nil {
		return
	}
	for _, x := range s.Packet() {
		fmt.Fprintf(b, "%016x %-6d %-4d %04x   %-5d %1d %-6d %-6d %-6d\n", 0, 3, x.Type, x.Protocol, x.IfIndex, 1, x.RecvQ, x.UID, x.Inode)
	}
}

// writeNetlink is net/netlink/af_netlink.c:netlink_native_seq_show.
func writeNetlink(b *bytes.Buffer, s *Source) {
	b.WriteString("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n")
	if s.Netlink == nil {
		return
	}
	for _, x := range s.Netlink() {
		fmt.Fprintf(b, "%016x %-3d %-10d %08x %-8d %-8d %-5d %-8d %-8d %-8d\n", 0, x.Protocol, x.Port, uint32(x.Groups), x.RecvQ, 0, 0, 2, 0, x.Inode)
	}
}

// count counts the sockets of a family that are in use.
func count(s *Source, family int, wanted func(*sockdiag.Socket) bool) int {
	return len(inet(s, family, wanted))
}

// writeSockstat is net/ipv4/proc.c:sockstat_seq_show. Memory is not counted here.
func writeSockstat(b *bytes.Buffer, s *Source) {
	waiting := func(x *sockdiag.Socket) bool { return of(unix.IPPROTO_TCP)(x) && x.State == sockdiag.TimeWait }
	tcp := count(s, unix.AF_INET, of(unix.IPPROTO_TCP))
	tw := count(s, unix.AF_INET, waiting)
	all := tcp + count(s, unix.AF_INET, of(unix.IPPROTO_UDP)) + count(s, unix.AF_INET, isRaw) +
		count(s, unix.AF_INET6, func(*sockdiag.Socket) bool { return true })
	fmt.Fprintf(b, "sockets: used %d\nTCP: inuse %d orphan %d tw %d alloc %d mem %d\nUDP: inuse %d mem %d\nUDPLITE: inuse 0\nRAW: inuse %d\nFRAG: inuse 0 memory 0\n",
		all, tcp-tw, 0, tw, tcp-tw, 0, count(s, unix.AF_INET, of(unix.IPPROTO_UDP)), 0, count(s, unix.AF_INET, isRaw))
}

// writeSockstat6 is net/ipv6/proc.c:sockstat6_seq_show.
func writeSockstat6(b *bytes.Buffer, s *Source) {
	fmt.Fprintf(b, "TCP6: inuse %d\nUDP6: inuse %d\nUDPLITE6: inuse 0\nRAW6: inuse %d\nFRAG6: inuse 0 memory 0\n",
		count(s, unix.AF_INET6, of(unix.IPPROTO_TCP)), count(s, unix.AF_INET6, of(unix.IPPROTO_UDP)), count(s, unix.AF_INET6, isRaw))
}
