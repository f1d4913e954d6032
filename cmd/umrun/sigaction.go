// SPDX-License-Identifier: Apache-2.0

// Signal dispositions: what umrun was started with, and a handler that keeps the
// siginfo.

package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

// What umrun was started with; bit n-1 is signal n. It is noted before the Go
// runtime starts, which installs handlers for nearly everything.
static uint64_t blocked, ignored;

__attribute__((constructor)) static void note_signals(void) {
	sigset_t set;
	struct sigaction act;
	sigprocmask(SIG_BLOCK, NULL, &set);
	for (int s = 1; s <= 64; s++) {
		if (sigismember(&set, s) == 1)
			blocked |= (uint64_t)1 << (s - 1);
		if (sigaction(s, NULL, &act) == 0 && act.sa_handler == SIG_IGN)
			ignored |= (uint64_t)1 << (s - 1);
	}
}

static uint64_t blocked_signals(void) { return blocked; }
static uint64_t ignored_signals(void) { return ignored; }

// What travels from the handler to the relay.
struct caught {
	int32_t signo, code, pid;
};

static int relay_fd = -1;

static void catch_signal(int signo, siginfo_t *si, void *context) {
	int saved = errno;
	struct caught c = {signo, si->si_code, si->si_pid};
	(void)context;
	if (si->si_code == SI_TKILL && si->si_pid == getpid()) {
		errno = saved;
		return; // intercept.Wake, meant for a thread of ours
	}
	// Less than PIPE_BUF: all or nothing. A full pipe drops the signal, as the
	// kernel does with a second pending one.
	if (write(relay_fd, &c, sizeof c) < 0) {}
	errno = saved;
}

static const int relayed[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM,
	SIGTSTP, SIGCONT, SIGWINCH, SIGIO, SIGPWR,
};

// The handler is C from end to end: it may run on any thread, inside or outside
// of Go code, and needs nothing but the alternate stack that the runtime has set
// up for each thread.
static int catch_signals(int fd) {
	struct sigaction act = {.sa_sigaction = catch_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigfillset(&act.sa_mask);
	relay_fd = fd;
	for (size_t i = 0; i < sizeof relayed / sizeof *relayed; i++)
		if (sigaction(relayed[i], &act, NULL) < 0)
			return errno;
	for (int s = SIGRTMIN; s <= SIGRTMAX; s++)
		if (sigaction(s, &act, NULL) < 0)
			return errno;
	return 0;
}
*/
import "C"

import "golang.org/x/sys/unix"

// blockedSignals is the signal mask that umrun was started with, ignoredSignals
// are those whose disposition was SIG_IGN: the program starts with both. Bit n-1
// is signal n.
func blockedSignals() uint64 { return uint64(C.blocked_signals()) }
func ignoredSignals() uint64 { return uint64(C.ignored_signals()) }

// A caught is a signal as the handler saw it, sigaction(2).
type caught struct{ signo, code, pid int32 }

// catchSignals has every signal that may be meant for the program written to fd, a
// pipe that does not block, as a caught. It cannot be undone: fd stays open.
func catchSignals(fd int) error {
	if errno := C.catch_signals(C.int(fd)); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
