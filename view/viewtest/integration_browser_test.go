// SPDX-License-Identifier: Apache-2.0

// Browsers in views: Chromium as an ordinary user with its own sandbox on, and
// two of them in two tunnels. Firefox is in the table of programs.

package viewtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// answer is what the driver of view/viewtest/browser says to a command.
type answer struct {
	Command, Value, Error string
	Took                  time.Duration
}

// A browser is a Chromium and the driver next to it.
type browser struct {
	*viewtest.Cmd
	in   io.WriteCloser
	said int // answers that were read
}

// driver is the command line of a browser with a new profile.
func driver(t testing.TB, w *viewtest.World, flags ...string) []string {
	t.Helper()
	viewtest.Need(t, "chromium")
	profile := filepath.Join(w.Home(), strings.ReplaceAll(fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()), "/", "-"))
	return append([]string{viewtest.BrowserDriver(t), "-profile", profile}, flags...)
}

// launch starts a browser and waits until it takes commands.
func launch(t testing.TB, c *viewtest.Cmd) *browser {
	t.Helper()
	b := &browser{Cmd: c}
	var err error
	if b.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	start(t, c)
	t.Cleanup(func() { b.in.Close() })
	if a := b.answer(t); a.Command != "start" || a.Error != "" {
		t.Fatalf("the browser does not start: %+v", a)
	}
	return b
}

// do gives a command and returns the answer.
func (b *browser) do(t testing.TB, command string) answer {
	t.Helper()
	b.tell(t, command)
	return b.answer(t)
}

func (b *browser) tell(t testing.TB, command string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.in, command); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

// answer waits for the next one. The driver bounds each command with 30 s.
func (b *browser) answer(t testing.TB) (a answer) {
	t.Helper()
	viewtest.Eventually(t, 45*time.Second, func() error {
		lines := strings.SplitAfter(b.Output(), "\n")
		if b.said >= len(lines) || !strings.HasSuffix(lines[b.said], "\n") {
			return fmt.Errorf("no answer number %d:\n%s", b.said, b.Output())
		}
		return json.Unmarshal([]byte(lines[b.said]), &a)
	})
	b.said++
	return a
}

// must is do for a command that has to work.
func (b *browser) must(t testing.TB, command string) string {
	t.Helper()
	a := b.do(t, command)
	if a.Error != "" {
		t.Fatalf("%s: %s", command, a.Error)
	}
	return a.Value
}

// leave closes the browser, which has to go with all that it started.
func (b *browser) leave(t testing.TB) {
	t.Helper()
	b.tell(t, "close")
	if r := b.Result(); r.Status != 0 {
		t.Errorf("the browser did not end well: %v", r)
	}
}

