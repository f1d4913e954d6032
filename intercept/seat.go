// SPDX-License-Identifier: Apache-2.0

// Seats: what the scheduler is told of the threads of two receivers.

package intercept

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A seat is what a receiver's thread has while there are two: where there are just two
// processors, one of them for itself; and SCHED_BATCH, so that it does not interrupt who
// computes there when it is woken for a call that the other one takes. It is the thread's
// own: who has it keeps to the thread.
type seat struct {
	taken  bool
	before unix.CPUSet // where the thread may be otherwise
	pinned bool
	batch  bool
}

// schedBatch is SCHED_BATCH, sched(7); zero is SCHED_OTHER.
const schedBatch = 3

// take gives the calling thread the seat number i, 0 or 1. What the kernel does not allow is
// done without.
func (s *seat) take(i int) {
	if s.taken {
		return
	}
	*s = seat{taken: true}
	if unix.SchedGetaffinity(0, &s.before) == nil && s.before.Count() == 2 {
		var one unix.CPUSet
		for cpu := 0; one.Count() == 0; cpu++ {
			if s.before.IsSet(cpu) {
				if i == 0 {
					one.Set(cpu)
				}
				i--
			}
		}
		s.pinned = unix.SchedSetaffinity(0, &one) == nil
	}
	if policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0); errno == 0 && policy == 0 {
		s.batch = setScheduler(schedBatch) == nil
	}
}

// leave gives it back.
func (s *seat) leave() {
	if s.pinned {
		_ = unix.SchedSetaffinity(0, &s.before)
	}
	if s.batch {
		_ = setScheduler(0)
	}
	*s = seat{}
}

// setScheduler is sched_setscheduler(2) of the calling thread, for policies without a priority.
func setScheduler(policy int) error {
	var priority int32
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return errno
	}
	return nil
}
