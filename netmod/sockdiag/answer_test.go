// SPDX-License-Identifier: Apache-2.0

// The same questions to the kernel and to us, about sockets of a network
// namespace that the test makes for itself.

package sockdiag

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/nlmsg/nstest"
	"umrun/stacks"
)

// TestMain runs the tests in a fresh network namespace.
func TestMain(m *testing.M) { os.Exit(nstest.Run(m)) }

// must ends a test whose preparations fail.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A world is a set of kernel sockets and the list that describes them.
type world struct{ list []Socket }

// socket makes a kernel socket.
func (w *world) socket(t testing.TB, family, typ int) int {
	t.Helper()
	fd := must[int](t)(unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// add describes a socket by what its own calls say.
func (w *world) add(t testing.TB, fd, family, proto, state, recvQ, sendQ int) {
	t.Helper()
	name := func(f func(int) (unix.Sockaddr, error)) netip.AddrPort {
		sa, err := f(fd)
		if err != nil {
			return netip.AddrPort{}
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
		return netip.AddrPort{}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	s := Socket{
		Endpoint: stacks.Endpoint{Family: family, Proto: proto, State: state, Local: name(unix.Getsockname),
			Remote: name(unix.Getpeername), RecvQ: recvQ, SendQ: sendQ},
		Cookie: must[uint64](t)(unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)),
		Inode:  uint32(st.Ino),
	}
	if family == unix.AF_INET6 {
		s.V6Only = must[int](t)(unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)) != 0
	}
	s.RcvBuf = must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF))
	s.SndBuf = must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF))
	if proto == unix.IPPROTO_TCP {
		s.Congestion = must[string](t)(unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION))
		s.Congestion = strings.TrimRight(s.Congestion, "\x00")
	}
	w.list = append(w.list, s)
}

