// SPDX-License-Identifier: Apache-2.0

// What umrun costs where nothing moves: calls, starts, idle views, leaks.

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// calls measures calls that are trapped.
func (b *bench) calls(ctx context.Context) error {
	n := 20000
	if b.quick {
		n = 200
	}
	u, err := b.under(ctx, b.w.u, nobody, "none")
	if err != nil {
		return err
	}
	defer u.close()
	k, err := b.native(ctx, b.w.u, nobody, 0)
	if err != nil {
		return err
	}
	defer k.close()
	var lines [][2]string
	for _, c := range [][2]string{{"calls", "getsockopt(SO_ERROR)"}, {"sockets", "socket() and close()"}, {"unix", "sendmsg() and recvmsg() on an AF_UNIX pair"}} {
		a, err := u.ask(ctx, c[0], 0, n)
		if err != nil {
			return err
		}
		z, err := k.ask(ctx, c[0], 0, n)
		if err != nil {
			return err
		}
		lines = append(lines, [2]string{c[1], fmt.Sprintf("%.1f µs (p50 %.1f, p99 %.1f); native %.1f µs",
			a.Seconds*1e6/float64(n), a.P50, a.P99, z.Seconds*1e6/float64(n))})
	}
	b.report.facts("A trapped call", lines...)
	return nil
}

// start measures from exec to exit of a program that does nothing.
func (b *bench) start(ctx context.Context) error {
	var lines [][2]string
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"native", nil},
		{"-n none", []string{"-n", "none"}},
		{"-n nat", []string{"-n", "nat"}},
		{"-n FILE.conf, to the end of a handshake", []string{"-n", b.w.conf}},
	} {
		var took []float64
		for range 3 * b.rounds {
			argv := []string{"/bin/true"}
			if c.argv != nil {
				argv = append(append([]string{b.umrun, "-q"}, c.argv...), "--", "/bin/true")
			}
			// A peer drops handshakes that follow each other within 20 ms.
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return err
			}
			one, cancel := context.WithTimeout(ctx, grace)
			cmd := exec.CommandContext(one, argv[0], argv[1:]...)
			begin := time.Now()
			err := b.w.u.start(cmd)
			if err == nil {
				err = cmd.Wait()
			}
			cancel()
			if err != nil {
				return fmt.Errorf("%q: %w", argv, err)
			}
			took = append(took, time.Since(begin).Seconds()*1e3)
		}
		lines = append(lines, [2]string{c.name, spread(took) + " ms"})
	}
	b.report.facts("Start and end of /bin/true", lines...)
	return nil
}

// idle measures a view in which nothing happens: a listener in an epoll set, a
// thread in accept(2), a tunnel that is up.
func (b *bench) idle(ctx context.Context) error {
	d := 10 * time.Second
	if b.quick {
		d = time.Second
	}
	u, err := b.under(ctx, b.w.u, peerAddr, b.w.conf)
	if err != nil {
		return err
	}
	defer u.close()
	begin := usage(u.worker)
	if _, err := u.ask(ctx, "accept", 0, 0); err != nil {
		return err
	}
	// What the start has left to do is not part of being idle.
	if err := pause(ctx, d/5); err != nil {
		return err
	}
	before := usage(u.worker)
	if err := pause(ctx, d); err != nil {
		return err
	}
	after := usage(u.worker)
	b.report.facts("An idle view on a tunnel, with an accept(2) under way",
		[2]string{"CPU of the supervisor", fmt.Sprintf("%.0f ms in %v", (after.cpu-before.cpu)*1e3, d)},
		[2]string{"memory", fmt.Sprintf("%.1f MiB resident at the start", float64(begin.rss)/1024)},
		[2]string{"threads, descriptors", fmt.Sprintf("%d, %d", after.threads, after.fds)})
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// leak makes connections in sequence, then many at once, and expects that the
// supervisor gets back to where it was.
func (b *bench) leak(ctx context.Context) error {
	u, err := b.under(ctx, b.w.u, peerAddr, b.w.conf)
	if err != nil {
		return err
	}
	defer u.close()
	if _, err := u.ask(ctx, "seq", 0, 100); err != nil {
		return err
	}
	base := usage(u.worker)
	seq, err := u.ask(ctx, "seq", 0, b.seq)
	if err != nil {
		return err
	}
	mid, err := settle(ctx, u.worker, base.fds)
	if err != nil {
		return fmt.Errorf("%d connections in sequence: %w", b.seq, err)
	}
	all, err := u.ask(ctx, "many", 0, b.many)
	if err != nil {
		return err
	}
	last, err := settle(ctx, u.worker, base.fds)
	if err != nil {
		return fmt.Errorf("%d connections at once: %w", b.many, err)
	}
	state := func(x use) string {
		return fmt.Sprintf("%d descriptors, %d threads, %.1f MiB", x.fds, x.threads, float64(x.rss)/1024)
	}
	b.report.facts("Nothing is left behind",
		[2]string{"before", state(base)},
		[2]string{fmt.Sprintf("%d connections in sequence", b.seq), fmt.Sprintf("%.1f s; then %s", seq.Seconds, state(mid))},
		[2]string{fmt.Sprintf("%d at once, 64 KiB each way, hashes compared", b.many), fmt.Sprintf("%.1f s; then %s", all.Seconds, state(last))})
	return nil
}

// settle waits until a process holds no more than fds descriptors.
func settle(ctx context.Context, pid, fds int) (use, error) {
	for end := time.Now().Add(grace); ; {
		now := usage(pid)
		if now.fds <= fds {
			return now, nil
		}
		if time.Now().After(end) {
			return now, fmt.Errorf("%d descriptors are left, %d were there before: %s", now.fds, fds, kinds(pid))
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return now, errors.Join(err, ctx.Err())
		}
	}
}

// kinds counts the descriptors of a process by what they are.
func kinds(pid int) string {
	n := map[string]int{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if what, err := os.Readlink(l); err == nil {
			n[strings.TrimRight(what, "[]0123456789")]++
		}
	}
	var out []string
	for _, what := range slices.Sorted(maps.Keys(n)) {
		out = append(out, fmt.Sprintf("%d %s", n[what], what))
	}
	return strings.Join(out, ", ")
}
