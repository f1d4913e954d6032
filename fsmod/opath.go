// SPDX-License-Identifier: Apache-2.0

// Descriptors of O_PATH in the program.
//
// The kernel installs none in another process (SECCOMP_IOCTL_NOTIF_ADDFD gives EBADF), but
// SCM_RIGHTS carries them. So the thread is made to receive it: it gets one end of a
// socketpair, calls recvmsg(2) with it, and moves what it got to the number that the
// socket had, which is the lowest free one.

package fsmod

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// givePath answers an open with O_PATH by a descriptor like fd. ok is false where the
// thread cannot be made to receive it.
func (m *Module) givePath(c *intercept.Call, fd int, cloexec bool) (a intercept.Action, ok bool) {
	if c.Arch != intercept.Native || traced(c.TID) {
		return a, false
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a, false
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return a, false
	}
	at, err := c.AddFD(pair[1], true)
	if err != nil {
		return fail(err), true
	}
	// struct msghdr, struct iovec, a byte, and the control message, at their places in
	// the page.
	const (
		iov  = 64
		data = 80
		ctl  = 96
		end  = ctl + 24 // CMSG_SPACE(sizeof(int))
	)
	return c.Inject(intercept.Injection{Run: func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		result, err := OnPage(c, do, make([]byte, end), func(tid int, page uint64) (int64, error) {
			var b [end]byte
			var hdr unix.Msghdr
			hdr.SetIovlen(1)
			hdr.SetControllen(end - ctl)
			copy(b[:], unsafe.Slice((*byte)(unsafe.Pointer(&hdr)), unsafe.Sizeof(hdr)))
			word := binary.NativeEndian
			word.PutUint64(b[unsafe.Offsetof(hdr.Iov):], page+iov)
			word.PutUint64(b[unsafe.Offsetof(hdr.Control):], page+ctl)
			word.PutUint64(b[iov:], page+data)
			word.PutUint64(b[iov+8:], 1)
			if err := poke(tid, page, b[:]); err != nil {
				return 0, err
			}
			n, err := do(intercept.Injected{NR: unix.SYS_RECVMSG, Args: [6]uint64{uint64(at), page, unix.MSG_CMSG_CLOEXEC | unix.MSG_DONTWAIT}})
			if err != nil {
				return 0, err
			}
			// A cmsghdr with its length, and the descriptor; none if the thread may have no more.
			var got [20]byte
			if err := peek(tid, page+ctl, got[:]); err != nil {
				return 0, err
			}
			if n != 1 || word.Uint64(got[:]) != uint64(len(got)) {
				return -int64(unix.EMFILE), nil
			}
			from := uint64(word.Uint32(got[16:]))
			var flags uint64
			if cloexec {
				flags = unix.O_CLOEXEC
			}
			result, err := do(intercept.Injected{NR: unix.SYS_DUP3, Args: [6]uint64{from, uint64(at), flags}})
			if err != nil {
				return 0, err
			}
			_, err = do(intercept.Injected{NR: unix.SYS_CLOSE, Args: [6]uint64{from}})
			return result, err
		})
		if err == nil && result < 0 {
			err = giveBack(c, do, at)
		}
		return result, err
	}}), true
}