// nobodyLeft fails the test if a process is left on the host.
func nobodyLeft(t testing.TB, w *viewtest.World) {
	t.Helper()
	viewtest.Eventually(t, 10*time.Second, func() error {
		var left []string
		for _, pid := range w.Host.Pids() {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			left = append(left, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(name, []byte{0}, []byte{' '})))
		}
		if len(left) > 0 {
			return fmt.Errorf("still there:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

// asked fails the test unless the peer's dnsmasq was asked for each name by
// the client, through the tunnel.
func asked(t testing.TB, p *viewtest.Peer, c *viewtest.Client, names ...string) {
	t.Helper()
	q := p.Queries()
	for _, n := range names {
		by := regexp.MustCompile(`query\[A\] ` + regexp.QuoteMeta(n) + ` from (` + c.IP4.String() + `|` + c.IP6.String() + `)\n`)
		if !by.MatchString(q) {
			t.Errorf("%s was not asked for through the tunnel; dnsmasq logged\n%s", n, q)
		}
	}
}

// TestIntegrationBrowser: what a page can do with the network, it does through
// the tunnel, by Chromium's own resolver and from behind Chromium's sandbox.
func TestIntegrationBrowser(t *testing.T) {
	w, p, me := lab(t)
	b := launch(t, w.Umrun(t, me.Conf, driver(t, w)...))
	self := strings.NewReplacer("SELF4", me.IP4.String(), "SELF6", me.IP6.String())
	// The order matters where a line says "here": it is about the page that
	// the open before it left.
	for _, tc := range []struct {
		name, do  string
		want, err string // whole value, or /regular expression/; what the error matches
	}{
		{name: "sandbox", do: "open chrome://sandbox", want: `/Namespace(.|\n)*Seccomp-BPF sandbox\s+Yes(.|\n)*You are adequately sandboxed\./`},
		{name: "address", do: "open http://10.77.0.1/addr", want: "SELF4"},
		{name: "address-v6", do: "open http://[fd77::1]/addr", want: "SELF6"},
		{name: "name-v4", do: "open http://v4.lab.test/addr", want: "SELF4"},
		{name: "name-v6", do: "open http://v6.lab.test/addr", want: "SELF6"},
		{name: "cname", do: "open http://alias.lab.test/addr", want: "/^SELF[46]$/"},
		{name: "happy-eyeballs", do: "open http://closed.lab.test/addr", want: "SELF4"},
		{name: "no-name", do: "open http://nobody.lab.test/", err: "ERR_NAME_NOT_RESOLVED"},
		{name: "refused", do: "open http://www.lab.test:1006/", err: "ERR_CONNECTION_REFUSED"},
		{name: "unreachable", do: "open http://[fd99:1::1]/", err: "ERR_ADDRESS_UNREACHABLE"},
		// The other error is getpeername's, where the reset outruns it.
		{name: "reset", do: "open http://10.77.0.1:1001/", err: "ERR_CONNECTION_RESET|ERR_SOCKET_NOT_CONNECTED"},
		{name: "tls", do: "open https://www.lab.test/", err: "ERR_CERT_AUTHORITY_INVALID"}, // after the handshake
		{name: "page", do: "open http://www.lab.test/", want: "peer 0"},
		{name: "fetch-here", do: "fetch /addr", want: "/^SELF[46]\n$/"},
		{name: "fetch-elsewhere", do: "fetch http://10.77.0.1:8081/addr", want: "SELF4\n"},
		{name: "websocket", do: "echo ws://www.lab.test:8081/ws", want: fmt.Sprint(1<<16 - 1 + 64<<15)},
		{name: "websocket-refused", do: "echo ws://www.lab.test:1006/ws", err: "WebSocket failed"},
		{name: "webrtc", do: "rtc", want: "there and back over SELF4 [SELF6]"}, // and no address of the host
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, want := b.do(t, tc.do), self.Replace(tc.want)
			if strings.HasPrefix(tc.want, "/^SELF[46]") {
				want = fmt.Sprintf("/^(%v|%v)%s", me.IP4, me.IP6, strings.TrimPrefix(tc.want, "/^SELF[46]"))
			}
			ok := got.Value == want
			if len(want) > 1 && want[0] == '/' {
				ok = regexp.MustCompile(strings.Trim(want, "/")).MatchString(got.Value)
			}
			if !ok || !regexp.MustCompile(tc.err).MatchString(got.Error) || (got.Error != "") != (tc.err != "") {
				t.Errorf("want %q and error %q, got %+v", want, tc.err, got)
			}
		})
	}
	t.Run("download-here", func(t *testing.T) {
		sumFile(t, b.must(t, "download http://www.lab.test/big.bin"))
	})
	b.leave(t)
	nobodyLeft(t, w)
	w.NoStrays(t)
	asked(t, p, me, viewtest.NameWeb, viewtest.NameV4, viewtest.NameV6, viewtest.NameAlias, "nobody.lab.test")
}

// TestIntegrationTwoBrowsers is the seed of the idea: two browsers, two
// profiles, two tunnels, on one desktop at one time. Each sees its own, and a
// third one outside sees neither.
func TestIntegrationTwoBrowsers(t *testing.T) {
	w, p0, c0 := lab(t)
	p1 := w.AddPeer(t)
	p1.Client(t)
	c1 := p1.Client(t) // another address than c0's
	peers, clients := []*viewtest.Peer{p0, p1}, []*viewtest.Client{c0, c1}
	var views []*browser
	for _, c := range clients {
		views = append(views, launch(t, w.Umrun(t, c.Conf, driver(t, w)...)))
	}
	// Both are told before either is heard: they load at the same time.
	each := func(t *testing.T, command string, want func(i int) string) {
		t.Helper()
		for _, b := range views {
			b.tell(t, command)
		}
		for i, b := range views {
			if a := b.answer(t); a.Error != "" || strings.TrimSpace(a.Value) != want(i) {
				t.Errorf("browser %d: want %q, got %+v", i, want(i), a)
			}
		}
	}
	own := func(t *testing.T) {
		t.Helper()
		each(t, "open http://www.lab.test/?"+fmt.Sprint(time.Now().UnixNano()), func(i int) string { return fmt.Sprintf("peer %d", i) })
		each(t, "fetch http://10.77.0.1:8081/addr", func(i int) string { return clients[i].IP4.String() })
		each(t, "open http://v4.lab.test/addr", func(i int) string { return clients[i].IP4.String() })
		each(t, "open http://v6.lab.test/addr", func(i int) string { return clients[i].IP6.String() })
		w.NoStrays(t)
	}
	own(t)

	// The debuggers listen on the loopback of their views; nobody outside finds
	// them, nor does the other view.
	var ports []string
	for _, b := range views {
		port := b.must(t, "port")
		ports = append(ports, port)
		if c, err := w.Host.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			c.Close()
			t.Errorf("the port %s on the loopback of a view is open outside", port)
		}
	}
	for i, b := range views {
		if ports[0] == ports[1] {
			break // each finds its own there
		}
		if a := b.do(t, "open http://127.0.0.1:"+ports[1-i]+"/json/version"); !strings.Contains(a.Error, "ERR_CONNECTION_REFUSED") {
			t.Errorf("browser %d asked for the loopback of the other: %+v", i, a)
		}
	}

	// One outside: its packets go where the host's go, into the sink.
	outside := launch(t, w.HostCmd(t.Context(), driver(t, w, "-limit=2s")...).AsUser(w.Home()))
	for _, page := range []string{"http://10.77.0.1/", "http://www.lab.test/"} {
		if a := outside.do(t, "open "+page); a.Error == "" {
			t.Errorf("a browser outside of the views came to %s: %+v", page, a)
		}
	}
	outside.leave(t)
	if n, _ := w.Strays(); n == 0 {
		t.Error("the browser outside sent nothing that the sink saw: it proves nothing")
	}
	w.ResetStrays()

	own(t)
	for _, b := range views {
		b.leave(t)
	}
	nobodyLeft(t, w)
	for i := range peers {
		asked(t, peers[i], clients[i], viewtest.NameWeb, viewtest.NameV4, viewtest.NameV6)
	}
}