// raise sets the namespace's loopback up.
func (w *world) raise(t testing.TB) {
	t.Helper()
	ifr := must[*unix.Ifreq](t)(unix.NewIfreq("lo"))
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(w.socket(t, unix.AF_INET, unix.SOCK_DGRAM), unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

var loop4 = [4]byte{127, 0, 0, 1}

// newWorld makes listeners, connections in some states, and datagram sockets.
func newWorld(t testing.TB) *world {
	t.Helper()
	nstest.Need(t)
	w := &world{}
	w.raise(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP

	l4 := w.socket(t, unix.AF_INET, unix.SOCK_STREAM)
	check(unix.Bind(l4, &unix.SockaddrInet4{Port: 8080, Addr: loop4}))
	check(unix.Listen(l4, 5))
	l6 := w.socket(t, unix.AF_INET6, unix.SOCK_STREAM)
	check(unix.Bind(l6, &unix.SockaddrInet6{Port: 8081}))
	check(unix.Listen(l6, 7))
	only := w.socket(t, unix.AF_INET6, unix.SOCK_STREAM)
	check(unix.SetsockoptInt(only, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	check(unix.Bind(only, &unix.SockaddrInet6{Port: 8082}))
	check(unix.Listen(only, 7))
	w.add(t, l6, unix.AF_INET6, tcp, Listen, 0, 7)
	w.add(t, only, unix.AF_INET6, tcp, Listen, 0, 7)

	connect := func(fd, to int, sa unix.Sockaddr) int {
		t.Helper()
		check(unix.Connect(fd, sa))
		child, _, err := unix.Accept4(to, unix.SOCK_CLOEXEC)
		check(err)
		t.Cleanup(func() { unix.Close(child) })
		return child
	}
	c := w.socket(t, unix.AF_INET, unix.SOCK_STREAM)
	child := connect(c, l4, &unix.SockaddrInet4{Port: 8080, Addr: loop4})
	must[int](t)(unix.Write(c, make([]byte, 123)))
	w.add(t, c, unix.AF_INET, tcp, Established, 0, 0)
	w.add(t, child, unix.AF_INET, tcp, Established, 123, 0)

	half := w.socket(t, unix.AF_INET, unix.SOCK_STREAM)
	halfChild := connect(half, l4, &unix.SockaddrInet4{Port: 8080, Addr: loop4})
	check(unix.Shutdown(half, unix.SHUT_WR))
	w.add(t, half, unix.AF_INET, tcp, FinWait2, 0, 0)
	w.add(t, halfChild, unix.AF_INET, tcp, CloseWait, 1, 0) // the FIN counts

	mapped := w.socket(t, unix.AF_INET, unix.SOCK_STREAM)
	mappedChild := connect(mapped, l6, &unix.SockaddrInet4{Port: 8081, Addr: loop4})
	w.add(t, mapped, unix.AF_INET, tcp, Established, 0, 0)
	w.add(t, mappedChild, unix.AF_INET6, tcp, Established, 0, 0)

	waiting := w.socket(t, unix.AF_INET6, unix.SOCK_STREAM) // connected by IPv6, accepted
	wc := connect(waiting, only, &unix.SockaddrInet6{Port: 8082, Addr: netip.IPv6Loopback().As16()})
	w.add(t, waiting, unix.AF_INET6, tcp, Established, 0, 0)
	w.add(t, wc, unix.AF_INET6, tcp, Established, 0, 0)
	w.add(t, l4, unix.AF_INET, tcp, Listen, 0, 5)

	u := w.socket(t, unix.AF_INET, unix.SOCK_DGRAM)
	check(unix.Bind(u, &unix.SockaddrInet4{Port: 53, Addr: loop4}))
	w.add(t, u, unix.AF_INET, udp, Close, 0, 0)
	uc := w.socket(t, unix.AF_INET, unix.SOCK_DGRAM)
	check(unix.Connect(uc, &unix.SockaddrInet4{Port: 53, Addr: loop4}))
	w.add(t, uc, unix.AF_INET, udp, Established, 0, 0)
	u6 := w.socket(t, unix.AF_INET6, unix.SOCK_DGRAM)
	check(unix.Bind(u6, &unix.SockaddrInet6{Port: 54}))
	w.add(t, u6, unix.AF_INET6, udp, Close, 0, 0)
	return w
}

// ask sends a request to the kernel.
func ask(t testing.TB, req []byte) (out [][]byte, port uint32) {
	t.Helper()
	fd := must[int](t)(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG))
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	port = must[unix.Sockaddr](t)(unix.Getsockname(fd)).(*unix.SockaddrNetlink).Pid
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 1<<16)
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return out, port
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:n])
	}
}

// said are the attributes that we tell; the others of the kernel are left out of
// the comparison.
var said = map[uint16]bool{attrShutdown: true, attrCong: true, attrV6Only: true}

// show writes messages for comparison: sorted, since the kernel's order is that of
// its hash tables.
func show(t *testing.T, datagrams [][]byte) (out []string) {
	t.Helper()
	for _, d := range datagrams {
		for len(d) >= unix.NLMSG_HDRLEN {
			size := int(binary.NativeEndian.Uint32(d))
			m := d[:size]
			s := fmt.Sprintf("%d %#x %s", binary.NativeEndian.Uint16(m[4:]), binary.NativeEndian.Uint16(m[6:]), hex.EncodeToString(m[8:16]))
			body := m[unix.NLMSG_HDRLEN:]
			if binary.NativeEndian.Uint16(m[4:]) != byFamily {
				s += " " + hex.EncodeToString(body)
			} else {
				const fixed = 72
				s += fmt.Sprintf(" %x", body[:fixed])
				attrs := nlmsg.Attrs(body, fixed)
				for typ := range uint16(32) {
					if v, ok := attrs[typ]; ok && said[typ] {
						s += fmt.Sprintf(" %d=%x", typ, v)
					}
				}
			}
			out = append(out, s)
			d = d[min(len(d), nlmsg.Align(size)):]
		}
	}
	slices.Sort(out)
	return out
}

// inet are Sources of a list of sockets, and of no others.
func inet(list []Socket) Sources {
	return Sources{Inet: func() []Socket { return list }, Netlink: func() []Netlink { return nil }, Packet: func() []Packet { return nil }}
}

