// SPDX-License-Identifier: Apache-2.0

// Package intercepttest has a fake process whose calls a handler serves: a memory
// and a table of descriptors, without a kernel between. Decoding of arguments and
// every answer can so be tested in the test's own process.
//
//	p := intercepttest.New(t)
//	a := p.Map(sockaddr)
//	c := p.Call(handler, unix.SYS_CONNECT, 3, a, len(sockaddr))
//	if got := c.Result(); got.Errno != unix.EBADF { ... }
//
// The descriptors are real ones, so that what a handler does with a duplicate, or
// installs, behaves as it does for a program.
package intercepttest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"umrun/intercept"
)

// Patience is how long [Call.Result] waits for the answer of a parked call.
const Patience = 10 * time.Second

// A Process is a fake process. Its methods are safe for concurrent use; errors in
// their use fail the test.
type Process struct {
	// Arch is the entry by which calls come.
	Arch intercept.Arch
	// MaxFD is one more than the highest descriptor, RLIMIT_NOFILE. New says 1024.
	MaxFD int

	t    testing.TB
	task *intercept.Task

	mu      sync.Mutex
	regions []region
	next    intercept.Addr
	fds     map[int]int // number in the process to number in the test
	cloexec map[int]bool
	calls   map[uint64]*Call
	lastID  uint64
}

// region is a piece of memory; nothing lies before and behind it.
type region struct {
	base     intercept.Addr
	data     []byte
	readOnly bool
}

// page is the distance that regions keep.
const page = 4096

// New makes a process without memory and descriptors. They are released when the
// test ends. Its Task is the test's own process.
func New(t testing.TB) *Process {
	p := &Process{
		MaxFD:   1024,
		t:       t,
		task:    intercept.NewTask(os.Getpid(), os.Getpid()),
		next:    0x10000,
		fds:     make(map[int]int),
		cloexec: make(map[int]bool),
		calls:   make(map[uint64]*Call),
	}
	t.Cleanup(func() {
		for fd := range p.fds {
			p.Close(fd)
		}
	})
	return p
}

// Map puts a copy of data into the memory and returns its address. It lies at the
// end of a page, and the bytes before and after it give EFAULT.
func (p *Process) Map(data []byte) intercept.Addr { return p.mapRegion(data, false) }

// MapReadOnly is Map for memory that cannot be written.
func (p *Process) MapReadOnly(data []byte) intercept.Addr { return p.mapRegion(data, true) }

// String puts a NUL-terminated string into the memory.
func (p *Process) String(s string) intercept.Addr { return p.Map(append([]byte(s), 0)) }

func (p *Process) mapRegion(data []byte, readOnly bool) intercept.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := p.next + intercept.Addr((len(data)+page-1)&^(page-1))
	p.next = end + page
	a := end - intercept.Addr(len(data))
	p.regions = append(p.regions, region{a, bytes.Clone(data), readOnly})
	return a
}

// Mem returns a copy of n bytes of the memory.
func (p *Process) Mem(a intercept.Addr, n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if err := p.access(a, b, false); err != nil {
		p.t.Fatalf("%d bytes at %#x: %v", n, a, err)
	}
	return b
}

// access copies between p's memory and b.
func (p *Process) access(a intercept.Addr, b []byte, write bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.regions {
		if a < r.base || a-r.base >= intercept.Addr(len(r.data)) {
			continue
		}
		off := int(a - r.base)
		if len(r.data)-off < len(b) || write && r.readOnly {
			return unix.EFAULT
		}
		if write {
			copy(r.data[off:], b)
		} else {
			copy(b, r.data[off:])
		}
		return nil
	}
	return unix.EFAULT
}

