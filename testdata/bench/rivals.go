// SPDX-License-Identifier: Apache-2.0

// nat beside those who do the same for a namespace: pasta and slirp4netns.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// The network of this comparison, of which everything leads to one server:
//
//	namespace h, the host                          namespace s
//	+----------------------------------------+     +-----------------------+
//	| umrun -n nat   agent                   | veth| the server            |
//	| pasta          namespace: agent        |=====| 10.98.0.2, fd98::2    |
//	| slirp4netns    namespace: agent        |     |                       |
//	| (natively)     agent                   |     |                       |
//	+----------------------------------------+     +-----------------------+
const (
	rival4, rivalHost4 = "10.98.0.2", "10.98.0.1"
	rival6, rivalHost6 = "fd98::2", "fd98::1"
)

// rivalNames are the sides in the order of the columns; the last is the measure of
// what the machine can do.
var rivalNames = []string{"umrun -n nat", "pasta", "slirp4netns", "native"}

// rivals takes samples of all sides, whose order turns from round to round.
func (b *bench) rivals(ctx context.Context) error {
	sides := []int{0}
	for i := 1; i < len(rivalNames)-1; i++ {
		if _, err := exec.LookPath(rivalNames[i]); err == nil {
			sides = append(sides, i)
		}
	}
	if len(sides) == 1 {
		fmt.Print("\nnat beside its rivals: none is installed\n  try: apt-get install passt slirp4netns\n")
		return nil
	}
	sides = append(sides, len(rivalNames)-1)
	h, _, stop, err := b.rivalWorld(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, addr := range []string{rival4, rival6} {
		got := make([][][]sample, len(rows))
		for i := range got {
			got[i] = make([][]sample, len(rivalNames))
		}
		for round := range b.rounds {
			for k := range sides {
				which := sides[(k+round)%len(sides)]
				if err := b.rival(ctx, h, which, addr, func(i int, s sample) { got[i][which] = append(got[i][which], s) }); err != nil {
					return fmt.Errorf("%s to %s: %w", rivalNames[which], addr, err)
				}
			}
		}
		b.report.rivals(addr, sides, got)
	}
	return nil
}

// rival starts one side, and takes a sample of each row.
func (b *bench) rival(ctx context.Context, h *namespace, which int, addr string, take func(int, sample)) error {
	// What a rival cannot do counts as nothing.
	nothing := sample{Ops: 1, Bytes: 1, Seconds: 1e9}
	s, stop, err := b.rivalSide(ctx, h, which, addr)
	if err != nil && which > 0 && ctx.Err() == nil {
		fmt.Printf("%s to %s: %v\n", rivalNames[which], addr, err)
		for i := range rows {
			take(i, nothing)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer stop()
	for i, r := range rows {
		v, err := s.measure(ctx, r.name, b.time)
		if err != nil && which == 0 {
			return fmt.Errorf("%s: %w", r.title, err)
		}
		if err != nil {
			fmt.Printf("%s to %s, %s: %v\n", rivalNames[which], addr, r.title, err)
			v = nothing
		}
		take(i, v)
	}
	if err := s.close(); err != nil && which == 0 {
		return err
	}
	return nil
}

// rivalWorld makes both namespaces and starts the server.
func (b *bench) rivalWorld(ctx context.Context) (h, s *namespace, stop func(), err error) {
	var undo []func()
	stop = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	for _, ns := range []**namespace{&h, &s} {
		if *ns, err = newNamespace(); err != nil {
			return nil, nil, nil, err
		}
		undo = append(undo, (*ns).close)
	}
	if err := h.ip(ctx, "link set lo up",
		fmt.Sprintf("link add outer type veth peer name inner netns /proc/%d/fd/%d", os.Getpid(), s.file.Fd())); err != nil {
		return nil, nil, nil, err
	}
	for _, e := range []struct {
		ns           *namespace
		dev, v4, v6  string
		peer4, peer6 string
	}{{h, "outer", rivalHost4, rivalHost6, rival4, rival6}, {s, "inner", rival4, rival6, rivalHost4, rivalHost6}} {
		if err := e.ns.ip(ctx, "link set lo up", "link set "+e.dev+" up",
			"addr add "+e.v4+"/24 dev "+e.dev, "addr add "+e.v6+"/64 dev "+e.dev+" nodad",
			"route add default via "+e.peer4, "route add default via "+e.peer6,
			"route add "+e.peer4+" dev "+e.dev+" congctl "+b.cc, "route add "+e.peer6+" dev "+e.dev+" congctl "+b.cc); err != nil {
			return nil, nil, nil, err
		}
	}
	w := &world{}
	undo = append(undo, w.close)
	for _, a := range []string{rival4, rival6} {
		if err := w.server(ctx, s, b.self, "serve", a); err != nil {
			return nil, nil, nil, err
		}
	}
	return h, s, stop, nil
}

// inside pins the congestion control of a namespace that somebody else has made, and
// becomes the agent.
const inside = `for f in -4 -6; do ip $f route show | grep -v -e linkdown -e unreachable | sed "s, congctl .*,,; s, expires [^ ]*,,; s, pref .*,," | while read -r r; do ip $f route replace $r congctl "$1"; done; done; exec "$2" agent`

// tunFor is a shell that gives what it runs a /dev/net/tun of its own: the machine's
// may be for root alone, and stays as it is.
const tunFor = `d=$(mktemp -d) && mount -t tmpfs none "$d" && mknod -m 0666 "$d/tun" c 10 200 && mount --bind "$d/tun" /dev/net/tun && umount -l "$d" && rmdir "$d" && exec "$@"`

// rivalSide starts the agent on one side.
func (b *bench) rivalSide(ctx context.Context, h *namespace, which int, addr string) (s *side, stop func(), err error) {
	nothing := func() {}
	life := fmt.Sprint(int((grace + b.time*time.Duration(len(rows)) + 10*time.Second).Seconds()))
	switch rivalNames[which] {
	case "umrun -n nat":
		s, err = b.under(ctx, h, addr, "nat,cc="+b.cc)
		return s, nothing, err
	case "native":
		s, err = b.native(ctx, h, addr, 0)
		return s, nothing, err
	case "pasta":
		// As an ordinary user; as root it becomes one anyway. It ends with its program.
		s, err = b.side(ctx, h, addr, "unshare", "--mount", "sh", "-c", tunFor, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
			"timeout", "--kill-after=2", life, "pasta", "--quiet", "--foreground", "--config-net", "--no-map-gw", "--", "sh", "-c", inside, "sh", b.cc, b.self)
		if err == nil {
			s.worker = child(s.cmd.Process.Pid, "pasta")
		}
		return s, nothing, err
	}
	// slirp4netns serves the namespace of a process that waits for it.
	s = &side{addr: addr}
	dir, err := os.MkdirTemp("", "umrun-bench-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	up := filepath.Join(dir, "up")
	if s, err = b.sideOf(ctx, h, addr, "timeout", "--kill-after=2", life, "unshare", "--net", "sh", "-c", "until [ -e "+up+" ]; do sleep 0.02; done; until ip -6 route show default | grep -q via; do sleep 0.1; done; "+inside, "sh", b.cc, b.self); err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*side, func(), error) {
		end(s.cmd)
		return nil, nil, err
	}
	target, err := newChild(ctx, s.cmd.Process.Pid)
	if err != nil {
		return fail(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	cmd := exec.Command("timeout", "--kill-after=2", life, "slirp4netns", "--configure", "--enable-ipv6", "--mtu=65520", "--ready-fd=3", fmt.Sprint(target), "tap0")
	cmd.ExtraFiles = []*os.File{w}
	err = h.start(cmd)
	w.Close()
	if err != nil {
		return fail(err)
	}
	stop = func() { end(cmd) }
	r.SetReadDeadline(time.Now().Add(stepTime))
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		stop()
		return fail(fmt.Errorf("slirp4netns is not ready: %w", err))
	}
	if err := os.WriteFile(up, nil, 0o600); err != nil {
		stop()
		return fail(err)
	}
	if err := s.ready(ctx, b.cc); err != nil {
		stop()
		return fail(err)
	}
	s.worker = child(cmd.Process.Pid, "slirp4netns")
	return s, stop, nil
}

// newChild waits until a process that is becoming timeout(1) over unshare(1) has a
// namespace of its own, and returns the process that does.
func newChild(ctx context.Context, pid int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	for {
		if c := child(pid, "sh"); c != 0 {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c)); err == nil && ns != own {
				return c, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no namespace below process %d: %w", pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// child finds the process called name at pid or below, 0 if there is none.
func child(pid int, name string) int {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if strings.TrimSpace(string(comm)) == name || strings.HasPrefix(strings.TrimSpace(string(comm)), name+".") {
		return pid
	}
	below, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(below)) {
		var c int
		fmt.Sscan(f, &c)
		if c = child(c, name); c != 0 {
			return c
		}
	}
	return 0
}

// rivals prints sides, and the ratio of the first to the better of the others but the last.
func (r *report) rivals(addr string, sides []int, got [][][]sample) {
	fmt.Printf("\nnat beside its rivals, to %s\nmedian [min..max]; the ratio is the median of those to the better rival of each round\n", addr)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for _, k := range sides {
		fmt.Fprint(t, "\t"+rivalNames[k])
	}
	fmt.Fprintln(t, "\tratio\tCPU s/GB or ms/op")
	for i, row := range rows {
		fmt.Fprintf(t, "%s, %s", row.title, row.unit)
		values := make([][]float64, len(rivalNames))
		var costs []string
		for _, k := range sides {
			var cost []float64
			for _, s := range got[i][k] {
				values[k] = append(values[k], row.value(s))
				if row.unit == "Mb/s" {
					cost = append(cost, s.CPU/(float64(s.Bytes)/1e9))
				} else {
					cost = append(cost, s.CPU/float64(s.Ops)*1e3)
				}
			}
			fmt.Fprintf(t, "\t%s", spread(values[k]))
			costs = append(costs, fmt.Sprintf("%.2f", median(cost)))
		}
		var ratio []float64
		for j := range values[0] {
			best := 0.0
			for _, k := range sides[1 : len(sides)-1] {
				best = max(best, values[k][j])
			}
			ratio = append(ratio, values[0][j]/best)
		}
		fmt.Fprintf(t, "\t%s\t%s\n", spread(ratio), strings.Join(costs, " / "))
	}
	t.Flush()
}