// request is a message with a struct inet_diag_req_v2.
func request(typ, flags uint16, family, proto int, ext uint8, states uint32, local, remote netip.AddrPort, cookie uint64, attrs ...byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+8)
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], 7)
	b[16], b[17], b[18] = byte(family), byte(proto), ext
	binary.NativeEndian.PutUint32(b[20:], states)
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	for _, a := range []netip.Addr{local.Addr(), remote.Addr()} {
		b = append(b, append(a.AsSlice(), make([]byte, 16)...)[:16]...)
	}
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint64(b, cookie)
	b = append(b, attrs...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

const anyCookie = ^uint64(0)

func filterAttr(code []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(code)))
	return append(binary.NativeEndian.AppendUint16(b, filter), code...)
}

// op is struct inet_diag_bc_op.
func op(code, yes byte, no uint16) []byte {
	return binary.NativeEndian.AppendUint16([]byte{code, yes}, no)
}

func host(family, bits byte, port int32, addr ...byte) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, bits, 0, 0}, uint32(port))
	return append(b, addr...)
}

func TestKernel(t *testing.T) {
	w := newWorld(t)
	const (
		dump     = unix.NLM_F_DUMP
		tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
		v4, v6   = unix.AF_INET, unix.AF_INET6
		all      = 0xfff
	)
	var none netip.AddrPort
	ap := netip.MustParseAddrPort
	conn := w.list[2] // of IPv4
	mapped := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	code := func(parts ...[]byte) []byte {
		return request(byFamily, dump, v4, tcp, 0, all, none, none, anyCookie, filterAttr(join(parts...))...)
	}
	for name, req := range map[string][]byte{
		"tcp4":         request(byFamily, dump, v4, tcp, 0, all, none, none, anyCookie),
		"tcp6":         request(byFamily, dump, v6, tcp, 1<<(attrCong-1), all, none, none, anyCookie),
		"tcp4 cong":    request(byFamily, dump, v4, tcp, 1<<(attrCong-1), all, none, none, anyCookie),
		"udp4":         request(byFamily, dump, v4, udp, 0, all, none, none, anyCookie),
		"udp6":         request(byFamily, dump, v6, udp, 0, all, none, none, anyCookie),
		"listeners":    request(byFamily, dump, v4, tcp, 0, 1<<Listen, none, none, anyCookie),
		"established":  request(byFamily, dump, v4, tcp, 0, 1<<Established, none, none, anyCookie),
		"udp none":     request(byFamily, dump, v4, udp, 0, 1<<SynSent, none, none, anyCookie),
		"local port":   request(byFamily, dump, v4, tcp, 0, all, ap("0.0.0.0:8080"), none, anyCookie),
		"udp port":     request(byFamily, dump, v4, udp, 0, all, ap("0.0.0.0:53"), none, anyCookie),
		"udp memory":   request(byFamily, dump, v4, udp, 1<<(attrMemory-1), all, none, none, anyCookie),
		"acknowledged": request(byFamily, dump|unix.NLM_F_ACK, v4, udp, 0, all, none, none, anyCookie),

		"one listener":        request(byFamily, 0, v4, tcp, 0, all, ap("127.0.0.1:8080"), ap("0.0.0.0:0"), anyCookie),
		"one listener, ack":   request(byFamily, unix.NLM_F_ACK, v4, tcp, 0, all, ap("127.0.0.1:8080"), ap("0.0.0.0:0"), anyCookie),
		"one by wildcard":     request(byFamily, 0, v6, tcp, 0, all, ap("[::1]:8081"), ap("[::]:0"), anyCookie),
		"one dual by v4":      request(byFamily, 0, v4, tcp, 0, all, ap("127.0.0.1:8081"), ap("0.0.0.0:0"), anyCookie),
		"one v6only by v4":    request(byFamily, 0, v4, tcp, 0, all, ap("127.0.0.1:8082"), ap("0.0.0.0:0"), anyCookie),
		"one connection":      request(byFamily, 0, v4, tcp, 0, all, conn.Local, conn.Remote, anyCookie),
		"one by cookie":       request(byFamily, 0, v4, tcp, 0, all, conn.Local, conn.Remote, conn.Cookie),
		"one stale":           request(byFamily, 0, v4, tcp, 0, all, conn.Local, conn.Remote, 1),
		"one mapped":          request(byFamily, 0, v6, tcp, 0, all, mapped(conn.Local), mapped(conn.Remote), anyCookie),
		"one not there":       request(byFamily, 0, v4, tcp, 0, all, ap("127.0.0.1:1"), ap("127.0.0.1:2"), anyCookie),
		"one udp":             request(byFamily, 0, v4, udp, 0, all, ap("0.0.0.0:0"), ap("127.0.0.1:53"), anyCookie),
		"one udp, wrong side": request(byFamily, 0, v4, udp, 0, all, ap("127.0.0.1:53"), ap("0.0.0.0:0"), anyCookie),
		"one udp stale":       request(byFamily, 0, v4, udp, 0, all, ap("0.0.0.0:0"), ap("127.0.0.1:53"), 1),

		"sctp":            request(byFamily, dump, v4, unix.IPPROTO_SCTP, 0, all, none, none, anyCookie),
		"one sctp":        request(byFamily, 0, v4, unix.IPPROTO_SCTP, 0, all, none, none, anyCookie),
		"family 0":        request(byFamily, dump, 0, tcp, 0, all, none, none, anyCookie),
		"family 31":       request(byFamily, dump, 31, 0, 0, all, none, none, anyCookie),
		"family 99":       request(byFamily, dump, 99, 0, 0, all, none, none, anyCookie),
		"packet proto":    request(byFamily, dump, unix.AF_PACKET, 3, 0, all, none, none, anyCookie),
		"one packet":      request(byFamily, 0, unix.AF_PACKET, 0, 0, all, none, none, anyCookie),
		"packet":          request(byFamily, dump, unix.AF_PACKET, 0, 0, all, none, none, anyCookie),
		"type 33":         request(33, dump, v4, tcp, 0, all, none, none, anyCookie),
		"one netlink":     request(byFamily, 0, unix.AF_NETLINK, 0, 0, all, none, none, anyCookie),
		"short":           append(binary.NativeEndian.AppendUint32(nil, 20), request(byFamily, dump, v4, tcp, 0, all, none, none, 0)[4:20]...),
		"code nop":        code(op(opNop, 4, 0)),
		"code port":       code(op(opSrcEq, 8, 12), op(0, 0, 8080)),
		"code range":      code(op(opDstGE, 8, 20), op(0, 0, 8080), op(opDstLE, 8, 12), op(0, 0, 8080)),
		"code or":         code(op(opSrcEq, 8, 12), op(0, 0, 8080), op(opJmp, 4, 12), op(opDstEq, 8, 12), op(0, 0, 8081)),
		"code host":       code(op(opDstCond, 16, 20), host(v4, 8, -1, 127, 0, 0, 0)),
		"code host port":  code(op(opSrcCond, 16, 20), host(v4, 32, 8080, 127, 0, 0, 1)),
		"code other host": code(op(opSrcCond, 16, 20), host(v4, 32, -1, 127, 0, 0, 2)),
		"code v6 host":    code(op(opSrcCond, 28, 32), host(v6, 128, -1, make([]byte, 16)...)),
		"code any host":   code(op(opSrcCond, 12, 16), host(0, 0, 8080)),
		"code mapped host": request(byFamily, dump, v6, tcp, 0, all, none, none, anyCookie,
			filterAttr(join(op(opSrcCond, 16, 20), host(v4, 8, -1, 127, 0, 0, 0)))...),
		"code empty":        code(),
		"code cut":          code(op(opSrcEq, 8, 12)),
		"code bad op":       code(op(99, 4, 8)),
		"code zero yes":     code(op(opNop, 0, 0)),
		"code far":          code(op(opJmp, 4, 400)),
		"code odd":          code(op(opSrcEq, 8, 14), op(0, 0, 8080)),
		"code into operand": code(op(opJmp, 4, 8), op(opSrcEq, 8, 12), op(0, 0, 8080)),
		"code no inside":    code(op(opSrcEq, 8, 4), op(0, 0, 8080)),
		"code long prefix":  code(op(opSrcCond, 16, 20), host(v4, 33, -1, 127, 0, 0, 0)),
		"code bad family":   code(op(opSrcCond, 16, 20), host(3, 0, -1, 127, 0, 0, 0)),
		"code yes too far":  code(op(opNop, 8, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			var want, got []string
			// The queues of the kernel's sockets settle on their own time.
			for end := time.Now().Add(5 * time.Second); ; {
				answer, port := ask(t, req)
				want = show(t, answer)
				got = show(t, Answer(nlmsg.Options{}, inet(w.list), req, port))
				if cmp.Equal(want, got) || time.Now().After(end) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-kernel +ours\n%s", d)
			}
		})
	}
}

