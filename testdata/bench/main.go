// SPDX-License-Identifier: Apache-2.0

// Bench measures umrun side by side with what it replaces, on this machine alone.
//
//	namespace u          namespace p                   namespace n
//	+----------------+   +-----------------------+   +------------------+
//	| umrun -n conf  |   | wireguard-go, TUN     |   | wireguard-go,TUN |
//	|   agent        |veth| 10.77.0.1 the server |veth|  10.77.0.3 agent |
//	|   10.77.0.2    |===|                       |===|                  |
//	+----------------+   +-----------------------+   +------------------+
//
// Both agents are the same program, this one, and talk to the same peer, which
// is not ours: wireguard-go on a kernel TUN. The native agent has the kernel's
// TCP/IP over a second wireguard-go of the same version. All three stacks are
// pinned to one congestion control, since the default differs from machine to
// machine. Samples come in pairs whose order is reversed each round; what counts
// is the median of the ratios within the pairs, since everything else moves with
// the load of the machine.
//
// umrun's side is measured with each of its stacks (-stacks): its own TCP/IP, and the
// kernel's in a namespace that umrun makes.
//
// Further rows hold the `nat` network against the host's loopback and against pasta and
// slirp4netns, devices against a veth, and two views on a vde_switch
// against TAPs on it; one table has each pair of stack and link beside what people have
// without umrun. The last tell what one trapped call, a page in a browser, a view of
// files, a start, and an idle view cost, and whether anything is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	umrun    string
	wg       string // wireguard-go; built if empty
	cc       string
	only     string
	stacks   string
	links    string
	rounds   int
	time     time.Duration // of one sample
	seq      int           // connects in sequence of the leak check
	many     int           // connections at a time of the data check
	deadline time.Duration
	quick    bool
	strict   bool
}

// floor is what umrun must reach of native in the rows that have a target; and
// kernelFloor, in those and in request/response, with the kernel's own stack.
const (
	floor       = 0.7
	kernelFloor = 0.95
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(agent(os.Args[2:]))
		case "serve":
			os.Exit(serve(os.Args[2:]))
		case "stopwatch":
			os.Exit(stopwatch(os.Args[2:]))
		case "bare":
			os.Exit(bare(os.Args[2:]))
		}
	}
	var o options
	flag.StringVar(&o.umrun, "umrun", "bin/umrun", "the program to measure")
	flag.StringVar(&o.wg, "wireguard-go", "", "the wireguard-go to compare with; built from go.mod's version if empty")
	flag.StringVar(&o.cc, "cc", "cubic", "congestion control of all stacks: cubic or reno")
	flag.StringVar(&o.only, "only", "", "rows to measure, comma separated ("+strings.Join(names(), ",")+")")
	flag.StringVar(&o.stacks, "stacks", "netstack,kernel", "stacks of umrun to measure over WireGuard, nat, devices, and in pairs, comma separated")
	flag.StringVar(&o.links, "links", "", "links of the row pairs, comma separated ("+strings.Join(linkNames, ",")+"); all if empty")
	flag.IntVar(&o.rounds, "rounds", 7, "pairs of samples")
	flag.DurationVar(&o.time, "time", 1200*time.Millisecond, "length of a sample")
	flag.IntVar(&o.seq, "connects", 10000, "connects in sequence of the leak check")
	flag.IntVar(&o.many, "concurrent", 1000, "connections at once of the data check")
	flag.DurationVar(&o.deadline, "deadline", 10*time.Minute, "longest time for all of it")
	flag.BoolVar(&o.quick, "quick", false, "one short sample of each: shows that it works, not how fast")
	flag.BoolVar(&o.strict, "strict", false, fmt.Sprintf("exit with 1 if a row is below its target of %g, or %g with stack=kernel", floor, kernelFloor))
	flag.Parse()
	if o.quick {
		o.rounds, o.time, o.seq, o.many = 1, 100*time.Millisecond, 300, 100
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.deadline)
	defer cancel()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if o.strict && !ok {
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	options
	self   string
	w      *world
	report report
}

// wants reports whether a row was asked for.
func (b *bench) wants(row string) bool { return listed(b.only, row) }

// listed reports whether a list that is separated by commas has a word; an empty one has all.
func listed(list, word string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), word)
}

// checkList says which word of a list there is not.
func checkList(flag, list string, known []string) error {
	for word := range strings.SplitSeq(list, ",") {
		if list != "" && !slices.Contains(known, word) {
			return fmt.Errorf("-%s %s: there is none of that name, but %s", flag, word, strings.Join(known, ", "))
		}
	}
	return nil
}

