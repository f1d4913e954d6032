// SPDX-License-Identifier: Apache-2.0

// The table of programs: each in a view as an ordinary user, against a native
// counterpart behind the peer. A run of make programs does all of it and writes
// docs/programs.md; make test does what is quick.

package viewtest_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"golang.org/x/sys/unix"
)

// A program is one of the table.
type program struct {
	name    string
	version []string // a command that prints it
	needs   []string // commands besides
	steps   []step
}

// A step is a line of the table.
type step struct {
	name string
	did  string // what is done and checked, for the table
	gaps string // what does not work in it and is left out, for the table
	// quick steps run in make test too; those that exist there as a test of
	// their own do not.
	quick bool
	// fails says why the step is known to fail: then it must.
	fails string
	do    func(x *try)
}

// programs are all of them, in the order of the table.
func programs() []program {
	var all []program
	for _, list := range [][]program{fetchers, shells, pipes, servers, databases, languages, diagnostics, browsers} {
		all = append(all, list...)
	}
	return all
}

// TestPrograms runs the quick steps or, with UMRUN_PROGRAMS=FILE, every step,
// and writes the table into FILE. Lines of steps that were not asked for stay as
// they are there. With LAB_NATIVE=1 the programs run over the kernel's stack instead: what fails there too is the
// laboratory's fault.
func TestPrograms(t *testing.T) {
	file := os.Getenv("UMRUN_PROGRAMS")
	var rows []row
	for _, p := range programs() {
		var due []step
		for _, s := range p.steps {
			if s.quick && s.fails == "" || file != "" {
				due = append(due, s)
			}
		}
		if len(due) == 0 {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			viewtest.Need(t, p.needs...)
			version := p.read(t)
			for _, s := range due {
				t.Run(s.name, func(t *testing.T) {
					start := time.Now()
					x := &try{TB: t, fails: s.fails}
					// Deferred: a step that fails does not return.
					defer func() { rows = append(rows, row{p.name, version, s, x.failure, time.Since(start)}) }()
					x.begin()
					s.do(x)
					x.w.NoStrays(x)
					if x.fails != "" && x.failure == "" {
						t.Errorf("is listed as failing, and works: %s", s.fails)
					}
				})
			}
		})
	}
	switch {
	case file == "":
	case os.Getenv("LAB_NATIVE") != "":
		t.Logf("the programs ran natively: the table is left as it is")
	default:
		old, _ := os.ReadFile(file) // none is fine
		if err := os.WriteFile(file, []byte(table(rows, string(old))), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// number finds a version in what a program says of itself, date that of one
// which has no other.
var (
	number = regexp.MustCompile(`\d+(\.\d+)+[-+~.\w]*`)
	date   = regexp.MustCompile(`\b\d{8}\b`)
)

func (p program) read(t testing.TB) string {
	if len(p.version) == 0 {
		return "-"
	}
	viewtest.Need(t, p.version[0])
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// Some print it on stderr, and some exit with 1 then.
	out, err := exec.CommandContext(ctx, p.version[0], p.version[1:]...).CombinedOutput()
	v := number.FindString(string(out))
	if v == "" {
		v = date.FindString(string(out))
	}
	if v == "" {
		t.Errorf("no version in what %v says: %s%v", p.version, out, err)
	}
	return v
}

// A row is what became of a step.
type row struct {
	program, version string
	step
	failure string
	took    time.Duration
}

// line is the row in the table.
func (r row) line() string {
	result, gaps := "passes", r.gaps
	switch {
	case r.failure != "" && r.fails != "":
		result = "**fails**: " + r.fails
	case r.failure != "":
		result = "**fails**: " + r.failure
	}
	if gaps == "" {
		gaps = "none known"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", r.program, r.version, r.did, cell(result), gaps, time.Now().Format(time.DateOnly))
}

// key is what the lines of one step have in common, whenever they were written.
func key(program, did string) string { return program + "|" + did }

// table is docs/programs.md: the new rows, and the lines of the old file for what
// did not run, if they are from a machine of the same kind.
func table(rows []row, old string) string {
	var u unix.Utsname
	unix.Uname(&u)
	machine := fmt.Sprintf("Linux %s %s, %s, %d CPUs", unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, distribution(), runtime.NumCPU())
	lines := map[string]string{}
	if strings.Contains(old, machine) {
		for _, l := range strings.Split(old, "\n") {
			if c := strings.Split(l, " | "); len(c) == 6 {
				lines[key(strings.TrimPrefix(c[0], "| "), c[2])] = l
			}
		}
	}
	for _, r := range rows {
		lines[key(r.program, r.did)] = r.line()
	}
	good, all := 0, 0
	var body strings.Builder
	for _, p := range programs() {
		for _, s := range p.steps {
			l := lines[key(p.name, s.did)]
			if l == "" {
				l = fmt.Sprintf("| %s | - | %s | not run | - | - |", p.name, s.did)
			}
			all++
			if strings.Contains(l, " | passes | ") {
				good++
			}
			fmt.Fprintln(&body, l)
		}
	}
	return fmt.Sprintf(`# Programs in a view

Written by `+"`make programs`"+`, which does what each line says: %s. %d of %d lines pass.

Each program ran as an ordinary user under umrun, with its network in a WireGuard tunnel. The other end was wireguard-go on
a kernel TUN device, in a network namespace of its own, and behind it the counterpart, which ran natively. "Client" and
"server" say what was in the view. Results were checked, exit statuses too, and in no line a packet left the host beside the
tunnel. `+"`LAB_NATIVE=1 make programs`"+` does the same over the kernel's stack, to tell the laboratory's mistakes from umrun's. The
steps are in view/viewtest/programs_*_test.go.

| Program | Version | What was done | Result | Gaps | Date |
|---|---|---|---|---|---|
%s`, machine, good, all, body.String())
}

// cell makes one short line of a message.
func cell(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 200 {
		line = line[:200] + " ..."
	}
	return strings.ReplaceAll(line, "|", "/")
}

// distribution is the name of the system that the programs came from.
func distribution() string {
	b, _ := os.ReadFile("/etc/os-release")
	if m := regexp.MustCompile(`(?m)^PRETTY_NAME="?([^"\n]*)`).FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return "unknown distribution"
}

// A try is one step under way, in a world of its own. It is a testing.TB that
// remembers the first failure, for the table.
type try struct {
	testing.TB
	w      *viewtest.World
	p      *viewtest.Peer
	me     *viewtest.Client // whose addresses the view has
	native *viewtest.NS     // in place of the view, or nil

	fails   string
	failure string
}

func (x *try) begin() {
	x.w = viewtest.New(x)
	x.p = x.w.Peers[0]
	x.me = x.p.Client(x)
	if os.Getenv("LAB_NATIVE") != "" {
		x.native, x.fails = x.p.Native(x), "" // umrun's failures
		x.me.IP4, x.me.IP6 = netip.MustParseAddr("10.77.0.4"), netip.MustParseAddr("fd77::4")
		// The peer learns where the tunnel's other end is when that speaks.
		x.native.MustRun(x, words("ping -q -c1 -W5 10.77.0.1")...)
	}
}

// note keeps the first failure. It is none of the test where the step is known
// to fail.
func (x *try) note(message string) {
	x.Helper()
	if x.failure == "" {
		x.failure = strings.TrimSpace(message)
	}
	if x.fails != "" {
		x.Log(message)
		return
	}
	x.TB.Error(message)
}

func (x *try) stop() {
	if x.fails != "" {
		x.SkipNow()
	}
	x.FailNow()
}

func (x *try) Error(args ...any)                 { x.Helper(); x.note(fmt.Sprintln(args...)) }
func (x *try) Errorf(format string, args ...any) { x.Helper(); x.note(fmt.Sprintf(format, args...)) }
func (x *try) Fatal(args ...any)                 { x.Helper(); x.note(fmt.Sprintln(args...)); x.stop() }
func (x *try) Fatalf(format string, args ...any) {
	x.Helper()
	x.note(fmt.Sprintf(format, args...))
	x.stop()
}

// view prepares a command in a view: one at a time for a step, or the second
// takes the tunnel from the first. The words of fill are replaced.
func (x *try) view(args ...string) *viewtest.Cmd {
	x.Helper()
	args = x.fill(args)
	if x.native != nil {
		ctx, cancel := context.WithTimeout(x.Context(), x.w.Patience)
		x.Cleanup(cancel)
		return x.native.Command(ctx, args...).AsUser(x.w.Home())
	}
	return x.w.Umrun(x, x.me.Conf, args...)
}

// peer prepares a command behind the peer, as the same ordinary user.
func (x *try) peer(args ...string) *viewtest.Cmd {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), x.w.Patience)
	x.Cleanup(cancel)
	return x.p.Cmd(ctx, x.fill(args)...).AsUser(x.w.Home())
}

// here prepares a command that has nothing to do with the network.
func (x *try) here(args ...string) *viewtest.Cmd {
	return x.w.HostCmd(x.Context(), x.fill(args)...).AsUser(x.w.Home())
}

// fill replaces {self4} and {self6}, the addresses of the view; {home}; {ca},
// the certificate of the peer's web server; {big}, a file that everyone may
// read, and {bigsum}, its SHA-256.
func (x *try) fill(args []string) []string {
	r := strings.NewReplacer("{self4}", x.me.IP4.String(), "{self6}", x.me.IP6.String(), "{home}", x.w.Home(),
		"{ca}", x.p.CA(), "{big}", filepath.Join(x.w.Dir(), "peer0", "www", "big.bin"), "{bigsum}", viewtest.BigSum())
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = r.Replace(a)
	}
	return out
}