// TestNetlink: a netlink socket is told as the kernel tells it, without the kernel's
// own sockets and without the inode, which some kernels leave out.
func TestNetlink(t *testing.T) {
	nstest.Need(t)
	fd := must[int](t)(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE))
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	me := Netlink{Type: unix.SOCK_RAW, Protocol: unix.NETLINK_ROUTE, Port: must[unix.Sockaddr](t)(unix.Getsockname(fd)).(*unix.SockaddrNetlink).Pid,
		Cookie: must[uint64](t)(unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)),
		RcvBuf: must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)),
		SndBuf: must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF))}
	for _, proto := range []byte{unix.NETLINK_ROUTE, netlinkAll, 99} {
		for _, show := range []byte{0, showMemory, showGroups | showFlags} {
			req := make([]byte, unix.NLMSG_HDRLEN+netlinkReqLen)
			binary.NativeEndian.PutUint32(req, uint32(len(req)))
			binary.NativeEndian.PutUint16(req[4:], byFamily)
			binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
			req[16], req[17], req[24] = unix.AF_NETLINK, proto, show
			answer, port := ask(t, req)
			mine := func(datagrams [][]byte) (out []string) {
				for _, d := range datagrams {
					for len(d) >= unix.NLMSG_HDRLEN {
						n := int(binary.NativeEndian.Uint32(d))
						m := slices.Clone(d[:n])
						d = d[min(len(d), nlmsg.Align(n)):]
						if binary.NativeEndian.Uint16(m[4:]) == byFamily {
							if binary.NativeEndian.Uint32(m[20:]) != me.Port || m[18] != unix.NETLINK_ROUTE {
								continue
							}
							clear(m[32:36]) // the inode
						}
						out = append(out, hex.EncodeToString(m))
					}
				}
				return out
			}
			got := Answer(nlmsg.Options{}, Sources{Netlink: func() []Netlink { return []Netlink{me} }}, req, port)
			if d := cmp.Diff(mine(answer), mine(got)); d != "" {
				t.Errorf("protocol %d show %d: -kernel +ours\n%s", proto, show, d)
			}
		}
	}
}

