// SPDX-License-Identifier: Apache-2.0

// The end of a target whose program has ended: what is left of it is ended too.

package intercept

import (
	"context"
	"maps"
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

// descendants returns the processes of the target: our children that have more
// filters than we, and everything below them. The first processes of other targets are
// none of them; whose an orphan was cannot be told.
func (f *family) descendants() []int {
	firstborn.Lock()
	others := maps.Clone(firstborn.pids)
	firstborn.Unlock()
	delete(others, f.pid)
	var all []int
	for _, pid := range children() {
		if others[pid] {
			continue
		}
		if n, err := statusField(pid, "Seccomp_filters"); err == nil && n > f.filters {
			all = append(all, pid)
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, childrenOf(strconv.Itoa(all[i]))...)
	}
	return all
}
