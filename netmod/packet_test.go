// SPDX-License-Identifier: Apache-2.0

// Datagrams held against the kernel.

package netmod_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestPacketTranscripts(t *testing.T) {
	for name, differ := range map[string]known{
		"sources":       nil,
		"window":        nil,
		"connected-udp": nil,
		"messages":      nil,
		"pktinfo":       nil,
		"control-room":  nil,
		"free-port":     nil,
		"udp-misuse": {
			// The write goes into the pair before the module sees it; the errno
			// comes with the next call that traps and names no address.
			"write unconnected: EDESTADDRREQ": "write unconnected: ok",
			"another write: EDESTADDRREQ":     "another write: ok",
			"option: 0":                       fmt.Sprintf("option: %d", unix.EDESTADDRREQ),
		},
		"udp-waits": nil,
		"endings":   nil,
		"netlink":   nil,
	} {
		t.Run(name, func(t *testing.T) { compare(t, name, differ) })
	}
}

func init() {
	targets["sources"] = sources
	targets["window"] = window
	targets["connected-udp"] = connectedUDP
	targets["messages"] = messages
	targets["pktinfo"] = pktinfo
	targets["control-room"] = controlRoom
	targets["free-port"] = freePort
	targets["udp-misuse"] = udpMisuse
	targets["udp-waits"] = udpWaits
	targets["endings"] = endings
	targets["netlink"] = netlinkDumps
	targets["ping"] = ping
}

// udp makes a bound socket and returns its address.
func udp(w *transcript) (int, *unix.SockaddrInet4) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	w.must("socket", err)
	w.must("bind", unix.Bind(fd, loopback4))
	sa, err := unix.Getsockname(fd)
	w.must("getsockname", err)
	return fd, sa.(*unix.SockaddrInet4)
}

func sources(w *transcript) {
	server, sa := udp(w)
	senders := map[int]int{}
	var fds []int
	for i := range 4 {
		fd, own := udp(w)
		senders[own.Port] = i
		fds = append(fds, fd)
	}
	for i := range 40 {
		w.must("sendto", unix.Sendto(fds[i%4], fmt.Append(nil, "from ", i%4), 0, sa))
	}
	b := make([]byte, 100)
	for range 40 {
		n, from, err := unix.Recvfrom(server, b, 0)
		w.must("recvfrom", err)
		w.say("%s is %d", b[:n], senders[from.(*unix.SockaddrInet4).Port])
	}
}

// window: what poll shows, and that a native receive and a trapped one take turns
// without losing or swapping anything.
func window(w *transcript) {
	server, sa := udp(w)
	client, own := udp(w)
	w.say("empty: %s", events(server, 0))
	for i := range 6 {
		w.must("sendto", unix.Sendto(client, make([]byte, i), 0, sa))
	}
	w.until("filled", server, unix.POLLIN)
	b := make([]byte, 100)
	for i := range 6 {
		w.until("next", server, unix.POLLIN)
		if n, err := unix.IoctlGetInt(server, unix.TIOCINQ); i != 0 {
			w.say("FIONREAD %d %v", n, err)
		}
		if i%2 == 0 {
			n, from, err := unix.Recvfrom(server, b, unix.MSG_PEEK)
			w.say("peek %d %v %v", n, err, from.(*unix.SockaddrInet4).Port == own.Port)
			n, from, err = unix.Recvfrom(server, b, 0)
			w.say("recvfrom %d %v %v", n, err, from.(*unix.SockaddrInet4).Port == own.Port)
		} else {
			n, err := unix.Read(server, b)
			w.say("read %d %v", n, err)
		}
	}
	w.say("emptied: %s", events(server, 20))
	_, _, err := unix.Recvfrom(server, b, unix.MSG_DONTWAIT)
	w.result("recvfrom", err)
}

