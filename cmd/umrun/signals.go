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
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/view"
)

// A relay stands between umrun and the program. Both are in one process group, as
// a shell would have it, so the terminal's signals (Ctrl-C, Ctrl-Z, a hang-up)
// reach the program by themselves and must not be sent a second time. What was
// sent to umrun alone is passed on. Which of the two it was is in the siginfo, of
// which package os/signal says nothing. A signalfd(2) is no way out: the runtime
// unblocks SIGHUP, SIGINT, SIGQUIT and SIGTERM in every thread. So a handler of our
// own writes them to a pipe (sigaction.go).
//
// Before there is a program, and after it has ended, a fatal signal ends umrun:
// that is how waiting for the network, or for the last bytes, is cut short.
type relay struct {
	pipe  *os.File // what the handler writes
	wit   *witness // asked by read alone
	stops chan unix.Signal
	done  chan struct{} // closed by close
	wg    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	cancel context.CancelFunc
	v      *view.View    // nil until attach
	early  []unix.Signal // what came before, and the program shall get
	fatal  unix.Signal   // what ended umrun's own waiting, or 0
	lone   bool          // fatal was sent to umrun alone
	force  *time.Timer   // ends umrun some time after that; nil while fatal is 0
}

// startRelay begins to read signals. cancel ends what umrun waits for.
func startRelay(cancel context.CancelFunc) (*relay, error) {
	p := make([]int, 2)
	if err := unix.Pipe2(p, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("pipe for signals: %w", err)
	}
	if err := catchSignals(p[1]); err != nil {
		return nil, fmt.Errorf("sigaction: %w", err)
	}
	wit, err := startWitness()
	if err != nil {
		return nil, err
	}
	r := &relay{
		cancel: cancel,
		wit:    wit,
		pipe:   os.NewFile(uintptr(p[0]), "signals"),
		stops:  make(chan unix.Signal, 1), // one stop is as good as two
		done:   make(chan struct{}),
	}
	r.wg.Go(r.read)
	r.wg.Go(r.suspend)
	return r, nil
}

// attach names the view whose program gets the signals from now on, and passes on
// those that came while it was started, to umrun alone. One that went to the whole
// group and came before the fork has ended the start; one that came later, the
// program has. cancel ends what umrun waits for once the program has ended.
func (r *relay) attach(v *view.View, cancel context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.v, r.cancel = v, cancel
	if r.fatal != 0 {
		r.force.Stop()
		if r.lone {
			r.early = append(r.early, r.fatal)
		}
		r.fatal = 0
	}
	for _, sig := range r.early {
		_ = v.Signal(sig) // it can only have ended
	}
}

// ended returns the signal that ended umrun's own waiting, or 0.
func (r *relay) ended() unix.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal
}

func (r *relay) close() {
	close(r.done)
	r.pipe.Close() // ends read
	r.wg.Wait()
	r.wit.close()
}

// read takes signals until the pipe is closed.
func (r *relay) read() {
	var buf [32 * unsafe.Sizeof(caught{})]byte // whole ones: the pipe was written so
	for {
		n, err := r.pipe.Read(buf[:])
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) > 0; b = b[unsafe.Sizeof(caught{}):] {
			r.handle((*caught)(unsafe.Pointer(&b[0])))
		}
	}
}

// echo is how long after the program's end a signal to the group counts as the one
// that ended it, and not as a second one that is meant for umrun.
const echo = 200 * time.Millisecond

// handle deals with one signal.
func (r *relay) handle(c *caught) {
	sig := unix.Signal(c.signo)
	group := r.wit.saw(sig) || reachedGroup(c) // asked each time, so that the witness forgets
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.v == nil {
		r.ownLocked(sig, group)
		return
	}
	if at, ended := r.v.Ended(); ended {
		if !group || time.Since(at) > echo {
			r.ownLocked(sig, group)
		}
		return
	}
	switch {
	case sig == unix.SIGCONT:
		// The shell continues the whole group. Only where umrun alone was
		// continued is the program still stopped.
		if stopped(r.v.PID()) {
			_ = r.v.Signal(sig) // it can only have ended
		}
	case !group:
		_ = r.v.Signal(sig) // likewise
	}
}

// giveUp is how long umrun takes at most to end after a signal.
const giveUp = 2 * time.Second

// ownLocked does what a signal does while there is no program. mu is held.
func (r *relay) ownLocked(sig unix.Signal, group bool) {
	switch sig {
	case unix.SIGTSTP:
		stopSelf()
	case unix.SIGCONT, unix.SIGWINCH:
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM:
		if ignoredSignals()>>(sig-1)&1 != 0 {
			return // nohup(1)
		}
		if r.fatal != 0 {
			os.Exit(128 + int(sig)) // the second one is meant
		}
		r.fatal, r.lone = sig, !group
		r.cancel()
		// What does not heed ctx, such as reading a configuration from a pipe,
		// leaves nothing behind either.
		r.force = time.AfterFunc(giveUp, func() { os.Exit(128 + int(sig)) })
	default:
		if !group {
			r.early = append(r.early, sig)
		}
	}
}

// reachedGroup reports whether a signal has gone to the program too, as far as the
// siginfo tells. It knows what the witness may have missed: the second of two that
// came so fast that it saw one.
func reachedGroup(c *caught) bool {
	const siKernel = 0x80 // SI_KERNEL, <asm-generic/siginfo.h>
	if c.code == siKernel {
		switch unix.Signal(c.signo) {
		case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH:
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
	return descends(int(c.pid), os.Getpid())
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