// Open gives the process a duplicate of the test's descriptor host under number fd.
func (p *Process) Open(fd, host int) {
	p.t.Helper()
	dup, err := unix.FcntlInt(uintptr(host), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.t.Fatalf("duplicate %d: %v", host, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.fds[fd]; ok {
		unix.Close(old)
	}
	p.fds[fd] = dup
	delete(p.cloexec, fd)
}

// Close closes descriptor fd of the process, if it is open.
func (p *Process) Close(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if host, ok := p.fds[fd]; ok {
		unix.Close(host)
		delete(p.fds, fd)
		delete(p.cloexec, fd)
	}
}

// FD returns the test's number of the process's descriptor fd, for the test to do
// with it what the program would. It belongs to the process. ok is false if fd is
// not open.
func (p *Process) FD(fd int) (host int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	host, ok = p.fds[fd]
	return host, ok
}

// CloseOnExec reports whether descriptor fd would be closed by execve.
func (p *Process) CloseOnExec(fd int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cloexec[fd]
}

// FDs returns the open descriptors, ascending.
func (p *Process) FDs() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fds []int
	for fd := range p.fds {
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	return fds
}

// A Call is a call that was made.
type Call struct {
	*intercept.Call
	p        *Process
	answered chan struct{} // closed when result is there
	result   Result        // written once, under p.mu
	gone     bool          // killed; under p.mu
}

// A Result is what became of a call.
type Result struct {
	Kind  intercept.ReplyKind
	Val   int64 // of ReplyReturn and ReplyInstall (the new descriptor)
	Errno unix.Errno
}

// String returns the result as strace(1) would.
func (r Result) String() string {
	switch r.Kind {
	case intercept.ReplyErrno:
		return "-1 " + unix.ErrnoName(r.Errno)
	case intercept.ReplyReturn, intercept.ReplyInstall:
		return fmt.Sprint(r.Val)
	}
	return r.Kind.String()
}

// Call makes a call and has it served by h on the calling goroutine. Arguments are
// of any integer type, or [intercept.Addr]; negative ones are extended as a C
// program extends an int in a register.
func (p *Process) Call(h intercept.Handler, nr int, args ...any) *Call {
	p.t.Helper()
	var regs [6]uint64
	for i, a := range args {
		regs[i] = p.register(a)
	}
	c := &Call{p: p, answered: make(chan struct{})}
	p.mu.Lock()
	p.lastID++
	c.Call = intercept.NewCall((*backend)(p), p.lastID, p.Arch, nr, regs, p.task)
	p.calls[p.lastID] = c
	p.mu.Unlock()
	if _, err := c.Serve(h); err != nil {
		p.complain(err)
	}
	return c
}

func (p *Process) register(a any) uint64 {
	p.t.Helper()
	switch a := a.(type) {
	case int:
		return uint64(a)
	case int32:
		return uint64(a)
	case int64:
		return uint64(a)
	case uint:
		return uint64(a)
	case uint32:
		return uint64(a)
	case uint64:
		return a
	case uintptr:
		return uint64(a)
	case intercept.Addr:
		return uint64(a)
	}
	p.t.Fatalf("a register cannot hold a %T", a)
	return 0
}

// complain fails the test for a handler that panicked.
func (p *Process) complain(err error) {
	p.t.Helper()
	var pe *intercept.PanicError
	if errors.As(err, &pe) {
		p.t.Errorf("%v\n%s", pe, pe.Stack)
		return
	}
	p.t.Error(err)
}

// Answered reports whether the call has its result already.
func (c *Call) Answered() bool {
	select {
	case <-c.answered:
		return true
	default:
		return false
	}
}

// Result waits for the answer; the test fails if none comes within [Patience].
func (c *Call) Result() Result {
	c.p.t.Helper()
	select {
	case <-c.answered:
	case <-time.After(Patience):
		c.p.t.Fatalf("%v was not answered", c)
	}
	return c.result
}

// Interrupt lets a signal come while the call is parked, and reports whether the
// call was still parked.
func (c *Call) Interrupt() bool {
	c.p.t.Helper()
	ok, err := c.Cancel(intercept.Interrupted)
	if err != nil {
		c.p.complain(err)
	}
	return ok
}

// Kill ends the calling thread: nothing can be answered, and a parked call is taken
// back.
func (c *Call) Kill() {
	c.p.t.Helper()
	c.p.mu.Lock()
	c.gone = true
	c.p.mu.Unlock()
	if _, err := c.Cancel(intercept.Gone); err != nil {
		c.p.complain(err)
	}
}
