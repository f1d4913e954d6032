// SPDX-License-Identifier: Apache-2.0

// How many bytes lie unread in the placeholders of streams, which only the holder of
// a socket may ask by ioctl(2): sock_diag(7) of AF_UNIX tells everybody.

package netmod

import (
	"fmt"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// Layouts and numbers of linux/unix_diag.h and linux/sock_diag.h.
const (
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY
	unixDiagLen    = 16 // struct unix_diag_msg
	unixDiagCookie = 8  // where in it
	showQueues     = 0x10
	attrQueues     = 4 // UNIX_DIAG_RQLEN
	established    = 1 // TCP_ESTABLISHED
)

// unread returns the bytes in the receive queue of every connected stream of AF_UNIX,
// by SO_COOKIE.
func unread() (map[uint64]int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("ask for sockets: %w", err)
	}
	defer unix.Close(fd)
	w := nlmsg.NewWriter(1, 0)
	w.Begin(diagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	w.U8(unix.AF_UNIX, 0, 0, 0)
	w.U32(1 << established)
	w.U32(0) // any inode
	w.U32(showQueues)
	w.U64(^uint64(0)) // any cookie
	w.End()
	if err := unix.Sendto(fd, w.Datagrams()[0], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask for sockets: %w", err)
	}
	// The kernel makes a dump while it is received: there is no waiting for it.
	out := make(map[uint64]int)
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size, typ := int(native.Uint32(b)), native.Uint16(b[4:])
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return nil, fmt.Errorf("list sockets: a message of %d bytes: %w", size, unix.EBADMSG)
			}
			body := b[unix.NLMSG_HDRLEN:size]
			b = b[min(nlmsg.Align(size), len(b)):]
			switch {
			case typ == unix.NLMSG_DONE:
				return out, nil
			case typ == unix.NLMSG_ERROR && len(body) >= 4:
				return nil, fmt.Errorf("list sockets: %w", unix.Errno(-int32(native.Uint32(body))))
			case typ == diagByFamily && len(body) >= unixDiagLen && body[1] == unix.SOCK_STREAM:
				if q := nlmsg.Attrs(body, unixDiagLen)[attrQueues]; len(q) >= 4 {
					out[native.Uint64(body[unixDiagCookie:])] = int(native.Uint32(q))
				}
			}
		}
	}
}
