// SPDX-License-Identifier: Apache-2.0

// The witness: a process that tells whether a signal went to the whole group.

package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *args;       // the words that ps(1) shows
static size_t args_size;

__attribute__((constructor)) static void note_args(int argc, char **argv) {
	if (argc > 0) {
		args = argv[0];
		args_size = argv[argc - 1] + strlen(argv[argc - 1]) - argv[0];
	}
}

// Runs in the witness, a copy of one thread: nothing but system calls from here.
static void bear_witness(int fd) {
	static const struct timespec now;
	sigset_t all;
	siginfo_t si;
	char question;

	// Without descriptors, so that nobody waits for an end of file that we hold
	// up, and without a name by which pkill(1) would find us beside umrun.
	if (dup2(fd, 0) < 0)
		_exit(1);
	syscall(SYS_close_range, 1, ~0U, 0);
	prctl(PR_SET_NAME, "sigwitness");
	prctl(PR_SET_DUMPABLE, 0); // no filter holds us: the program must not trace us
	memset(args, 0, args_size);
	sigfillset(&all);
	while (read(0, &question, 1) == 1) {
		uint64_t seen = 0;
		while (sigtimedwait(&all, &si, &now) > 0)
			seen |= (uint64_t)1 << (si.si_signo - 1);
		if (write(0, &seen, sizeof seen) != sizeof seen)
			break;
	}
	_exit(0);
}

// Starts a witness. Returns its process number and in *fd the socket to ask it by,
// or a negative error.
static int start_witness(int *fd) {
	sigset_t all, old;
	int pair[2], pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	// Blocked before the fork: no handler of ours ever runs in the witness. No
	// exit signal, so that nobody's wait for children sees it (__WALL does).
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (pid == 0)
		bear_witness(pair[1]);
	int err = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return -err;
	}
	*fd = pair[0];
	return pid;
}
*/
import "C"

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// A witness is a process in umrun's process group that does nothing but note the
// signals it gets. `kill %1` in a shell signals umrun and the program, `kill PID`
// only umrun, and their siginfo is the same: only who stands beside them can tell.
// Passing on the first kind would run the program's handler twice; not passing on
// the second would make umrun deaf.
type witness struct {
	pid int
	fd  int // one byte asks, eight bytes answer
}

// startWitness starts a witness. It ends with close, or with umrun.
func startWitness() (*witness, error) {
	var fd C.int
	pid := C.start_witness(&fd)
	if pid < 0 {
		return nil, fmt.Errorf("start the signal witness: %w", unix.Errno(-pid))
	}
	w := &witness{pid: int(pid), fd: int(fd)}
	// A witness that was itself stopped must not hold umrun up.
	tv := unix.NsecToTimeval(50e6)
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		w.close()
		return nil, fmt.Errorf("SO_RCVTIMEO: %w", err)
	}
	return w, nil
}

// saw reports whether the witness has got sig since it was last asked.
func (w *witness) saw(sig unix.Signal) bool {
	// A signal for a group is delivered under the kernel's tasklist_lock, held for
	// reading; setpgid(2) takes it for writing, and so returns only after the last
	// member was reached (kernel/signal.c, kernel/sys.c, v6.12).
	_ = unix.Setpgid(0, unix.Getpgrp()) // changes nothing; EPERM for a session leader
	if _, err := unix.Write(w.fd, []byte{0}); err != nil {
		return false
	}
	var b [8]byte
	if n, err := unix.Read(w.fd, b[:]); err != nil || n != len(b) {
		return false
	}
	return binary.NativeEndian.Uint64(b[:])>>(sig-1)&1 != 0
}

// close ends the witness, also one that is stopped, and waits for it.
func (w *witness) close() {
	unix.Close(w.fd)
	_ = unix.Kill(w.pid, unix.SIGKILL) // the number is its own until it is waited for
	for {
		if _, err := unix.Wait4(w.pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}
