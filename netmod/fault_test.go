// SPDX-License-Identifier: Apache-2.0

// Receives from a stream into memory that is not there: what could not be copied stays.

package netmod_test

import (
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestStreamFaults(t *testing.T) { compare(t, "stream-faults", nil) }

func init() { targets["stream-faults"] = streamFaults }

func streamFaults(w *transcript) {
	const page = 4096
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	w.must("mmap", err)
	w.must("mprotect", unix.Mprotect(mem[page:], unix.PROT_NONE))
	good := mem[:page-10]
	client, server := pair(w)
	// The program's own recvmsg(2) and recvfrom(2) ask for an address, or would not trap.
	var name unix.RawSockaddrInet4
	recvfrom := func(what string, at, size, flags int) {
		nameLen := uint32(unsafe.Sizeof(name))
		n, _, e := unix.Syscall6(unix.SYS_RECVFROM, uintptr(server), uintptr(unsafe.Pointer(unsafe.SliceData(mem)))+uintptr(at), uintptr(size),
			uintptr(flags), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&nameLen)))
		w.say("%s: %d %v", what, int(n), e)
		if e == 0 {
			w.say("%q", mem[at:min(at+int(n), page)])
		}
	}
	recvmsg := func(what string, flags int, iov ...unix.Iovec) {
		hdr := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: uint32(unsafe.Sizeof(name)), Iov: &iov[0], Iovlen: uint64(len(iov))}
		n, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(server), uintptr(unsafe.Pointer(&hdr)), uintptr(flags))
		w.say("%s: %d %v", what, int(n), e)
	}
	send := func(text string) {
		_, err := unix.Write(client, []byte(text))
		w.must("write", err)
		w.until("sent", server, unix.POLLIN)
	}
	wild := unix.Iovec{Base: &mem[page-1], Len: 100} // one byte of it is there

	send("0123456789")
	recvfrom("nowhere", page, 100, 0)
	recvfrom("half", page-5, 100, 0)
	recvfrom("half, a look", page-5, 100, unix.MSG_PEEK)
	recvfrom("half, all", page-5, 10, unix.MSG_WAITALL)
	recvmsg("second buffer", 0, unix.Iovec{Base: &good[0], Len: 4}, wild)
	recvfrom("a part", page-4, 4, 0)
	recvfrom("the rest", 0, 100, 0)

	send("0123456789")
	recvfrom("what fits", page-10, 100, 0)

	time.AfterFunc(50*time.Millisecond, func() { _, _ = unix.Write(client, []byte("0123456789")) })
	recvfrom("waits", page-5, 100, 0)
	recvmsg("without a buffer that is there", unix.MSG_DONTWAIT, wild)
	recvfrom("is all there", 0, 100, 0)

	// Of what MSG_WAITALL waits for, the second part has no room.
	send("01234")
	time.AfterFunc(100*time.Millisecond, func() { _, _ = unix.Write(client, []byte("56789")) })
	recvfrom("waits for all", page-5, 10, unix.MSG_WAITALL)
	w.until("the second part", server, unix.POLLIN)
	recvfrom("is there", 0, 100, 0)
	recvfrom("and no more", 0, 100, unix.MSG_DONTWAIT)
}