func connectedUDP(w *transcript) {
	server, sa := udp(w)
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.result("connect", unix.Connect(client, sa))
	peer, err := unix.Getpeername(client)
	w.say("peer %v %v", fmt.Sprint(peer) == fmt.Sprint(sa), err)
	own, err := unix.Getsockname(client)
	w.must("getsockname", err)
	w.say("own %v", own.(*unix.SockaddrInet4).Addr)
	for i := range 5 { // trapped and native sends keep their order
		if i%2 == 0 {
			_, err = unix.Write(client, []byte{byte(i)})
		} else {
			_, err = unix.SendmsgN(client, []byte{byte(i)}, nil, nil, 0)
		}
		w.must("send", err)
	}
	b := make([]byte, 10)
	for range 5 {
		n, from, err := unix.Recvfrom(server, b, 0)
		w.say("server gets %v %v %v", b[:n], err, fmt.Sprint(from) == fmt.Sprint(own))
	}
	stranger, _ := udp(w)
	w.must("stranger", unix.Sendto(stranger, []byte("no"), 0, own))
	for i := range 5 {
		w.must("reply", unix.Sendto(server, []byte{byte(i)}, 0, own))
	}
	for i := range 5 {
		var n int
		if i%2 == 0 {
			n, err = unix.Read(client, b)
		} else {
			n, _, err = unix.Recvfrom(client, b, 0)
		}
		w.say("client gets %v %v", b[:n], err)
	}
	unix.Close(server)
	time.Sleep(20 * time.Millisecond)
	_, err = unix.SendmsgN(client, []byte("x"), nil, nil, 0)
	w.result("send to nobody", err)
	time.Sleep(100 * time.Millisecond)
	_, err = unix.SendmsgN(client, []byte("x"), nil, nil, 0)
	w.result("send again", err)
	w.result("dissolve", unspec(client))
	_, err = unix.Getpeername(client)
	w.result("peer", err)
}

// unspec is connect(2) with AF_UNSPEC.
func unspec(fd int) error {
	var sa [16]byte
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), 16)
	if e != 0 {
		return e
	}
	return nil
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

func messages(w *transcript) {
	server, sa := udp(w)
	client, _ := udp(w)
	w.must("connect", unix.Connect(client, sa))
	var out [4]mmsghdr
	iov := make([]unix.Iovec, 8)
	for i := range out {
		a, b := []byte(fmt.Sprint("message ", i)), []byte(" in two parts")
		iov[2*i] = unix.Iovec{Base: &a[0], Len: uint64(len(a))}
		iov[2*i+1] = unix.Iovec{Base: &b[0], Len: uint64(len(b))}
		out[i].hdr.Iov, out[i].hdr.Iovlen = &iov[2*i], 2
	}
	n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(client), uintptr(unsafe.Pointer(&out)), 4, 0, 0, 0)
	w.say("sendmmsg %d %v, lengths %d %d", n, e, out[0].len, out[3].len)
	w.until("server", server, unix.POLLIN)
	time.Sleep(20 * time.Millisecond)
	var in [8]mmsghdr
	var names [8]unix.RawSockaddrInet4
	bufs := make([][12]byte, 8)
	iov = make([]unix.Iovec, 8)
	for i := range in {
		iov[i] = unix.Iovec{Base: &bufs[i][0], Len: 12}
		in[i].hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&names[i])), Namelen: 16, Iov: &iov[i], Iovlen: 1}
	}
	n, _, e = unix.Syscall6(unix.SYS_RECVMMSG, uintptr(server), uintptr(unsafe.Pointer(&in)), 8, unix.MSG_DONTWAIT, 0, 0)
	w.say("recvmmsg %d %v", n, e)
	for i := range n {
		w.say("%q length %d flags %#x name %d %v", bufs[i], in[i].len, in[i].hdr.Flags, in[i].hdr.Namelen, names[i].Addr)
	}
	// The full length of a truncated datagram.
	w.must("sendto", unix.Sendto(client, make([]byte, 1000), 0, nil2(sa)))
	w.until("server", server, unix.POLLIN)
	b := make([]byte, 10)
	m, _, err := unix.Recvfrom(server, b, unix.MSG_TRUNC|unix.MSG_PEEK)
	w.say("peek of the length: %d %v", m, err)
	m, _, flags, _, err := unix.Recvmsg(server, b, nil, 0)
	w.say("recvmsg %d %#x %v", m, flags, err)
}

// nil2 returns its argument; a connected socket may be given the peer's address.
func nil2(sa *unix.SockaddrInet4) unix.Sockaddr { return sa }