// What the kernel of this machine may not have is refused, or told as empty, all
// the same.
func TestNotTheKernels(t *testing.T) {
	for name, c := range map[string]struct {
		req  []byte
		typ  uint16
		want unix.Errno
	}{
		"unix":            {request(byFamily, unix.NLM_F_DUMP, unix.AF_UNIX, 0, 0, 0, netip.AddrPort{}, netip.AddrPort{}, 0), unix.NLMSG_ERROR, unix.ENOENT},
		"netlink":         {request(byFamily, unix.NLM_F_DUMP, unix.AF_NETLINK, 255, 0, 0, netip.AddrPort{}, netip.AddrPort{}, 0), unix.NLMSG_DONE, 0},
		"raw":             {request(byFamily, unix.NLM_F_DUMP, unix.AF_INET, unix.IPPROTO_RAW, 0, 0, netip.AddrPort{}, netip.AddrPort{}, 0), unix.NLMSG_DONE, 0},
		"destroy":         {request(destroy, unix.NLM_F_ACK, unix.AF_INET, unix.IPPROTO_TCP, 0, 0, netip.AddrPort{}, netip.AddrPort{}, 0), unix.NLMSG_ERROR, unix.ENOENT},
		"destroy netlink": {request(destroy, unix.NLM_F_ACK, unix.AF_NETLINK, 0, 0, 0, netip.AddrPort{}, netip.AddrPort{}, 0), unix.NLMSG_ERROR, unix.EOPNOTSUPP},
	} {
		t.Run(name, func(t *testing.T) {
			got := Answer(nlmsg.Options{}, inet(nil), c.req, 1)
			if len(got) != 1 || binary.NativeEndian.Uint16(got[0][4:]) != c.typ ||
				int32(binary.NativeEndian.Uint32(got[0][16:])) != -int32(c.want) {
				t.Errorf("got %x", got)
			}
		})
	}
}

