// SPDX-License-Identifier: Apache-2.0

// Perches: where the receivers of a rush wait, and how they are woken.

package intercept

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// A perch is where a receiver waits in the kernel, and can be woken: there alone, as the system
// calls of a handler are not to be interrupted, of which the program would hear (EINTR).
type perch struct {
	_     cpu.CacheLinePad // what one receiver writes at each call the other does not read
	tid   atomic.Int32     // thread of the receiver, -1: of which is not known yet; 0: there is none
	state atomic.Int32     // away, sits, kicked
	kicks atomic.Uint32    // how often it was
	heard uint32           // of these. The receiver's
	_     cpu.CacheLinePad
}

const (
	away   = iota // it does not wait
	sits          // it does, or is about to
	kicked        // and is being woken: nobody else changes this
)

// recv is [listener.recvWaiting], and takes with it the signals that are on their way.
func (p *perch) recv(l *listener, nt *notification) error {
	p.state.Store(sits)
	err := l.recvWaiting(nt)
	for !p.state.CompareAndSwap(sits, away) {
		runtime.Gosched()
	}
	if kicks := p.kicks.Load(); kicks != p.heard {
		p.heard = kicks
		_, _, _ = unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0) // no signal waits behind a system call
	}
	return err
}

// kick has the receiver look around if it waits. One that is only about to does not hear of it.
func (p *perch) kick() {
	if tid := p.tid.Load(); tid > 0 && p.state.CompareAndSwap(sits, kicked) {
		p.kicks.Add(1)
		Wake(int(tid))
		p.state.Store(sits)
	}
}
