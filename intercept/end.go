// SPDX-License-Identifier: Apache-2.0

// The end of a target whose program has ended: what is left of it is ended too.

package intercept

import (
	"context"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// endRetry is how often EndAll signals those that do not end; new ones may have
// been forked meanwhile.
const endRetry = 50 * time.Millisecond

// EndAll sees to it that no task of the target is left. Tasks have grace to end by
// themselves, then SIGTERM (with SIGCONT, for those that are stopped), and after
// the same time again SIGKILL. It returns how many processes were signalled, and
// an error if tasks were still there when ctx ended.
//
// Close alone would leave them without an answer to any socket call, some of them
// busy with asking again.
func (s *Supervisor) EndAll(ctx context.Context, grace time.Duration) (signalled int, err error) {
	if s.wait(ctx, grace) {
		return 0, nil
	}
	told := make(map[int]bool)
	for _, pid := range s.f.descendants() {
		if unix.Kill(pid, unix.SIGTERM) == nil {
			told[pid] = true
		}
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	if s.wait(ctx, grace) {
		return len(told), nil
	}
	for ctx.Err() == nil {
		for _, pid := range s.f.descendants() {
			if unix.Kill(pid, unix.SIGKILL) == nil {
				told[pid] = true
			}
		}
		if s.wait(ctx, endRetry) {
			return len(told), nil
		}
	}
	return len(told), ctx.Err()
}

// wait waits for the last task for at most d.
func (s *Supervisor) wait(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return s.WaitAll(ctx) == nil
}

// Processes returns the numbers of the target's processes.
func (s *Supervisor) Processes() []int { return s.f.descendants() }

// Has reports whether a thread or process is of the target.
func (s *Supervisor) Has(tid int) bool { return s.f.has(tid) }

// has goes from a task up to us, as descendants goes down.
func (f *family) has(tid int) bool {
	const patience = 10 // a parent may end while it is looked at, and then it is another one
	for range patience {
		if top, err := eldest(tid); err == nil {
			return f.begins(top)
		}
	}
	return false
}

// eldest returns the child of ours that a task descends from, or is; 0: none.
func eldest(tid int) (pid int, err error) {
	pid, err = threadGroup(tid)
	for err == nil && pid != 0 {
		var parent int
		parent, err = statusField(pid, "PPid")
		if err == nil && parent == os.Getpid() {
			return pid, nil
		}
		pid = parent
	}
	return 0, err
}

// begins reports whether a child of ours is one that a part of the target descends from.
func (f *family) begins(child int) bool {
	firstborn.Lock()
	others := firstborn.pids[child] && child != f.pid
	firstborn.Unlock()
	if child == 0 || others {
		return false
	}
	n, err := statusField(child, "Seccomp_filters")
	return err == nil && n > f.filters
}

// descendants returns the processes of the target: our children that have more
// filters than we, and everything below them. The first processes of other targets are
// none of them; whose an orphan was cannot be told.
func (f *family) descendants() []int {
	var all []int
	for _, pid := range children() {
		if f.begins(pid) {
			all = append(all, pid)
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, childrenOf(strconv.Itoa(all[i]))...)
	}
	return all
}
