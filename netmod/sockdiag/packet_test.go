// SPDX-License-Identifier: Apache-2.0

// Packet sockets, held against the kernel of this machine.

package sockdiag

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/nlmsg/nstest"
)

// TestPacket: packet sockets are told as the kernel tells them, but for what only
// the kernel has.
func TestPacket(t *testing.T) {
	nstest.Need(t)
	new(world).raise(t)
	list := func() (out []Packet) {
		for _, p := range []struct {
			typ   int
			proto uint16
			index int
		}{{unix.SOCK_RAW, 0, 0}, {unix.SOCK_DGRAM, unix.ETH_P_IP, 1}} {
			fd := must[int](t)(unix.Socket(unix.AF_PACKET, p.typ|unix.SOCK_CLOEXEC, 0))
			t.Cleanup(func() { unix.Close(fd) })
			if p.proto != 0 {
				if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: p.proto<<8 | p.proto>>8, Ifindex: p.index}); err != nil {
					t.Fatal(err)
				}
			}
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				t.Fatal(err)
			}
			out = append(out, Packet{Type: p.typ, Protocol: p.proto, IfIndex: p.index, Inode: uint32(st.Ino),
				Cookie: must[uint64](t)(unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)),
				RcvBuf: must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)),
				SndBuf: must[int](t)(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF))})
		}
		return out
	}()
	for _, show := range []byte{0, packetShowInfo, packetShowMemory, packetShowInfo | packetShowMemory} {
		req := make([]byte, unix.NLMSG_HDRLEN+packetReqLen)
		binary.NativeEndian.PutUint32(req, uint32(len(req)))
		binary.NativeEndian.PutUint16(req[4:], byFamily)
		binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		req[16], req[24] = unix.AF_PACKET, show
		answer, port := ask(t, req)
		got := Answer(nlmsg.Options{}, Sources{Packet: func() []Packet { return list }}, req, port)
		join := func(d [][]byte) string { return hex.EncodeToString(slices.Concat(d...)) }
		if d := cmp.Diff(join(answer), join(got)); d != "" {
			t.Errorf("show %#x: -kernel +ours\n%s", show, d)
		}
	}
}
