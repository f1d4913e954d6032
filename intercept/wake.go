// SPDX-License-Identifier: Apache-2.0

// Threads of ours that wait in a system call of which the runtime cannot end the wait.

package intercept

import (
	"os"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeSignal interrupts system calls of ours: the last of the real-time signals.
const wakeSignal = unix.Signal(64)

// MakeWakeable lets [Wake] end system calls of this process.
var MakeWakeable = sync.OnceFunc(func() {
	signal.Notify(make(chan os.Signal, 1), wakeSignal) // so that there is a handler at all
	var act struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	const saRestart = 0x10000000 // which the runtime asks for, for all signals
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(wakeSignal), 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0); errno == 0 {
		act.flags &^= saRestart
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(wakeSignal), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	}
})

// Wake interrupts the system call that thread tid of this process is in: it gives EINTR. A
// thread that is on its way into one does not hear of it: who wants to be sure repeats it.
func Wake(tid int) { _ = unix.Tgkill(unix.Getpid(), tid, wakeSignal) }
