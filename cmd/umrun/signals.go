// SPDX-License-Identifier: Apache-2.0

// Signals and job control: what is sent to umrun and meant for the program.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/view"
)

// A relay stands between umrun and the program. Both are in one process group, as
// a shell would have it, so the terminal's signals (Ctrl-C, Ctrl-Z, a hang-up)
// reach the program by themselves and must not be sent a second time. What was
// sent to umrun alone is passed on. Which of the two it was is in the siginfo, and
// therefore signals are read from a signalfd(2): package os/signal tells only the
// number.
//
// Before there is a program, and after it has ended, a fatal signal ends umrun:
// that is how waiting for the network, or for the last bytes, is cut short.
type relay struct {
	cancel context.CancelFunc
	file   *os.File // the signalfd
	stops  chan unix.Signal
	done   chan struct{} // closed by close
	wg     sync.WaitGroup
	fatal  atomic.Int32 // the signal that ended umrun's own waiting, or 0

	mu sync.Mutex
	v  *view.View // guarded by mu; nil until attach
}

// startRelay begins to read signals. cancel ends what umrun waits for.
func startRelay(cancel context.CancelFunc) (*relay, error) {
	set := unix.Sigset_t{Val: [16]uint64{blockedMask()}}
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("signalfd: %w", err)
	}
	r := &relay{
		cancel: cancel,
		file:   os.NewFile(uintptr(fd), "signalfd"),
		stops:  make(chan unix.Signal, 1), // one stop is as good as two
		done:   make(chan struct{}),
	}
	r.wg.Go(r.read)
	r.wg.Go(r.suspend)
	return r, nil
}

// mask is the signal mask for the program.
func (r *relay) mask() *uint64 {
	m := originalMask()
	return &m
}

// attach names the view whose program gets the signals from now on.
func (r *relay) attach(v *view.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.v = v
}

// ended returns the signal that ended umrun's own waiting, or 0.
func (r *relay) ended() unix.Signal { return unix.Signal(r.fatal.Load()) }

func (r *relay) close() {
	close(r.done)
	r.file.Close() // ends read
	r.wg.Wait()
}

// siginfoSize is what the kernel writes for each signal, signalfd(2).
const siginfoSize = int(unsafe.Sizeof(unix.SignalfdSiginfo{}))

// read takes signals until the signalfd is closed.
func (r *relay) read() {
	var buf [16 * siginfoSize]byte
	for {
		n, err := r.file.Read(buf[:])
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= siginfoSize; b = b[siginfoSize:] {
			r.handle((*unix.SignalfdSiginfo)(unsafe.Pointer(&b[0])))
		}
	}
}

// handle deals with one signal.
func (r *relay) handle(si *unix.SignalfdSiginfo) {
	sig := unix.Signal(si.Signo)
	r.mu.Lock()
	v := r.v
	r.mu.Unlock()
	if v == nil || v.Ended() {
		r.own(sig)
		return
	}
	switch {
	case sig == unix.SIGCONT:
		// The shell continues the whole group. Only where umrun alone was
		// continued is the program still stopped.
		if stopped(v.PID()) {
			_ = v.Signal(sig) // it can only have ended
		}
	case reachedGroup(si):
	default:
		_ = v.Signal(sig) // likewise
	}
}

// own does what a signal does to umrun itself.
func (r *relay) own(sig unix.Signal) {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM:
		r.fatal.CompareAndSwap(0, int32(sig))
		r.cancel()
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		stopSelf()
	}
}

// reachedGroup reports whether a signal that umrun got has gone to the program
// too, because the whole process group was signalled.
func reachedGroup(si *unix.SignalfdSiginfo) bool {
	const siKernel = 0x80 // SI_KERNEL, <asm-generic/siginfo.h>
	if si.Code == siKernel {
		switch unix.Signal(si.Signo) {
		case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH:
			return true
		case unix.SIGHUP:
			// A hang-up goes to the session leader alone; to the foreground
			// group when the leader ends.
			sid, err := unix.Getsid(0)
			return err != nil || sid != os.Getpid()
		}
		return false // a timer that was set before exec: the program's
	}
	// What a task of the view sends to umrun it sends to its group: kill(0, ...).
	return descends(int(si.Pid), os.Getpid())
}

// descends reports whether pid is a descendant of ancestor.
func descends(pid, ancestor int) bool {
	for depth := 0; pid > 1 && depth < 256; depth++ {
		_, ppid, err := procStat(pid)
		if err != nil {
			return false
		}
		if ppid == ancestor {
			return true
		}
		pid = ppid
	}
	return false
}

// stopped reports whether a process is stopped by a signal.
func stopped(pid int) bool {
	state, _, err := procStat(pid)
	return err == nil && state == 'T'
}

// procStat reads state and parent of a process, proc_pid_stat(5).
func procStat(pid int) (state byte, ppid int, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name may hold anything
	if len(f) < 2 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	ppid, err = strconv.Atoi(string(f[1]))
	return f[0][0], ppid, err
}

// stopped is told by the view that the program was stopped (or continued).
func (r *relay) stopped(sig unix.Signal) {
	if sig == unix.SIGCONT {
		return
	}
	select {
	case r.stops <- sig:
	default:
	}
}

// suspend stops umrun when the program was stopped, so that the shell that waits
// for umrun gets its prompt back.
func (r *relay) suspend() {
	for {
		select {
		case <-r.done:
			return
		case sig := <-r.stops:
			r.mu.Lock()
			v := r.v
			r.mu.Unlock()
			if v != nil && shellWaits(sig) && stopped(v.PID()) {
				stopSelf()
			}
		}
	}
}

// shellWaits reports whether there is a shell to return to. A program that somebody
// stopped with SIGSTOP from elsewhere, to continue it from there, must not take
// its network with it: umrun could not see it go on.
func shellWaits(sig unix.Signal) bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	if sig != unix.SIGSTOP {
		return true
	}
	fg, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && fg == unix.Getpgrp()
}

// stopSelf returns once umrun was continued.
func stopSelf() { _ = unix.Kill(os.Getpid(), unix.SIGSTOP) }
