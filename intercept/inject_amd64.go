// SPDX-License-Identifier: Apache-2.0

// Injection by ptrace(2).
//
// The thread waits in its notification. It is seized and asked to stop, and its call is
// answered with ERESTARTSYS: so it comes to a stop on its way out of the kernel, before it
// runs any of its own code. Its registers are set to the new call and to the system call
// instruction that it has just left, all signals are blocked, and it goes on from stop to
// stop: at the entry of the call, at its exit (or at the exec), and so on. In the end the
// registers are as they were, but for the result.

package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const canInject = true

// An injector traces one thread. All of it runs on the tracer's thread.
type injector struct {
	n         *notifier
	c         *Call
	tid, tgid int
	stopped   bool // a SIGSTOP was kept from it
	ours      bool // we are its tracer, and it has not ended
}

// Requests of ptrace(2) that x/sys/unix has no functions for.
const (
	ptraceGetSigMask = 0x420a
	ptraceSetSigMask = 0x420b
)

func (j *injector) ptrace(req int, addr uintptr, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(j.tid), addr, uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (j *injector) resume(req int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(j.tid), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// registers is PTRACE_GETREGS or PTRACE_SETREGS, which have them as a 64-bit tracer does, also
// of a 32-bit program; with PTRACE_GETREGSET they are as the thread has them (ptrace(2)).
func (j *injector) registers(req int, regs *unix.PtraceRegs) error {
	return j.ptrace(req, 0, unsafe.Pointer(regs))
}

// seize makes us the tracer of the thread and has it stop as soon as it leaves the kernel. It
// ends with us: what it was made to do, or has become, nobody would look at any more.
func (j *injector) seize() error {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(j.tid), 0, options, 0, 0); errno != 0 {
		return fmt.Errorf("PTRACE_SEIZE: %w", errno)
	}
	j.ours = true
	if !j.c.Valid() { // the number may be somebody else's
		_ = j.detach()
		return fmt.Errorf("PTRACE_SEIZE: %w", unix.ESRCH)
	}
	if err := j.resume(unix.PTRACE_INTERRUPT); err != nil {
		return fmt.Errorf("PTRACE_INTERRUPT: %w", err)
	}
	return nil
}

// detach lets the thread go; one that runs has to stop first.
func (j *injector) detach() error {
	err := j.resume(unix.PTRACE_DETACH)
	if errors.Is(err, unix.ESRCH) {
		if j.resume(unix.PTRACE_INTERRUPT) == nil {
			if _, err := j.wait(); err != nil {
				return err
			}
			err = j.resume(unix.PTRACE_DETACH)
		}
	}
	if err == nil {
		j.ours = false
	}
	return err
}

// A stop is where a traced thread has come to.
type stop int

const (
	stopOther stop = iota
	stopSyscall
	stopExec
	stopEvent
	stopSignal
)

// wait waits for the next stop. ESRCH says that the thread has ended.
func (j *injector) wait() (stop, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, j.tid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD|j.poll(), nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // a thread that became its group's leader by execve
			if j.tid != j.tgid {
				j.tid = j.tgid
				continue
			}
			j.ours = false
			return stopOther, unix.ESRCH
		case info.Signo == 0: // nothing yet; the exec of another thread is seen under its group's number
			if s, ok := j.leaderExec(); ok {
				return s, nil
			}
			nanosleep(50_000)
			continue
		}
		if ended(&info) {
			j.ours = false
			j.bury()
			return stopOther, unix.ESRCH
		}
		ws, ok := takeStop(j.tid)
		if !ok {
			continue // it was killed meanwhile
		}
		if s := kindOf(ws); s != stopSignal || ws.StopSignal() != unix.SIGSTOP {
			return s, nil
		}
		j.stopped = true
		return stopSignal, nil
	}
}

// takeStop takes the stop of a thread, if it is stopped. wait4(2) would take its end as well,
// which the family wants to know of a child of this process.
func takeStop(tid int) (ws unix.WaitStatus, ok bool) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, tid, &info, unix.WSTOPPED|unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil); err != nil || info.Signo == 0 {
		return 0, false
	}
	const status = 24 // si_status, asm-generic/siginfo.h
	return unix.WaitStatus(*(*int32)(unsafe.Add(unsafe.Pointer(&info), status))<<8 | 0x7f), true
}