// TestDestroy: what is ended is the socket that the request names.
func TestDestroy(t *testing.T) {
	end := func(local, remote string, proto, state int, cookie uint64) Socket {
		s := Socket{Endpoint: stacks.Endpoint{Family: unix.AF_INET, Proto: proto, State: state, Local: netip.MustParseAddrPort(local)}, Cookie: cookie}
		if remote != "" {
			s.Remote = netip.MustParseAddrPort(remote)
		}
		return s
	}
	list := []Socket{
		end("0.0.0.0:80", "", unix.IPPROTO_TCP, Listen, 1),
		end("10.0.0.1:80", "10.0.0.2:5000", unix.IPPROTO_TCP, Established, 2),
		end("0.0.0.0:53", "", unix.IPPROTO_UDP, Close, 3),
		end("0.0.0.0:1", "", rawDiag, Close, 4), // a protocol in place of the port
		end("10.0.0.1:89", "10.0.0.2:0", rawDiag, Established, 5),
	}
	for _, s := range list {
		remote := s.Remote
		if !remote.IsValid() {
			remote = netip.MustParseAddrPort("0.0.0.0:0")
		}
		var ended uint64
		from := inet(list)
		from.Destroy = func(cookie uint64) unix.Errno { ended = cookie; return 0 }
		Answer(nlmsg.Options{}, from, request(destroy, unix.NLM_F_ACK, s.Family, s.Proto, 0, 0, s.Local, remote, s.Cookie), 1)
		if ended != s.Cookie {
			t.Errorf("asked for %d (protocol %d), ended is %d", s.Cookie, s.Proto, ended)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	var none netip.AddrPort
	f.Add(request(byFamily, unix.NLM_F_DUMP, unix.AF_INET, unix.IPPROTO_TCP, 0xff, 0xfff, none, none, anyCookie))
	f.Add(request(byFamily, 0, unix.AF_INET6, unix.IPPROTO_UDP, 0, 0xfff, none, none, anyCookie))
	f.Add(request(byFamily, unix.NLM_F_DUMP, unix.AF_INET, unix.IPPROTO_TCP, 0, 0xfff, none, none, anyCookie,
		filterAttr(slices.Concat(op(opSrcCond, 16, 20), host(unix.AF_INET, 8, 80, 127, 0, 0, 0)))...))
	list := []Socket{
		{Endpoint: stacks.Endpoint{Family: unix.AF_INET, Proto: unix.IPPROTO_TCP, State: Listen, Local: netip.MustParseAddrPort("127.0.0.1:80")}},
		{Endpoint: stacks.Endpoint{Family: unix.AF_INET6, Proto: unix.IPPROTO_UDP, State: Close, Local: netip.MustParseAddrPort("[::]:53")}},
		{},
	}
	f.Fuzz(func(t *testing.T, req []byte) {
		for _, d := range Answer(nlmsg.Options{ExtAck: true}, inet(list), req, 1) {
			for rest := d; len(rest) > 0; {
				if len(rest) < unix.NLMSG_HDRLEN {
					t.Fatalf("torn message in %x", d)
				}
				size := int(binary.NativeEndian.Uint32(rest))
				if size < unix.NLMSG_HDRLEN || size > len(rest) {
					t.Fatalf("length %d of %d in %x", size, len(rest), d)
				}
				rest = rest[min(len(rest), nlmsg.Align(size)):]
			}
		}
	})
}