func run(ctx context.Context, o options) (ok bool, err error) {
	if err := errors.Join(checkList("only", o.only, names()), checkList("links", o.links, linkNames), checkList("stacks", o.stacks, stackNames)); err != nil {
		return false, err
	}
	if os.Getuid() != 0 {
		return false, errors.New("must be root: the side to compare with needs network namespaces and TUN devices\n  try: sudo make bench")
	}
	if o.umrun, err = filepath.Abs(o.umrun); err != nil {
		return false, err
	}
	if _, err := os.Stat(o.umrun); err != nil {
		return false, fmt.Errorf("%w\n  try: make build", err)
	}
	b := &bench{options: o}
	if b.self, err = os.Executable(); err != nil {
		return false, err
	}
	if b.w, err = newWorld(ctx, b.self, o); err != nil {
		return false, err
	}
	defer b.w.close()
	b.report.head(o)

	if err := b.tunnels(ctx); err != nil {
		return false, err
	}
	for _, part := range parts {
		if !b.wants(part.row) {
			continue
		}
		if err := part.do(b, ctx); err != nil {
			return false, fmt.Errorf("%s: %w", part.row, err)
		}
	}
	return b.report.ok, nil
}

// A row is one kind of sample that is taken on both sides.
type row struct {
	name   string // of -only
	title  string
	unit   string
	target float64 // what umrun must reach of native; 0: none
	value  func(sample) float64
}

func mbps(s sample) float64   { return float64(s.Bytes) * 8 / 1e6 / s.Seconds }
func perSec(s sample) float64 { return float64(s.Ops) / s.Seconds }

// rows are the samples of a tunnel.
var rows = []row{
	{"up", "bulk up", "Mb/s", floor, mbps},
	{"down", "bulk down", "Mb/s", floor, mbps},
	{"crr", "connect/request/close", "/s", floor, perSec},
	{"crrgo", "same by Go's net", "/s", 0, perSec},
	{"rr", "request/response, 1 B", "/s", 0, perSec},
	{"udp", "UDP flood, delivered", "/s", 0, perSec},
}

// parts are the further rows.
var parts = []struct {
	row string // of -only
	do  func(*bench, context.Context) error
}{
	{"nat", (*bench).nat}, {"devices", (*bench).devices}, {"rivals", (*bench).rivals}, {"vde", (*bench).vde}, {"pairs", (*bench).everyPair},
	{"calls", (*bench).calls}, {"page", (*bench).page}, {"files", (*bench).files}, {"start", (*bench).start}, {"idle", (*bench).idle}, {"leak", (*bench).leak},
}

// names are those of all rows.
func names() []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.name)
	}
	for _, p := range parts {
		all = append(all, p.row)
	}
	return all
}

// tunnels measures WireGuard: umrun against the kernel's stack.
func (b *bench) tunnels(ctx context.Context) error {
	var todo []row
	for _, r := range rows {
		if b.wants(r.name) {
			todo = append(todo, r)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	for stack := range strings.SplitSeq(b.stacks, ",") {
		todo := slices.Clone(todo)
		if stack == "kernel" {
			for i, r := range todo {
				if r.target != 0 || r.name == "rr" {
					todo[i].target = kernelFloor
				}
			}
		}
		conf := b.w.conf + ",cc=" + b.cc + ",stack=" + stack
		err := b.pairs(ctx, "WireGuard, stack="+stack+": umrun / wireguard-go on a kernel TUN", todo,
			func() (*side, error) { return b.under(ctx, b.w.u, peerAddr, conf) },
			func() (*side, error) { return b.native(ctx, b.w.n, peerAddr, b.w.wgN) })
		if err != nil {
			return err
		}
	}
	return nil
}

// nat measures `-n nat` against the loopback that it leads to.
func (b *bench) nat(ctx context.Context) error {
	todo := []row{rows[0], rows[1], rows[2], rows[4]}
	for i := range todo {
		todo[i].target = 0
	}
	for stack := range strings.SplitSeq(b.stacks, ",") {
		err := b.pairs(ctx, "nat, stack="+stack+": umrun -n nat / the host's loopback", todo,
			func() (*side, error) {
				return b.under(ctx, b.w.u, "10.0.2.2", "nat,host-loopback,cc="+b.cc+",stack="+stack)
			},
			func() (*side, error) { return b.native(ctx, b.w.u, "127.0.0.1", 0) })
		if err != nil {
			return err
		}
	}
	return nil
}

// pairs takes samples in pairs and reports them.
func (b *bench) pairs(ctx context.Context, title string, todo []row, open ...func() (*side, error)) error {
	got, err := b.inPairs(ctx, todo, open...)
	if err == nil {
		b.report.pairs(title, todo, got)
	}
	return err
}

// inPairs takes samples of both sides, umrun's first. The sides start anew each round.
func (b *bench) inPairs(ctx context.Context, todo []row, open ...func() (*side, error)) ([][2][]sample, error) {
	got := make([][2][]sample, len(todo))
	for round := range b.rounds {
		var sides [2]*side
		for i, f := range open {
			s, err := f()
			if err != nil {
				return nil, err
			}
			sides[i] = s
		}
		for i, r := range todo {
			for k := range 2 {
				which := (k + round) % 2
				s, err := sides[which].measure(ctx, r.name, b.time)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", r.title, [2]string{"umrun", "native"}[which], err)
				}
				got[i][which] = append(got[i][which], s)
			}
		}
		for _, s := range sides {
			if err := s.close(); err != nil {
				return nil, err
			}
		}
	}
	return got, nil
}
