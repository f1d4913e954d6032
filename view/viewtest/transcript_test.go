// SPDX-License-Identifier: Apache-2.0

// Transcripts: target programs whose every line must be the same over the
// kernel's stack in a namespace and under umrun. A program runs many cases, each
// marked by begin of testdata/targets/lab.h; a case is a subtest. What still
// differs is listed in differences_test.go, with its reason; a listed difference
// that is gone fails too.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// capable are programs that natively run as an ordinary user with CAP_NET_RAW, as
// ping does where it has that from its file: it is all that raw and packet sockets
// take.
var capable []string

// privileged are programs that natively run as root of the namespace, for what
// the kernel reserves (raw and packet sockets, changes by netlink). Under umrun
// they are an ordinary user's like all others. Other files add to both lists.
var privileged []string

// transcripts are the programs of testdata/targets with their arguments.
var transcripts = []string{
	"connect outcomes", "connect arguments tcp4", "connect arguments tcp6", "connect arguments udp4", "connect arguments udp6",
	"connect sndtimeo", "connect syncnt", "connect bound",
	"stream ends 4", "stream ends 6", "stream resets 4", "stream resets 6", "stream flags 4", "stream flags 6",
	"stream data 4", "stream data 6", "stream stuck 4",
	"listen accept4", "listen accept6", "listen wrong4", "listen wrong6", "listen dual", "listen forked",
	"udp unconnected 4", "udp unconnected 6", "udp connected 4", "udp connected 6", "udp messages 4", "udp messages 6", "udp local 4", "udp local 6",
	"options tcp4", "options tcp6", "options udp4", "options udp6", "options connected4", "options connected6", "options sockets",
	"ping", "strangers 4", "strangers 6", "pass dup 4", "pass fork 4", "pass rights 4", "pass threads 4", "pass dup 6",
	"badptr",
	"errors 4", "errors 6", "tcperr 4", "tcperr 6", "diag 4", "diag 6", "paths 4", "paths 6", "segment 4", "segment 6", "stamps 4", "stamps 6",
	"signals eintr", "signals restart", "signals storm", "signals stop",
}

func init() {
	for _, mode := range []string{"epoll-lt", "epoll-et", "poll", "select"} {
		for _, what := range []string{"accepted", "refused", "reset", "timeout", "unreachable", "pending"} {
			for _, six := range []string{"4", "6"} {
				if six == "6" && what == "timeout" {
					continue // three seconds each
				}
				transcripts = append(transcripts, fmt.Sprintf("ready %s %s %s", mode, what, six))
			}
		}
	}
}

// labEnv tells a target where things are.
func labEnv(ip4, ip6 string) []string {
	return []string{
		"LAB_SELF4=" + ip4, "LAB_SELF6=" + ip6,
		"LAB_PEER4=" + viewtest.PeerIP4.String(), "LAB_PEER6=" + viewtest.PeerIP6.String(),
		"LAB_OTHER4=" + viewtest.OtherIP4.String(), "LAB_OTHER6=" + viewtest.OtherIP6.String(),
		"LAB_UNREACH4=" + viewtest.UnreachableIP4.String(), "LAB_UNREACH6=" + viewtest.UnreachableIP6.String(),
		"LAB_PROHIBIT4=" + viewtest.ProhibitedIP4.String(), "LAB_PROHIBIT6=" + viewtest.ProhibitedIP6.String(),
		"LAB_BLACKHOLE4=" + viewtest.BlackholeIP4.String(), "LAB_BLACKHOLE6=" + viewtest.BlackholeIP6.String(),
		"LAB_FIRST4=" + viewtest.FirstIP4.String(), "LAB_FIRST6=" + viewtest.FirstIP6.String(),
		"LAB_FAR4=" + viewtest.FarIP4.String(), "LAB_FAR6=" + viewtest.FarIP6.String(),
		"LAB_GONE4=" + viewtest.GoneIP4.String(), "LAB_GONE6=" + viewtest.GoneIP6.String(),
	}
}

// TestIntegrationTranscripts runs every program natively and under umrun, and
// compares case by case. LAB_CASE is a pattern of path.Match for one of them, to
// look at it by hand: of a program ('ready epoll-et *') or of cases ('udp/ttl-*').
func TestIntegrationTranscripts(t *testing.T) {
	transcribe(t, "", differences, slices.Concat(transcripts, capable, privileged))
}

// kernelTranscripts are those that make test runs on a kernel stack, of which there
// is less to show: the sockets are the kernel's. make conform runs all.
var kernelTranscripts = []string{
	"connect outcomes", "connect bound", "stream flags 4", "listen dual", "listen accept6", "udp unconnected 4", "udp local 6",
	"options connected4", "options sockets", "ping", "pass rights 4", "badptr", "errors 4", "paths 6", "segment 4", "signals restart",
	"ready epoll-et accepted 4", "ready poll refused 6",
}

