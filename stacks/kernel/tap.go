// SPDX-License-Identifier: Apache-2.0

// What passes the interfaces of a private namespace.

package kernel

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// tapBuffer is what a tap's socket may hold that was not read yet, bytes.
const tapBuffer = 8 << 20

// Tap has f called for every packet that passes an interface, by a goroutine of its
// own: it may wait, and what is lost meanwhile nobody counts. In a namespace that is
// not the view's alone others would be heard: EPERM.
func (s *Stack) Tap(f func(*stacks.Frame)) (stop func(), err error) {
	if !s.private {
		return nil, fmt.Errorf("the namespace is not this view's alone: %w", unix.EPERM)
	}
	fd, err := s.SocketFD(unix.AF_PACKET, unix.SOCK_RAW, int(toNetwork(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1},
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer) // as much as the machine allows
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "tap")
	var wg sync.WaitGroup
	wg.Go(func() { listen(file, f) })
	return sync.OnceFunc(func() {
		// What has passed by now is told of; then the read ends.
		_ = file.SetReadDeadline(time.Now())
		wg.Wait()
		file.Close()
	}), nil
}

// toNetwork is htons(3).
func toNetwork(v uint16) uint16 { return v<<8 | v>>8 }

// listen reads packets until the deadline of file.
func listen(file *os.File, f func(*stacks.Frame)) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, stacks.MaxPacket), make([]byte, 256)
	read := func(fd uintptr) bool {
		for {
			n, on, _, from, err := unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
			switch err {
			case nil:
				if ll, ok := from.(*unix.SockaddrLinklayer); ok {
					f(frame(buf[:n], oob[:on], ll))
				}
			case unix.EINTR:
			default:
				return err != unix.EAGAIN
			}
		}
	}
	_ = raw.Read(read) // ends with the deadline, or the interface of the namespace
	_ = raw.Control(func(fd uintptr) { read(fd) })
}

// etherLen is the length of an Ethernet header.
const etherLen = 14

// frame makes a Frame of what a packet socket has received.
func frame(b, oob []byte, from *unix.SockaddrLinklayer) *stacks.Frame {
	fr := &stacks.Frame{
		IfIndex:  from.Ifindex,
		Loop:     from.Hatype == unix.ARPHRD_LOOPBACK,
		Proto:    toNetwork(from.Protocol),
		Outgoing: from.Pkttype == unix.PACKET_OUTGOING,
		Data:     b,
		Type:     from.Pkttype,
	}
	if (from.Hatype == unix.ARPHRD_ETHER || fr.Loop) && len(b) >= etherLen {
		fr.Header, fr.Data = b[:etherLen], b[etherLen:]
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fr
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4:
			fr.Unsummed = native.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0 // tp_status of struct tpacket_auxdata
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS_NEW && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})):
			fr.Stamp = int64(native.Uint64(m.Data))*1e9 + int64(native.Uint64(m.Data[8:]))
		}
	}
	return fr
}