func pktinfo(w *transcript) {
	server, sa := udp(w)
	w.must("IP_PKTINFO", unix.SetsockoptInt(server, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	w.must("IP_RECVTTL", unix.SetsockoptInt(server, unix.IPPROTO_IP, unix.IP_RECVTTL, 1))
	w.must("IP_RECVTOS", unix.SetsockoptInt(server, unix.IPPROTO_IP, unix.IP_RECVTOS, 1))
	client, _ := udp(w)
	w.must("IP_TOS", unix.SetsockoptInt(client, unix.IPPROTO_IP, unix.IP_TOS, 0x28))
	w.must("IP_TTL", unix.SetsockoptInt(client, unix.IPPROTO_IP, unix.IP_TTL, 17))
	for range 2 {
		w.must("sendto", unix.Sendto(client, []byte("x"), 0, sa))
		w.until("server", server, unix.POLLIN)
		oob := make([]byte, 200)
		_, n, _, _, err := unix.Recvmsg(server, make([]byte, 10), oob, 0)
		w.must("recvmsg", err)
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		w.must("parse", err)
		for _, m := range msgs {
			w.say("%d %d %v", m.Header.Level, m.Header.Type, m.Data)
		}
	}
}

// controlRoom: what is told when there is not room for all control messages.
func controlRoom(w *transcript) {
	server, sa := udp(w)
	w.must("IP_RECVTTL", unix.SetsockoptInt(server, unix.IPPROTO_IP, unix.IP_RECVTTL, 1))
	w.must("IP_PKTINFO", unix.SetsockoptInt(server, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	client, _ := udp(w)
	for _, room := range []int{0, 1, 15, 16, 17, 27, 28, 29, 32, 33, 47, 48, 49, 51, 52, 53, 56, 80} {
		w.must("sendto", unix.Sendto(client, []byte("x"), 0, sa))
		w.until("server", server, unix.POLLIN)
		oob := make([]byte, 80)
		_, n, flags, _, err := unix.Recvmsg(server, make([]byte, 10), oob[:room], 0)
		w.must("recvmsg", err)
		w.say("room for %d: %d, flags %#x, %v", room, n, flags, oob)
	}
}

// freePort: a port is free as soon as the socket that had it is closed.
func freePort(w *transcript) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		used := 0
		for range 50 {
			fd, err := unix.Socket(unix.AF_INET, typ, 0)
			w.must("socket", err)
			w.must("bind", unix.Bind(fd, loopback4))
			sa, err := unix.Getsockname(fd)
			w.must("getsockname", err)
			w.must("close", unix.Close(fd))
			fd, err = unix.Socket(unix.AF_INET, typ, 0)
			w.must("socket", err)
			if err := unix.Bind(fd, sa); err != nil {
				used++
			}
			w.must("close", unix.Close(fd))
		}
		w.say("type %d: in use %d times", typ, used)
	}
}

func udpMisuse(w *transcript) {
	fd, sa := udp(w)
	_, err := unix.Write(fd, []byte("x"))
	w.result("write unconnected", err)
	time.Sleep(50 * time.Millisecond)
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	w.must("SO_ERROR", err)
	w.say("option: %d", v)
	_, err = unix.Write(fd, []byte("x"))
	w.result("another write", err)
	time.Sleep(50 * time.Millisecond)
	w.result("next call", unix.Sendto(fd, []byte("y"), 0, sa))
	b := make([]byte, 2)
	n, _, err := unix.Recvfrom(fd, b, 0)
	w.say("itself: %q %v", b[:max(n, 0)], err)
	w.result("listen", unix.Listen(fd, 1))
	_, _, err = unix.Accept(fd)
	w.result("accept", err)
	w.result("too long", unix.Sendto(fd, make([]byte, 65508), 0, sa))
	w.result("other family", unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet6{Port: 1}))
	_, err = unix.Getpeername(fd)
	w.result("getpeername", err)
	w.result("shutdown", unix.Shutdown(fd, unix.SHUT_RD))
}

func udpWaits(w *transcript) {
	server, sa := udp(w)
	client, _ := udp(w)
	w.must("connect", unix.Connect(client, sa))
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, _ = unix.Write(client, []byte("late"))
	}()
	b := make([]byte, 10)
	n, _, err := unix.Recvfrom(server, b, 0)
	w.say("recvfrom waits: %q %v", b[:n], err)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, _ = unix.Write(client, []byte("later"))
	}()
	n, err = unix.Read(server, b)
	w.say("read waits: %q %v", b[:n], err)
	tv := unix.Timeval{Usec: 50000}
	w.must("SO_RCVTIMEO", unix.SetsockoptTimeval(server, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	start := time.Now()
	_, _, err = unix.Recvfrom(server, b, 0)
	w.result("recvfrom in time", err)
	_, err = unix.Read(server, b)
	w.result("read in time", err)
	d := time.Since(start)
	w.say("it took about 100 ms: %v", d > 90*time.Millisecond && d < time.Second)
}

func netlinkDumps(w *transcript) {
	ifs, err := net.Interfaces()
	w.must("interfaces", err)
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 {
			w.say("%d %s %v", i.Index, i.Name, i.Flags)
			addrs, err := i.Addrs()
			w.say("%v %v", addrs, err)
		}
	}
	for _, proto := range []int{unix.NETLINK_ROUTE, 99} {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, proto)
		w.result("netlink socket", err)
		if err == nil {
			w.result("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
			sa, err := unix.Getsockname(fd)
			w.say("port is the process: %v %v", sa.(*unix.SockaddrNetlink).Pid == uint32(unix.Getpid()), err)
		}
	}
	muslDump(w)
	u, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	ifr, err := unix.NewIfreq("lo")
	w.must("ifreq", err)
	w.result("SIOCGIFINDEX", unix.IoctlIfreq(u, unix.SIOCGIFINDEX, ifr))
	w.say("lo is %d", ifr.Uint32())
}