// TestIntegrationTranscriptsKernel is TestIntegrationTranscripts with stack=kernel.
func TestIntegrationTranscriptsKernel(t *testing.T) {
	lines := kernelTranscripts
	if os.Getenv("LAB_CONFORM") != "" || os.Getenv("LAB_CASE") != "" {
		lines = slices.Concat(transcripts, capable, privileged)
	}
	transcribe(t, ",stack=kernel,cc=reno,sndbuf=4M,rcvbuf=16M", kernelDifferences, lines)
}

// mountsFlags make a view with files of umrun's own, where it makes the calls that name a
// socket itself.
var mountsFlags = []string{"--fs-engine", "trap", "-m", "hide:/mnt"}

// TestIntegrationTranscriptsMounts is TestIntegrationTranscripts in such a view.
func TestIntegrationTranscriptsMounts(t *testing.T) {
	lines := mountsTranscripts
	if os.Getenv("LAB_CONFORM") != "" || os.Getenv("LAB_CASE") != "" {
		lines = slices.Concat(transcripts, capable, privileged)
	}
	transcribe(t, "", differences, lines, mountsFlags...)
}

// TestIntegrationTranscriptsKernelMounts is TestIntegrationTranscriptsKernel in such a view.
func TestIntegrationTranscriptsKernelMounts(t *testing.T) {
	lines := kernelTranscripts
	if os.Getenv("LAB_CONFORM") != "" || os.Getenv("LAB_CASE") != "" {
		lines = slices.Concat(transcripts, capable, privileged)
	}
	transcribe(t, ",stack=kernel,cc=reno,sndbuf=4M,rcvbuf=16M", kernelDifferences, lines, mountsFlags...)
}

// mountsTranscripts are those that make test runs with mounts on umrun's own stack: what sends
// messages.
var mountsTranscripts = []string{
	"stream flags 4", "stream data 4", "stream stuck 4", "tcpmsg 4", "pass rights 4", "strangers 4", "badptr", "udp messages 4", "signals restart",
}

// severalTranscripts are those that make test runs with a second network: what chooses
// networks, and what endpoints on two of them could do otherwise. make conform runs all.
var severalTranscripts = []string{
	"connect outcomes", "connect bound", "bind tcp", "bind udp", "listen dual", "udp unconnected 4", "udp local 6",
	"ping", "options sockets", "scope udp",
}

// TestIntegrationTranscriptsSeveral is TestIntegrationTranscripts beside another network.
func TestIntegrationTranscriptsSeveral(t *testing.T) {
	lines := severalTranscripts
	if os.Getenv("LAB_CONFORM") != "" || os.Getenv("LAB_CASE") != "" {
		lines = slices.Concat(transcripts, capable, privileged)
	}
	transcribe(t, "", differences, lines, "-n", "other=none")
}

// TestIntegrationTranscriptsSecond is the same with the other network first, as all that
// no rule is about goes to that.
func TestIntegrationTranscriptsSecond(t *testing.T) {
	lines := severalTranscripts
	if os.Getenv("LAB_CONFORM") != "" || os.Getenv("LAB_CASE") != "" {
		lines = slices.Concat(transcripts, capable, privileged)
	}
	transcribe(t, "", slices.Concat(differences, secondDifferences), lines, "-n", "other=none", "-n", second,
		"--route", "0.0.0.0/0=wg", "--route", "255.255.255.255=wg", "--route", "224.0.0.0/4=wg", "--route", "::/0=wg", "--route", "ff00::/8=wg")
}

// second stands in the flags for the network with the peer, which else is the first.
const second = "NETWORK"

