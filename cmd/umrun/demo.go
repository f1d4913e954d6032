// SPDX-License-Identifier: Apache-2.0

// umrun demo: the main job on this machine alone.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"umrun/stacks/wg"
	"umrun/view"
	"umrun/view/demo"
)

const (
	demoPeer = "__demo-peer" // the command of the second process
	demoTime = 50 * time.Second
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "show the main job on this machine alone",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, demoTime)
			defer cancel()
			d := demonstration{out: c.OutOrStdout()}
			defer d.close()
			return d.run(ctx)
		},
	}
}

// newDemoPeer is the far end: it reads the client's public key and the page's port
// from stdin, writes its own key and UDP port to stdout, and ends with stdin.
func newDemoPeer() *cobra.Command {
	return &cobra.Command{
		Use:    demoPeer,
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var key string
			var port uint16
			if _, err := fmt.Fscanln(os.Stdin, &key, &port); err != nil {
				return fmt.Errorf("instructions: %w", err)
			}
			client, err := wg.ParsePublicKey(key)
			if err != nil {
				return err
			}
			p, err := demo.StartPeer(c.Context(), client, port)
			if err != nil {
				return err
			}
			defer p.Close()
			fmt.Println(p.PublicKey, p.Port)
			_, _ = io.Copy(io.Discard, os.Stdin)
			return nil
		},
	}
}

// A demonstration is the near end.
type demonstration struct {
	out  io.Writer
	self string // this executable
	dir  string // temporary; holds demo.conf
	port uint16 // of the page
	peer *exec.Cmd
	pipe io.Closer // the peer's stdin; it ends with it
}

// close leaves nothing behind.
func (d *demonstration) close() {
	if d.pipe != nil {
		d.pipe.Close()
		_ = d.peer.Wait() // killed by its context at the latest
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}

func (d *demonstration) run(ctx context.Context) (err error) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		return &view.Problem{Code: view.ExitMachine, What: "the demo needs curl", Try: []string{"apt-get install curl"}, Err: err}
	}
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "umrun-demo-"); err != nil {
		return err
	}
	if d.port, err = closedPort(); err != nil {
		return err
	}
	if err := d.startPeer(ctx); err != nil {
		return fmt.Errorf("start the peer: %w", err)
	}
	url := "http://" + demo.PageName + "/"
	if d.port != 80 {
		url = fmt.Sprintf("http://%s:%d/", demo.PageName, d.port)
	}
	fmt.Fprintf(d.out, "A WireGuard peer runs as process %d, its tunnel on UDP port %s of this machine.\n", d.peer.Process.Pid, d.endpoint())
	fmt.Fprintf(d.out, "Behind it, and nowhere else, are a name server and the page %s\n\n", url)

	web := []string{"-sS", "--noproxy", "*", "--max-time", "15", url}
	in := d.capture(ctx, d.self, slices.Concat([]string{"-n", filepath.Join(d.dir, "demo.conf"), "--", curl}, web))
	// Asking a resolver for the name, or a router for the tunnel's address, would
	// send packets to the network of whoever tries the demo. So the name is given
	// the one address that stays here.
	out := d.capture(ctx, curl, append([]string{"--resolve", fmt.Sprintf("%s:%d:127.0.0.1", demo.PageName, d.port)}, web...))
	rows := []row{
		{"", "inside: umrun -n demo.conf --", "outside: this machine"},
		{"curl " + url, in.text, out.text},
	}
	browser := result{text: "(no Chromium is installed)", ok: true}
	name := "chromium"
	if path := findChromium(); path != "" {
		name = filepath.Base(path)
		args := []string{"-n", filepath.Join(d.dir, "demo.conf"), "--", path, "--headless", "--disable-gpu", "--no-first-run",
			"--no-proxy-server", "--user-data-dir=" + filepath.Join(d.dir, "chromium"), "--dump-dom", url}
		if os.Geteuid() == 0 {
			args = slices.Insert(args, 4, "--no-sandbox") // Chromium refuses to run as root with it
		}
		browser = d.capture(ctx, d.self, args)
	}
	rows = append(rows, row{name + " " + url, browser.text, ""})
	printRows(d.out, rows)
	fmt.Fprintf(d.out, "\n%s and %s are addresses in the tunnel; no interface of this machine has them.\n", demo.Client4, demo.Client6)
	fmt.Fprintln(d.out, "Outside, the name was pinned to 127.0.0.1, so that the demo sends nothing to your network.")

	switch {
	case ctx.Err() != nil:
		return &view.Problem{Code: view.ExitFailed, What: "the demo did not end in time", Err: ctx.Err()}
	case !in.ok:
		return &view.Problem{Code: view.ExitFailed, What: "the page was not reached from inside", Why: in.text, Try: []string{"umrun doctor"}}
	case out.ok:
		return &view.Problem{Code: view.ExitFailed, What: "the page was reached from outside"}
	case !browser.ok:
		return &view.Problem{Code: view.ExitFailed, What: "the browser did not reach the page from inside", Why: browser.text}
	}
	return nil
}

