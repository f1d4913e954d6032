// SPDX-License-Identifier: Apache-2.0

// The signal mask: taken over before the Go runtime starts.

package main

/*
#include <signal.h>
#include <stdint.h>
#include <string.h>

static uint64_t original; // the mask umrun was started with; bit n-1 is signal n
static uint64_t blocked;  // the signals blocked here, 0 where none were

static const int relayed[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM,
	SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGWINCH, SIGIO, SIGPWR,
};

// Commands that run no program of the user's keep the usual signals.
static const char *const commands[] = {
	"check", "doctor", "demo", "version", "help", "completion", "--version", "--help", "-h",
};

static int runs_a_program(int argc, char **argv) {
	size_t n = argc > 0 ? strlen(argv[0]) : 0;
	if (n >= 5 && strcmp(argv[0] + n - 5, ".test") == 0)
		return 0; // a test binary: go test ends it by SIGQUIT
	if (argc < 2)
		return 0;
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (strcmp(argv[1], commands[i]) == 0)
			return 0;
	return 1;
}

// A signal that is blocked in every thread from the very first instruction on
// stays pending for the signalfd. Blocking it later would leave threads that the
// runtime has already made, and their Go handlers would take it without siginfo.
__attribute__((constructor)) static void take_signals(int argc, char **argv) {
	sigset_t set, old;
	sigemptyset(&set);
	if (runs_a_program(argc, argv)) {
		for (size_t i = 0; i < sizeof relayed / sizeof *relayed; i++)
			sigaddset(&set, relayed[i]);
		for (int s = SIGRTMIN; s <= SIGRTMAX; s++)
			sigaddset(&set, s);
	}
	sigprocmask(SIG_BLOCK, &set, &old);
	for (int s = 1; s <= 64; s++) {
		if (sigismember(&old, s) == 1)
			original |= (uint64_t)1 << (s - 1);
		if (sigismember(&set, s) == 1)
			blocked |= (uint64_t)1 << (s - 1);
	}
}

static uint64_t original_mask(void) { return original; }
static uint64_t blocked_mask(void) { return blocked; }
*/
import "C"

// originalMask is the signal mask that umrun was started with, and the program
// shall start with; blockedMask has the signals that the relay reads. Bit n-1 is
// signal n.
func originalMask() uint64 { return uint64(C.original_mask()) }
func blockedMask() uint64  { return uint64(C.blocked_mask()) }