// transcribe runs programs, under umrun with keys added to the network, and flags.
func transcribe(t *testing.T, keys string, differences []difference, lines []string, flags ...string) {
	viewtest.Need(t, "gcc")
	x := &transcriber{w: viewtest.New(t), keys: keys, flags: flags, differences: differences, met: map[int]bool{}, only: os.Getenv("LAB_CASE"), seen: map[string]string{}, used: map[int]bool{}}
	if keys != "" {
		x.apart = kernelApart
	} else if slices.Contains(flags, second) {
		x.apart = secondApart
	}
	x.native = x.w.Peers[0].Native(t)
	// What every kernel can have, whatever this one has.
	if err := x.native.Sysctl("net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_wmem=4096 16384 4194304",
		"net.ipv4.tcp_rmem=4096 131072 16777216"); err != nil {
		t.Fatal(err)
	}
	x.w.Peers[0].Routers(t)
	for _, line := range lines {
		if x.wanted(line) {
			t.Run(strings.ReplaceAll(line, " ", "-"), func(t *testing.T) { x.run(t, line) })
		}
	}
	x.w.NoStrays(t)
	all := len(lines) == len(transcripts)+len(capable)+len(privileged)
	if x.only == "" && all && len(x.seen) < leastCases {
		t.Errorf("%d cases: some are lost", len(x.seen))
	}
	if x.only == "" && all && !t.Failed() {
		for i, d := range differences {
			if !x.used[i] && !d.sometimes {
				t.Errorf("listed, but no longer a difference: %+v", d)
			}
		}
		for i, d := range x.apart {
			if !x.met[i] && !d.sometimes {
				t.Errorf("not compared, but without a difference: %+v", d)
			}
		}
	}
	// For testdata/testsum, which shows it in its summary.
	stack := ""
	if keys != "" {
		stack = " with stack=kernel"
	} else if len(flags) > 0 {
		stack = " with " + strings.Join(flags, " ")
	}
	fmt.Printf("conformance: %d cases%s, %d with listed differences, %d failed\n", len(x.seen), stack, x.differ, x.failed)
}

// leastCases is how many cases there must be, beside those of the walk over the
// options: fewer mean that a program is no longer run.
const leastCases = 900

// A transcriber compares programs and keeps the count.
type transcriber struct {
	w      *viewtest.World
	native *viewtest.NS
	only   string // LAB_CASE

	keys        string // of the network, beside the file
	flags       []string
	differences []difference
	apart       []difference // cases that are not compared
	met         map[int]bool // of these, those that do differ

	seen   map[string]string // the program of a case, by the case's name
	used   map[int]bool      // listed differences that were met
	differ int               // cases with listed differences
	failed int               // cases, or programs that did not come to their end
}

// wanted tells whether LAB_CASE selects a program, or cases that may be its.
func (x *transcriber) wanted(line string) bool {
	pattern, name := x.only, line
	if program, _, ok := strings.Cut(x.only, "/"); ok {
		pattern, name = program, strings.Fields(line)[0]
	}
	ok, _ := path.Match(pattern, name)
	return ok || x.only == ""
}

