// SPDX-License-Identifier: Apache-2.0

// What the fuzz targets share: a module that serves a fake process, a kernel whose
// sockets are asked the same, and memory that looks alike to both.

package netmod_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

func init() { targets["fuzz-kernel"] = fuzzKernelTarget }

// A kernel makes sockets in a network namespace that has nothing but its loopback,
// so that whatever is sent stays there.
type kernel struct {
	pidfd int
	in    io.Writer
	out   io.Reader
}

// newKernel starts the process that holds the namespace. Where none can be made
// the test is skipped.
func newKernel(t testing.TB) *kernel {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), targetEnv+"=fuzz-kernel")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("no network namespace can be made here: ", err)
	}
	k := &kernel{in: in, out: out}
	k.pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		unix.Close(k.pidfd)
	})
	return k
}

// socket makes a non-blocking socket; the test closes it.
func (k *kernel) socket(t testing.TB, family, typ int) int {
	t.Helper()
	if _, err := k.in.Write([]byte{byte(family), byte(typ)}); err != nil {
		t.Fatal(err)
	}
	var n [1]byte
	if _, err := io.ReadFull(k.out, n[:]); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdGetfd(k.pidfd, int(n[0]), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.in.Write([]byte{0}); err != nil { // it may close its own
		t.Fatal(err)
	}
	return fd
}

// fuzzKernelTarget holds the namespace: it answers each pair of family and type by
// the number of a socket, and keeps that until the next byte comes.
func fuzzKernelTarget(w *transcript) {
	ctl, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	w.must("socket", err)
	ifr, err := unix.NewIfreq("lo")
	w.must("lo", err)
	ifr.SetUint16(unix.IFF_UP)
	w.must("up", unix.IoctlIfreq(ctl, unix.SIOCSIFFLAGS, ifr))
	for {
		var req [2]byte
		if _, err := io.ReadFull(os.Stdin, req[:]); err != nil {
			return
		}
		fd, err := unix.Socket(int(req[0]), int(req[1])|unix.SOCK_NONBLOCK, 0)
		w.must("socket", err)
		_, err = os.Stdout.Write([]byte{byte(fd)})
		w.must("answer", err)
		if _, err := io.ReadFull(os.Stdin, req[:1]); err != nil {
			return
		}
		unix.Close(fd)
	}
}

// handlers finds what a module does with a call.
type handlers map[[2]int]intercept.Handler

func (w *world) handlers() handlers {
	h := make(handlers)
	for _, r := range w.mod.Rules() {
		k := [2]int{int(r.Arch), r.NR}
		if h[k] == nil && r.Handler != nil {
			h[k] = r.Handler
		}
	}
	return h
}

// call makes a call that the module must answer at once.
func (h handlers) call(t testing.TB, p *intercepttest.Process, nr int, args ...any) intercepttest.Result {
	t.Helper()
	c := p.Call(h[[2]int{int(p.Arch), nr}], nr, args...)
	if !c.Answered() {
		c.Interrupt()
		t.Fatalf("call %d%v is not answered", nr, args)
	}
	return c.Result()
}

// socket makes a non-blocking socket of the module's.
func (h handlers) socket(t testing.TB, p *intercepttest.Process, family, typ int) int {
	t.Helper()
	r := h.call(t, p, unix.SYS_SOCKET, family, typ|unix.SOCK_NONBLOCK, 0)
	if r.Kind != intercept.ReplyInstall {
		t.Fatalf("socket(%d, %d): %v", family, typ, r)
	}
	return int(r.Val)
}

// twins is memory of a fake process and of this one in which the same things lie.
// In both the byte behind a region gives EFAULT.
type twins struct {
	p     *intercepttest.Process
	slots [][]byte
	used  int
}

const (
	slotSize = 17 * 4096
	slots    = 8
)

// newTwins makes the memory of this process, for as long as the test.
func newTwins(t testing.TB) *twins {
	t.Helper()
	m := new(twins)
	const guard = 4096
	all, err := unix.Mmap(-1, 0, slots*(slotSize+guard), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(all) })
	for i := range slots {
		s := all[i*(slotSize+guard):][:slotSize+guard]
		if err := unix.Mprotect(s[slotSize:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		m.slots = append(m.slots, s[:slotSize])
	}
	return m
}

// reset forgets what was put; p is the fake process from here on.
func (m *twins) reset(p *intercepttest.Process) { m.p, m.used = p, 0 }

// A place is where a thing lies in both memories.
type place struct {
	fake   intercept.Addr
	kernel []byte
}

// null and wild are pointers to nothing.
var (
	null = place{}
	wild = place{fake: 0xdead0000}
)

func (p place) addr() uintptr {
	switch {
	case len(p.kernel) > 0:
		return uintptr(unsafe.Pointer(&p.kernel[0]))
	default:
		return uintptr(p.fake) // not mapped in this process either
	}
}

// put places b.
func (m *twins) put(b []byte) place { return m.putBoth(b, b) }

// putBoth places a thing that has pointers, which differ.
func (m *twins) putBoth(fake, kernel []byte) place {
	if len(fake) == 0 {
		return wild
	}
	s := m.slots[m.used]
	m.used++
	s = s[len(s)-len(kernel):]
	copy(s, kernel)
	return place{m.p.Map(fake), s}
}

// same reports what lies at a place in the two memories, and whether it is the same.
func (m *twins) same(p place) (fake, kernel []byte, ok bool) {
	fake = m.p.Mem(p.fake, len(p.kernel))
	return fake, p.kernel, bytes.Equal(fake, p.kernel)
}

// syscallErrno makes a call of this process.
func syscallErrno(nr uintptr, a ...uintptr) (int, unix.Errno) {
	var r [6]uintptr
	copy(r[:], a)
	n, _, errno := unix.Syscall6(nr, r[0], r[1], r[2], r[3], r[4], r[5])
	return int(n), errno
}