// muslDump asks for the links as musl's getifaddrs does: what send(2) asked for is
// there when it returns.
func muslDump(w *transcript) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	w.must("netlink socket", err)
	defer unix.Close(fd)
	req := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b := make([]byte, 8192)
	for range 20 {
		w.must("send", unix.Send(fd, req, 0))
		for done := false; !done; {
			n, _, e := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
			if e != 0 || n < unix.SizeofNlMsghdr {
				w.say("recv: %d %v", n, e)
				return
			}
			for at := b[:n]; len(at) >= unix.SizeofNlMsghdr; at = at[min(len(at), int(binary.NativeEndian.Uint32(at)+3)&^3):] {
				done = done || binary.NativeEndian.Uint16(at[4:]) == unix.NLMSG_DONE
			}
		}
	}
	w.say("20 dumps")
}

// TestPing has no kernel beside it: natively ping sockets are for the groups of
// net.ipv4.ping_group_range only.
func TestPing(t *testing.T) {
	got, _ := newWorld(t, nil).run(t, "ping")
	if want := "type 0 seq 1 \"hi\" [127 0 0 1] <nil>\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func ping(w *transcript) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	w.must("socket", err)
	w.must("sendto", unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 1, 'h', 'i'}, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	b := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, b, 0)
	w.say("type %d seq %d %q %v %v", b[0], b[7], b[8:n], from.(*unix.SockaddrInet4).Addr, err)
}

// endings: a socket that ends sends what was written to it, empty datagrams too,
// and nothing else.
func endings(w *transcript) {
	server, sa := udp(w)
	b := make([]byte, 100)
	end := func(close, shut bool, written ...string) {
		var fds []int
		for range 50 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			w.must("socket", err)
			w.must("connect", unix.Connect(fd, sa))
			for _, s := range written {
				_, err := unix.Write(fd, []byte(s))
				w.must("write", err)
			}
			if shut {
				w.must("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
			}
			if close {
				w.must("close", unix.Close(fd))
			} else {
				fds = append(fds, fd)
			}
			for _, s := range written {
				w.until("datagram", server, unix.POLLIN)
				n, _, err := unix.Recvfrom(server, b, 0)
				w.must("recvfrom", err)
				if string(b[:n]) != s {
					w.say("got %q after %q", b[:n], s)
				}
			}
		}
		more, err := unix.Poll([]unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}, 50)
		w.say("%q, then %d more, %v", written, more, err)
		for _, fd := range fds {
			w.must("close", unix.Close(fd))
		}
	}
	end(true, false)
	end(true, false, "one")
	end(true, false, "", "two", "")
	end(true, false, "")
	end(false, true, "three")
	end(true, true, "", "")
}