// run compares the cases of one program.
func (x *transcriber) run(t *testing.T, line string) {
	failed := x.failed
	defer func() {
		if t.Failed() && x.failed == failed {
			x.failed++ // not a case, but the program
		}
	}()
	words := strings.Fields(line)
	words[0] = viewtest.Target(t, words[0], viewtest.Dynamic)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()

	// Both at once: most of the time of either is waiting.
	c := x.native.Command(ctx, words...)
	switch {
	case x.keys != "": // who is in a namespace of its own is its administrator
	case slices.Contains(capable, line):
		c = c.AsUser(x.w.Home()).Capable(unix.CAP_NET_RAW)
	case !slices.Contains(privileged, line):
		c = c.AsUser(x.w.Home())
	}
	c.Env = append(c.Env, labEnv("10.77.0.4", "fd77::4")...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	client := x.w.Peers[0].Client(t)
	nets := slices.Clone(x.flags)
	if i := slices.Index(nets, second); i >= 0 {
		nets[i] = client.Conf
	} else {
		nets = slices.Concat([]string{"-n", client.Conf + x.keys}, nets)
	}
	u := x.w.UmrunFlags(t, slices.Concat(nets, []string{"--"}, words)...).AsUser(x.w.Home())
	u.Env = append(u.Env, labEnv(client.IP4.String(), client.IP6.String())...)
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	defer u.Stop()
	want := c.Result()
	if want.Status != 0 || strings.Contains(want.Stdout, "WRONG") || strings.Contains(want.Stdout, "cannot go on") {
		t.Fatalf("natively: %v", want)
	}
	got := u.Result()
	if got.Status != 0 {
		t.Errorf("under umrun: %v", got)
	}
	natively, err := cases(line, want.Stdout)
	if err != nil {
		t.Fatalf("natively: %v", err)
	}
	under, err := cases(line, got.Stdout)
	if err != nil {
		t.Errorf("under umrun: %v", err)
	}
	for _, name := range union(natively, under) {
		if ok, _ := path.Match(x.only, name); !ok && strings.Contains(x.only, "/") {
			continue
		}
		if other, ok := x.seen[name]; ok {
			t.Errorf("the case %s is in %q too", name, other)
		}
		x.seen[name] = line
		if !t.Run(name, func(t *testing.T) { x.compare(t, name, natively, under) }) {
			x.failed++
		}
	}
}

// compare holds the transcripts of one case against each other, line by line.
func (x *transcriber) compare(t *testing.T, name string, natively, under []transcript) {
	want, ok := find(natively, name)
	if !ok {
		t.Fatalf("only under umrun")
	}
	if testing.Verbose() && x.only != "" {
		t.Logf("natively:\n%s", strings.Join(want, "\n"))
	}
	got, ok := find(under, name)
	if !ok {
		t.Fatalf("not reached under umrun")
	}
	for i, d := range x.apart {
		if alike(d.where, name) {
			if !slices.Equal(want, got) {
				x.met[i] = true
				x.differ++
			}
			return
		}
	}
	if x.keys == "" {
		want = promised(name, want, got)
	}
	if len(want) != len(got) {
		t.Fatalf("natively %d lines, under umrun %d (-native +umrun):\n%s", len(want), len(got), cmp.Diff(want, got))
	}
	differs := false
	for i := range want {
		switch {
		case want[i] == got[i]:
		case x.listed(name, want[i], got[i]):
			differs = true
		default:
			t.Errorf("line %d\n  native %s\n  umrun  %s", i+1, want[i], got[i])
		}
	}
	if differs {
		x.differ++
	}
}

// A transcript is what one case printed.
type transcript struct {
	name  string
	lines []string
}

// cases splits a program's output at its marks. Lines before the first mark are
// a case that is named as the command line.
func cases(line, output string) ([]transcript, error) {
	program, args, _ := strings.Cut(line, " ")
	first := program
	if args != "" {
		first += "/" + strings.ReplaceAll(args, " ", "-")
	}
	var all []transcript
	for l := range strings.Lines(output) {
		l = strings.TrimSuffix(l, "\n")
		name, ok := strings.CutPrefix(l, "== ")
		if !ok && len(all) == 0 {
			all = append(all, transcript{name: first})
		}
		if !ok {
			last := &all[len(all)-1]
			last.lines = append(last.lines, l)
			continue
		}
		if !caseName.MatchString(name) || !strings.HasPrefix(name, program+"/") {
			return nil, fmt.Errorf("the case %q is not named %s/WHAT", name, program)
		}
		if _, twice := find(all, name); twice {
			return nil, fmt.Errorf("the case %s is there twice", name)
		}
		all = append(all, transcript{name: name})
	}
	return all, nil
}

var caseName = regexp.MustCompile(`^[a-z0-9]+/[A-Za-z0-9._-]+$`)

func find(all []transcript, name string) ([]string, bool) {
	i := slices.IndexFunc(all, func(c transcript) bool { return c.name == name })
	if i < 0 {
		return nil, false
	}
	return all[i].lines, true
}

// union is the names of both, in the order of the first.
func union(natively, under []transcript) (names []string) {
	for _, c := range natively {
		names = append(names, c.name)
	}
	for _, c := range under {
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

// TestCases: how an output is split.
func TestCases(t *testing.T) {
	for _, tc := range []struct {
		name, line, output string
		want               []transcript
		bad                bool
	}{
		{name: "no marks", line: "udp local 4", output: "a\nb\n", want: []transcript{{"udp/local-4", []string{"a", "b"}}}},
		{name: "no arguments", line: "ping", output: "a\n", want: []transcript{{"ping", []string{"a"}}}},
		{name: "marks only", line: "udp x", output: "== udp/a\n1\n== udp/b-6\n2\n3\n",
			want: []transcript{{"udp/a", []string{"1"}}, {"udp/b-6", []string{"2", "3"}}}},
		{name: "a line before", line: "udp x", output: "0\n== udp/a\n", want: []transcript{{"udp/x", []string{"0"}}, {"udp/a", nil}}},
		{name: "a mark as the command line", line: "udp x", output: "== udp/x\n1\n", want: []transcript{{"udp/x", []string{"1"}}}},
		{name: "nothing", line: "udp x"},
		{name: "another program's", line: "udp x", output: "== tcp/a\n", bad: true},
		{name: "a space", line: "udp x", output: "== udp/a b\n", bad: true},
		{name: "no name", line: "udp x", output: "== udp/\n", bad: true},
		{name: "twice", line: "udp x", output: "== udp/a\n== udp/a\n", bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := cases(tc.line, tc.output)
			if (err != nil) != tc.bad {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(transcript{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// alike tells whether s is the pattern, or matches it as path.Match says.
func alike(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return pattern == s || err == nil && ok
}

func (x *transcriber) listed(name, native, umrun string) bool {
	for i, d := range x.differences {
		if alike(d.where, name) && alike(d.native, native) && alike(d.umrun, umrun) {
			x.used[i] = true
			return true
		}
	}
	return false
}
