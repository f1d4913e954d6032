// SPDX-License-Identifier: Apache-2.0

// Package intercept runs a program and answers some of its system calls: which
// call, whose memory, what answer. It knows nothing of networks or files; modules
// declare what they want as [Rules] and answer each [Call] with an [Action].
//
// # How it works
//
// [Start] makes a child that installs a seccomp filter on itself and then becomes
// the program. The filter lets nearly all calls pass in the kernel, refuses some,
// and for the rest of them makes the thread wait while the kernel notifies us
// through a descriptor, the listener (seccomp_unotify(2)). The filter is inherited
// by every descendant and cannot be taken off.
//
//	Start                          child (ChildMain)                kernel
//	  |-- fork, exec self --------->|
//	  |-- program, filter --------->|
//	  |                             |-- seccomp(NEW_LISTENER) ------->|
//	  |<-- listener (SCM_RIGHTS) ---|
//	  |  receiver runs              |
//	  |-- go ahead ---------------->|
//	  |                             |-- execve ---------------------->|
//	  |<-- end of file: it runs     X
//
// A thread that waits in a call can be looked at: its registers are in the
// notification, its memory is read by process_vm_readv(2), its descriptors are
// duplicated by pidfd_getfd(2). [InstallFD] puts a descriptor into its table and
// answers in the same step, so nothing has to be undone in the target if it dies
// in between. A thread can die, or its number be used again, at any time; so every
// method of Call that looks at it checks that the notification is still alive, and
// gives [ErrGone] if not.
//
// # Writing a handler
//
// A handler runs on the receiving thread: a hand-over to another goroutine costs
// more than most handlers do. It must not block, as all other calls of the whole
// target wait meanwhile. Handlers run one at a time, but for those that have said that they
// may wait ([Call.MayWait]) and those of rules that are [Rule.Apart]. To wait, it parks the call:
//
//	func (s *server) accept(c *intercept.Call) intercept.Action {
//		f, err := c.DupFD(int(int32(c.Args[0])))
//		if err != nil {
//			return intercept.Fail(intercept.Errno(err))
//		}
//		defer f.Close()
//		w := s.waiter(f.Key, func(fd int) { // called by whoever has a connection
//			if !c.Complete(intercept.InstallFD(fd, true)) {
//				s.requeue(fd) // the call was interrupted first
//			}
//		})
//		return c.Park(func(intercept.Reason) intercept.Action {
//			w.stop()
//			return intercept.Restart()
//		})
//	}
//
// Memory is read once, into a copy that is judged and used. A call whose pointer
// arguments were judged is never answered with [Continue], since another thread may
// change the memory before the kernel reads it. The same holds for descriptors:
// act on the duplicate, never on the number.
//
// What cannot be looked at (an execute-only program of an ordinary user) gives EPERM
// to the call, not Continue.
//
// Where most of what traps goes on anyway, a rule says so by a [Glance] ([Rule.Pass]),
// before a Call is made; a [Mark] tells whether a descriptor is a file that was looked at
// before, whatever has become of its number.
//
// What only a thread can do to itself it is made to do ([Call.Inject]): ptrace(2) has it
// make other calls in the place of its own. No rule sees these.
//
// # Signals
//
// A thread whose call was received is not interrupted by signals until it has its
// answer, so no call happens twice. The watcher (see its comment) notices that a
// parked thread is wanted, cancels the call with [Interrupted], and the kernel then
// runs the handler, stops the thread, or lets the tracer have it, as for a native
// call: with [Restart] the call comes again or ends with EINTR as SA_RESTART says.
// It takes up to 10 ms until the watcher looks, 2 ms in the first 20 ms of a call,
// and 0.3 ms after an interruption.
//
// # What holds against the target
//
// Every intercepted call fails with ENOSYS when the supervisor is closed or dead,
// and the rules of base.go keep the target from installing a listener of its own
// then. The first process dies with the supervisor. The supervisor is not dumpable,
// so that a target of the same, ordinary user cannot take the listener out of it.
//
// A target cannot use processes that are not its own: not by ptrace(2), process_vm_writev(2),
// pidfd_getfd(2), nor by /proc/PID/{mem,fd,cwd,root,ns}. It is in a Landlock domain of its
// own (domain.go), where the kernel has that (Linux 6.7); it is only for this, and its
// price is bind(2) of TCP sockets, which a handler must do for the target ([HasDomains]).
// Targets of two Starts are strangers to each other. Rules about numbers of processes in the
// place of the domain would leave /proc/PID open; a domain over signals (LANDLOCK_SCOPE_SIGNAL,
// Linux 6.12) would have kill(2), process groups and SIGIO be ours to imitate.
// Where there are no domains the log says so.
//
// Root can have the kernel do what it may not do itself (core_pattern, modules); and other
// processes of the same user can look into the target as into any other.
//
// # Processes
//
// The supervising process is a child subreaper: daemons stay its descendants. It
// reaps those, and no other children of the process (see family). Start may be
// called several times in a process; each target has its own listener and rules.
//
// # Goroutines and locks
//
// A [Supervisor] has four goroutines: the receiver (notifier.receive), its guard, which
// gives its turn to another one when a handler waits that may (notifier.guard, turn.go), the watcher
// of parked calls (watcher.run), and the parent (family.parent, locked to its thread since
// the target dies with it). While the program calls without a pause (rush.go) there is the
// usher, and there may be a second receiver (notifier.assist), each receiver locked to its
// thread. They end by themselves when the last task of the target is
// gone. From the first injection on there is the tracer (tracer.serve, locked to its thread), and more
// while one of them is held up, with a goroutine for each call that waits for them. Close ends and awaits all, but for
// receivers that wait in the kernel for somebody who never answers.
//
// No lock of this package is held while a handler, a cancel function or a callback
// runs. Lock order:
//
//	taskCache.mu
//	    Task.mu
//	listener.watching
//	watcher.mu
//	firstborn
//	    tracing
//	family.mu
//	    tracing
//	tracer.mu
package intercept