// poll is WNOHANG for a thread that may take another number.
func (j *injector) poll() int {
	if j.tid != j.tgid {
		return unix.WNOHANG
	}
	return 0
}

// leaderExec sees whether the thread has become another program, and with it the leader.
func (j *injector) leaderExec() (stop, bool) {
	if j.tid == j.tgid {
		return 0, false
	}
	ws, ok := takeStop(j.tgid)
	if !ok {
		return 0, false
	}
	j.tid = j.tgid
	return kindOf(ws), true
}

func kindOf(ws unix.WaitStatus) stop {
	if !ws.Stopped() {
		return stopOther
	}
	event := int(ws) >> 16
	switch {
	case event == unix.PTRACE_EVENT_EXEC:
		return stopExec
	case event == unix.PTRACE_EVENT_STOP:
		return stopEvent
	case event == 0 && ws.StopSignal() == unix.SIGTRAP|0x80:
		return stopSyscall
	}
	return stopSignal
}

// letGo is the end of an injection that failed. A thread that was killed is waited for:
// before its tracer has done that its parent cannot.
func (j *injector) letGo() {
	for j.ours && j.resume(unix.PTRACE_DETACH) != nil {
		_, _ = j.wait()
	}
}

// bury reaps a thread that ended under us, unless it is a child of this process, which
// the family reaps.
func (j *injector) bury() {
	parent, err := statusField(j.tid, "PPid")
	if tgid, e := statusField(j.tid, "Tgid"); err == nil && e == nil && tgid == j.tid && parent == os.Getpid() {
		return
	}
	_, _ = unix.Wait4(j.tid, nil, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
}

// do makes the calls and lets the thread go.
func (j *injector) do(in *Injection) (err error) {
	// It was killed if that fails, which the wait tells; or the kernel is older than 5.19,
	// where PTRACE_INTERRUPT has ended the call itself, with the same result.
	_, _ = j.n.Reply(j.c, Reply{Kind: ReplyRestart})
	if _, err := j.wait(); err != nil {
		return err
	}
	// Whatever goes wrong from here on ends the thread: it may not run with registers
	// that are neither its own nor ours.
	defer func() {
		if err != nil && !errors.Is(err, unix.ESRCH) {
			var regs unix.PtraceRegs
			if j.registers(unix.PTRACE_GETREGS, &regs) == unix.ESRCH {
				err = unix.ESRCH // somebody has killed it, hence the error
			}
			_ = unix.Tgkill(j.tgid, j.tid, unix.SIGKILL)
		}
	}()
	var saved unix.PtraceRegs
	if err := j.registers(unix.PTRACE_GETREGS, &saved); err != nil {
		return fmt.Errorf("registers: %w", err)
	}
	var mask, all uint64
	all = ^all &^ (1 << (unix.SIGSYS - 1)) // forced while it is blocked, it would lose its handler
	if err := j.ptrace(ptraceGetSigMask, 8, unsafe.Pointer(&mask)); err != nil {
		return fmt.Errorf("signal mask: %w", err)
	}
	if err := j.ptrace(ptraceSetSigMask, 8, unsafe.Pointer(&all)); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	result, err := in.Run(j.tid, func(call Injected) (int64, error) { return j.call(&saved, call) })
	switch {
	case errors.Is(err, ErrExec):
		return j.release(mask)
	case errors.Is(err, ErrAgain):
		saved.Rip -= instruction
		result = int64(j.c.NR)
	case err != nil:
		return err
	}
	saved.Rax, saved.Orig_rax = uint64(result), ^uint64(0)
	if err := j.registers(unix.PTRACE_SETREGS, &saved); err != nil {
		return fmt.Errorf("registers: %w", err)
	}
	return j.release(mask)
}

// release lets the thread go with its own signal mask.
func (j *injector) release(mask uint64) error {
	if err := j.ptrace(ptraceSetSigMask, 8, unsafe.Pointer(&mask)); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	if j.stopped {
		_ = unix.Tgkill(j.tgid, j.tid, unix.SIGSTOP)
	}
	if err := j.resume(unix.PTRACE_DETACH); err != nil {
		return fmt.Errorf("PTRACE_DETACH: %w", err)
	}
	return nil
}

// instruction is the size of syscall, and of int $0x80.
const instruction = 2

// call makes one call.
func (j *injector) call(saved *unix.PtraceRegs, call Injected) (int64, error) {
	regs := *saved
	regs.Rip -= instruction
	regs.Rax, regs.Orig_rax = uint64(call.NR), ^uint64(0)
	a := &call.Args
	if j.c.Arch == I386 {
		regs.Rbx, regs.Rcx, regs.Rdx, regs.Rsi, regs.Rdi, regs.Rbp = a[0], a[1], a[2], a[3], a[4], a[5]
	} else {
		regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	}
	if err := j.registers(unix.PTRACE_SETREGS, &regs); err != nil {
		return 0, fmt.Errorf("registers: %w", err)
	}
	if s, err := j.next(); err != nil {
		return 0, err
	} else if s != stopSyscall {
		return 0, fmt.Errorf("no entry of the call (stop %d): %w", s, unix.EIO)
	}
	if err := j.registers(unix.PTRACE_GETREGS, &regs); err != nil {
		return 0, fmt.Errorf("registers: %w", err)
	}
	if int(int32(regs.Orig_rax)) != call.NR || regs.Rip != saved.Rip {
		return 0, fmt.Errorf("it calls %d in place of %d: %w", int32(regs.Orig_rax), call.NR, unix.EIO)
	}
	j.n.trace.expect(j.c.TID, call)
	s, err := j.next()
	j.n.trace.expect(j.c.TID, Injected{NR: -1})
	switch {
	case err != nil:
		return 0, err
	case s == stopExec:
		return 0, ErrExec
	case s != stopSyscall:
		return 0, fmt.Errorf("no exit of the call (stop %d): %w", s, unix.EIO)
	}
	if err := j.registers(unix.PTRACE_GETREGS, &regs); err != nil {
		return 0, fmt.Errorf("registers: %w", err)
	}
	result := int64(regs.Rax)
	if j.c.Arch == I386 {
		result = int64(int32(regs.Rax))
	}
	if result == int64(call.NR) && j.trapped() {
		// The stop of its signal is where the next call begins, or the thread is let go: the
		// program's handler never sees it.
		if err := j.resume(unix.PTRACE_SYSCALL); err != nil {
			return 0, err
		}
		if s, err := j.wait(); err != nil || s != stopSignal {
			return 0, errors.Join(fmt.Errorf("no signal of the filter (stop %d): %w", s, unix.EIO), err)
		}
		return -int64(unix.EPERM), nil
	}
	return result, nil
}

// trapped reports whether a filter of the program's own has answered the call by SIGSYS
// (SECCOMP_RET_TRAP): the result is the number of the call then.
func (j *injector) trapped() bool {
	var p procFile
	b, err := p.read(j.tid, "status")
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(b, []byte("\nSigPnd:\t"))
	word, _, _ := bytes.Cut(rest, []byte("\n"))
	pending, err := strconv.ParseUint(string(word), 16, 64)
	return err == nil && pending&(1<<(unix.SIGSYS-1)) != 0
}

// next lets the thread run to the next stop that is not a signal's. Only SIGSTOP, which it
// gets in the end, SIGKILL, and SIGSYS are not blocked.
func (j *injector) next() (stop, error) {
	for {
		if err := j.resume(unix.PTRACE_SYSCALL); err != nil {
			return stopOther, err
		}
		s, err := j.wait()
		if err != nil {
			return s, err
		}
		switch s {
		case stopSignal, stopEvent:
		default:
			return s, nil
		}
	}
}

// nanosleep sleeps without the runtime's timers.
func nanosleep(ns int64) {
	ts := unix.NsecToTimespec(ns)
	_ = unix.Nanosleep(&ts, nil)
}