// ok runs a command that has to exit with 0, and returns its stdout.
func (x *try) ok(c *viewtest.Cmd) string {
	x.Helper()
	r := c.Result()
	if r.Status != 0 {
		x.Fatalf("%s exits with %d: %v", r.Args[0], r.Status, r)
	}
	return r.Stdout
}

// in sets the environment and the input of a command.
func in(c *viewtest.Cmd, input string, env ...string) *viewtest.Cmd {
	c.Stdin = strings.NewReader(input)
	c.Env = append(c.Env, env...)
	return c
}

// want compares what a command printed.
func (x *try) want(got, want string) {
	x.Helper()
	if !matches(got, x.fill([]string{want})[0]) {
		x.Errorf("got %q, want %q", got, want)
	}
}

// serve starts a server in the view and waits until the port answers the peer
// on both addresses of the view.
func (x *try) serve(port int, c *viewtest.Cmd) *viewtest.Cmd {
	x.Helper()
	return x.up(c, hostport(x.me.IP4, port), hostport(x.me.IP6, port))
}

// answer starts a server behind the peer, and waits for it.
func (x *try) answer(port int, c *viewtest.Cmd) *viewtest.Cmd {
	x.Helper()
	return x.up(c, hostport(viewtest.PeerIP4, port))
}