// startPeer starts the second process and writes demo.conf.
func (d *demonstration) startPeer(ctx context.Context) error {
	key, err := wg.NewPrivateKey()
	if err != nil {
		return err
	}
	d.peer = exec.CommandContext(ctx, d.self, demoPeer)
	d.peer.Env = cleanEnv()
	d.peer.Stderr = os.Stderr
	stdin, err := d.peer.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := d.peer.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.peer.Start(); err != nil {
		return err
	}
	d.pipe = stdin
	if _, err := fmt.Fprintln(stdin, key.Public(), d.port); err != nil {
		return err
	}
	var peerKey string
	var port uint16
	if _, err := fmt.Fscanln(stdout, &peerKey, &port); err != nil {
		return fmt.Errorf("it says nothing: %w", err)
	}
	conf := fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = %s/32, %s/128
DNS = %s

[Peer]
PublicKey = %s
AllowedIPs = %s, %s
Endpoint = 127.0.0.1:%d
`, key.Reveal(), demo.Client4, demo.Client6, demo.Peer4, peerKey, demo.Net4, demo.Net6, port)
	return os.WriteFile(filepath.Join(d.dir, "demo.conf"), []byte(conf), 0o600)
}

// endpoint returns the peer's UDP port as demo.conf has it.
func (d *demonstration) endpoint() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "demo.conf")) // was written by us
	_, port, _ := strings.Cut(string(b), "Endpoint = 127.0.0.1:")
	return strings.TrimSpace(port)
}

// A result is what a command printed: the greeting where there is one, else the
// last line.
type result struct {
	text string
	ok   bool
}

// capture runs a command for its output.
func (d *demonstration) capture(ctx context.Context, name string, args []string) result {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Env, c.Stdout, c.Stderr = cleanEnv(), &out, &errs
	c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) } // umrun passes it on
	c.WaitDelay = 2 * time.Second
	err := c.Run()
	if m := greeting.FindString(out.String()); err == nil && m != "" {
		return result{m, true}
	}
	if m := netError.FindString(out.String()); m != "" {
		return result{text: m}
	}
	lines := strings.FieldsFunc(strings.TrimSpace(errs.String()+"\n"+out.String()), func(r rune) bool { return r == '\n' })
	switch {
	case ctx.Err() != nil:
		return result{text: "no end within 25 s"}
	case len(lines) > 0:
		return result{text: lines[len(lines)-1]}
	}
	return result{text: fmt.Sprint(err)}
}

// greeting is what the page says to a visitor with an address in the tunnel.
var greeting = regexp.MustCompile("Hello (" + regexp.QuoteMeta(demo.Client4.String()) + "|" + regexp.QuoteMeta(demo.Client6.String()) + ")")

// netError is what Chromium's own page of an error names.
var netError = regexp.MustCompile(`\b(ERR|DNS_PROBE)_[A-Z_]+\b`)

// cleanEnv is the environment without settings that would bend the demo.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, envPrefix) })
}

// closedPort returns a port on which nobody listens on 127.0.0.1: 80 if possible.
func closedPort() (uint16, error) {
	for _, port := range []uint16{80, 8080, 8000, 18080, 28080} {
		c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), time.Second)
		if err == nil {
			c.Close()
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return port, nil
		}
	}
	return 0, errors.New("no closed TCP port on 127.0.0.1")
}

// findChromium returns the path of a Chromium, or "".
func findChromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// A row is a line of the comparison.
type row struct{ what, inside, outside string }

// printRows writes the comparison in columns.
func printRows(w io.Writer, rows []row) {
	var a, b int
	for _, r := range rows {
		a, b = max(a, len(r.what)), max(b, len(r.inside))
	}
	for _, r := range rows {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-*s  %-*s  %s", a, r.what, b, r.inside, r.outside), " "))
	}
}
