// SPDX-License-Identifier: Apache-2.0

// A Call: one blocked system call of the target, and what a handler may do with it.

package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Addr is an address in a task's memory.
type Addr uint64

// An Arch says through which system call entry a call came.
type Arch uint8

// The entries. x32 calls never arrive: the filter answers them with ENOSYS.
const (
	Native Arch = iota // the machine's own
	I386               // 32-bit entry of x86: int 0x80 and compat sysenter
)

// String returns "native" or "i386".
func (a Arch) String() string {
	if a == I386 {
		return "i386"
	}
	return "native"
}

// ErrGone says that the call a handler works on is over: its thread was killed,
// or was interrupted before the call was received. What the handler has done
// must be undone; there is nobody to answer.
var ErrGone = errors.New("the intercepted call is over")

// A Key identifies an open file, whoever holds it under whatever number.
type Key struct {
	Ino    uint64 // inode of a file that is no socket, in its file system; 0: a socket
	Cookie uint64 // SO_COOKIE, never used again while the machine runs; 0: no socket
}

// An FD is a duplicate of one of the target's descriptors: the same open file
// description under a number of the supervisor. Its holder closes it, soon: while
// it is open the target's own close(2) does not reach the file.
type FD struct {
	N    int    // close-on-exec
	Key  Key    // which open file it is
	Mode uint32 // file type, st_mode of fstat(2)
}

// Close closes the duplicate.
func (f FD) Close() { unix.Close(f.N) }

// CloseShort is Close for a file whose last close waits for nothing, as that of an
// AF_UNIX socket: the call is over before the runtime could be told of it.
func (f FD) CloseShort() { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(f.N), 0, 0) }

// IsSocket reports whether the file is a socket.
func (f FD) IsSocket() bool { return f.Mode&unix.S_IFMT == unix.S_IFSOCK }

// A Handler answers calls. Handle runs inline on the receiving thread and so
// never blocks: what must wait is parked ([Call.Park]).
type Handler interface{ Handle(*Call) Action }

// HandlerFunc makes a function a Handler.
type HandlerFunc func(*Call) Action

// Handle calls f.
func (f HandlerFunc) Handle(c *Call) Action { return f(c) }

// A Call is one system call of a thread of the target. The thread waits in the
// kernel until the call is answered, by the [Action] that the handler returns or,
// once parked, by [Call.Complete].
//
// The exported fields are what the registers held and never change. Arguments of
// type int or unsigned int are the low 32 bits of Args, as in the kernel; of an
// i386 call the high halves are zero.
//
// Memory of the target may change under the handler at any time (other threads
// run): what is read is a copy, to be taken once, judged and acted upon. A handler
// must not answer [Continue] to a call whose pointer arguments decided so.
//
// Methods are safe for concurrent use.
type Call struct {
	NR   int // number of the call, in the table of Arch
	Args [6]uint64
	TID  int // thread, in the supervisor's PID namespace
	Arch Arch
	Task *Task
	IP   uint64 // instruction pointer

	b      Backend
	id     uint64 // of the notification
	state  atomic.Uint32
	cancel func(Reason) Action // written before state becomes callParked
	about  string              // for the Meter
	known  atomic.Int64        // when Task was the thread's, and alive, and only a fatal signal ended the call; see moment
	by     *receiver           // that handles it; nil: none does
}

// The states of a Call. Who moves it to callAnswered answers it, once.
const (
	callActive   = iota // its handler has it
	callParked          // waits for Complete or the watcher
	callAnswered        // has its answer
)

// ReadMem fills p from the target's memory: all of p, or an error. EFAULT says
// that the target has no such memory, EPERM that it may not be read (an
// execute-only program, process_vm_readv(2)), [ErrGone] that the call is over, in
// which case p may hold another process's bytes and is not to be used.
func (c *Call) ReadMem(a Addr, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := c.b.ReadMem(c, a, p); err != nil {
		return err
	}
	if !c.Valid() {
		return ErrGone
	}
	return nil
}

// WriteMem writes p to the target's memory, with the protections that hold there
// (EFAULT where the target itself could not write). Errors are those of ReadMem;
// after one of them a part may have been written.
func (c *Call) WriteMem(a Addr, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return c.b.WriteMem(c, a, p)
}

// pageSize is the smallest page of any machine we run on; reading page by page
// is right for bigger ones too.
const pageSize = 4096

// usualString is more than most strings have: what is read at once.
const usualString = 512

// stringBuffers are buffers that strings are read into, of *[usualString]byte.
var stringBuffers = sync.Pool{New: func() any { return new([usualString]byte) }}

// ReadString reads a string that ends with a NUL, which is not returned.
// ENAMETOOLONG says that there is no NUL within max bytes; other errors are those
// of ReadMem. Nothing behind the page of the NUL is touched.
func (c *Call) ReadString(a Addr, max int) (string, error) {
	pooled := stringBuffers.Get().(*[usualString]byte)
	defer stringBuffers.Put(pooled)
	buf := pooled[:min(max, usualString)]
	n, err := c.PeekString(a, buf)
	if err == unix.ENAMETOOLONG && max > len(buf) {
		buf = make([]byte, max)
		n, err = c.PeekString(a, buf)
	}
	if err != nil {
		return "", err
	}
	if !c.Valid() {
		return "", ErrGone
	}
	return string(buf[:n]), nil
}