// said starts a command and waits until it says a word, for a server that
// listens on no TCP port.
func (x *try) said(c *viewtest.Cmd, word string) *viewtest.Cmd {
	x.Helper()
	start(x, c)
	viewtest.Eventually(x, 30*time.Second, func() error {
		if !strings.Contains(c.Output(), word) {
			return fmt.Errorf("%s does not say %q: %s", c.Args[0], word, c.Errors())
		}
		return nil
	})
	return c
}

func (x *try) up(c *viewtest.Cmd, at ...string) *viewtest.Cmd {
	x.Helper()
	start(x, c)
	for _, a := range at {
		viewtest.Eventually(x, 30*time.Second, func() error {
			conn, err := x.p.DialContext(x.Context(), "tcp", a)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	return c
}

// file writes a file of the ordinary user into the home directory.
func (x *try) file(name, content string) string {
	x.Helper()
	path := x.w.Home() + "/" + name
	if err := os.WriteFile(path, []byte(x.fill([]string{content})[0]), 0o644); err != nil {
		x.Fatal(err)
	}
	if err := os.Chown(path, viewtest.UID, viewtest.GID); err != nil {
		x.Fatal(err)
	}
	return path
}

// same runs the entries of the table of clients whose names begin so.
func same(prefix string) func(x *try) {
	return func(x *try) {
		id := identity(x, x.w)
		up := tunnel
		if x.native != nil {
			up = natively
		}
		next := up.open(x, x.p)
		ran := 0
		for _, c := range clients {
			if c.name == prefix || strings.HasPrefix(c.name, prefix+"-") {
				ran++
				c.run(x, x.p, next(x), id)
			}
		}
		if ran == 0 {
			x.Fatalf("no client is called %s", prefix)
		}
	}
}

// whole runs a test of make test, which makes its own world.
func whole(name string, test func(*testing.T)) func(x *try) {
	return func(x *try) {
		if !x.TB.(*testing.T).Run(name, test) {
			x.Errorf("%s failed", name)
		}
	}
}