// PeekString is ReadString into buf, of which n bytes are the string and the next is the
// NUL, for who only looks at what the string names and then answers, or writes with
// [Call.WriteMem]. If the call is over the string may be another process's: nothing must be
// changed for it, and what was seen by it is told to nobody.
func (c *Call) PeekString(a Addr, buf []byte) (n int, err error) {
	for n < len(buf) {
		chunk := buf[n:min(len(buf), n+usualString, n+pageSize-int(uint64(a)%pageSize))]
		if err := c.b.ReadMem(c, a, chunk); err != nil {
			return 0, err
		}
		if i := bytes.IndexByte(chunk, 0); i >= 0 {
			return n + i, nil
		}
		a, n = a+Addr(len(chunk)), n+len(chunk)
	}
	return 0, unix.ENAMETOOLONG
}

// DupFD duplicates descriptor fd of the thread's own table (which need not be that
// of its thread group: CLONE_FILES) and tells which open file it is. The caller
// closes the duplicate. EBADF says that fd is not open there, EPERM that the
// task's descriptors may not be had (pidfd_getfd(2)).
func (c *Call) DupFD(fd int) (FD, error) {
	n, err := c.Dup(fd)
	if err != nil {
		return FD{}, err
	}
	f, err := identify(n)
	if err != nil {
		unix.Close(n)
		return FD{}, err
	}
	return f, nil
}

// Dup is DupFD for who asks the file itself what it is: it returns the duplicate's number.
func (c *Call) Dup(fd int) (int, error) {
	if fd < 0 {
		return -1, unix.EBADF
	}
	return c.b.DupFD(c, fd)
}

// ReplaceFD puts a duplicate of the supervisor's descriptor fd in the place of the
// target's descriptor at, as dup3(2) would; close-on-exec stays as it was. Other
// duplicates of the file that was there, and what epoll knows of it, stay what they
// are. The caller keeps fd. Only for calls that are not parked: the thread wakes
// and waits again.
func (c *Call) ReplaceFD(at, fd int) error {
	if at < 0 {
		return unix.EBADF
	}
	return c.b.ReplaceFD(c, at, fd)
}

// identify asks the kernel which open file descriptor n refers to. What is asked
// about is nearly always a socket.
func identify(n int) (FD, error) {
	var cookie uint64
	size := uint32(unsafe.Sizeof(cookie))
	// It takes less time than to tell the runtime of it.
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(n), unix.SOL_SOCKET, unix.SO_COOKIE,
		uintptr(unsafe.Pointer(&cookie)), uintptr(unsafe.Pointer(&size)), 0)
	switch errno {
	case 0:
		return FD{N: n, Mode: unix.S_IFSOCK, Key: Key{Cookie: cookie}}, nil
	case unix.ENOTSOCK, unix.EBADF: // an O_PATH descriptor says that it is bad
		var st unix.Stat_t
		if err := unix.Fstat(n, &st); err != nil {
			return FD{}, fmt.Errorf("fstat of a duplicate: %w", err)
		}
		return FD{N: n, Mode: st.Mode & unix.S_IFMT, Key: Key{Ino: st.Ino}}, nil
	}
	return FD{}, fmt.Errorf("SO_COOKIE of a duplicate: %w", errno)
}

// Identify reports whether Task is the calling thread's, as far as that still waits, and the
// same one at each of its calls: two calls with one Task that was identified at both are of
// one thread. Of a thread group that became another program (execve(2)) it is the leader's,
// whichever thread that was before. False: the kernel has no pidfds of threads (6.9), or
// none to give.
func (c *Call) Identify() bool { return c.b.Identify(c) }

// UID is the effective user id of the thread; root's if the thread may not be looked
// into (prctl(2), PR_SET_DUMPABLE).
func (c *Call) UID() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", c.TID), &st); err != nil {
		return 0, fmt.Errorf("user of %d: %w", c.TID, procError(err))
	}
	if !c.Valid() {
		return 0, ErrGone
	}
	return st.Uid, nil
}

// NetNS returns the inode number of the thread's network namespace. ErrGone when the
// call is over, EACCES when the thread may not be looked at.
func (c *Call) NetNS() (uint64, error) { return c.b.NetNS(c) }

// procNetNS is NetNS by what /proc says.
func procNetNS(c *Call) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.TID), &st); err != nil {
		return 0, fmt.Errorf("network namespace of %d: %w", c.TID, procError(err))
	}
	if !c.Valid() { // else the number is the thread's that waits
		return 0, ErrGone
	}
	return st.Ino, nil
}

// About says what a call turned out to be about, for the [Meter]. Only its handler
// may say so, before it returns.
func (c *Call) About(what string) { c.about = what }

// Valid reports whether the thread still waits for the answer of this call.
func (c *Call) Valid() bool { return c.b.Valid(c) }

// String returns what a debug log wants to say: entry, number, thread.
func (c *Call) String() string {
	return fmt.Sprintf("%s call %d of %d", c.Arch, c.NR, c.TID)
}
