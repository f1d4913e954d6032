// SPDX-License-Identifier: Apache-2.0

// Firefox, by WebDriver BiDi (W3C): JSON commands and events over a WebSocket.

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

// settings keep Firefox from asking the user, and from traffic of its own.
const settings = `user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.download.dir", %q);
user_pref("browser.download.folderList", 2);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
// A page that may use the camera learns the addresses; so do the tests.
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
`

// A firefox is a running one. A goroutine reads what it prints, and another what
// it says on the WebSocket; both end with it.
type firefox struct {
	cmd     *exec.Cmd
	at      string // the port
	ws      *websocket.Conn
	said    chan message // unbuffered: one command waits at a time, and hears the events
	page    string       // the browsing context
	last    int          // id of the last command
	printed chan struct{}
}

// A message is what Firefox says: the answer to a command, or an event.
type message struct {
	ID      int
	Type    string // success, error, event
	Method  string // of an event
	Error   string
	Message string
	Result  json.RawMessage
	Params  json.RawMessage
}

var listening = regexp.MustCompile(`WebDriver BiDi listening on ws://127\.0\.0\.1:(\d+)`)

func startFirefox(profile string, limit time.Duration) (browser, error) {
	if err := os.MkdirAll(filepath.Join(profile, "Downloads"), 0o700); err != nil {
		return nil, err
	}
	prefs := fmt.Sprintf(settings, filepath.Join(profile, "Downloads"))
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		return nil, err
	}
	name := "firefox-esr"
	if _, err := exec.LookPath(name); err != nil {
		name = "firefox"
	}
	f := &firefox{said: make(chan message), printed: make(chan struct{})}
	f.cmd = exec.Command(name, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0",
		"--remote-allow-origins", "http://localhost", "about:blank")
	out, err := f.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	port := make(chan string, 1) // one port, so that the reader never waits
	go func() {
		defer close(f.printed)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(os.Stderr, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				port <- m[1]
			}
		}
		io.Copy(io.Discard, out) // after a line that is too long
	}()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case f.at = <-port:
		err = f.connect(ctx)
	case <-f.printed:
		err = errors.New("firefox ended before it listened")
	case <-ctx.Done():
		err = errors.New("firefox does not listen")
	}
	if err != nil {
		f.cmd.Process.Kill()
		return nil, errors.Join(err, f.cmd.Wait())
	}
	return f, nil
}

func (f *firefox) connect(ctx context.Context) error {
	conf, err := websocket.NewConfig("ws://127.0.0.1:"+f.at+"/session", "http://localhost")
	if err != nil {
		return err
	}
	if f.ws, err = conf.DialContext(ctx); err != nil {
		return err
	}
	go func() {
		defer close(f.said)
		for {
			var m message
			if websocket.JSON.Receive(f.ws, &m) != nil {
				return
			}
			f.said <- m
		}
	}()
	if err := f.do(ctx, "session.new", m{"capabilities": m{}}, nil); err != nil {
		return err
	}
	var tree struct{ Contexts []struct{ Context string } }
	if err := f.do(ctx, "browsingContext.getTree", m{}, &tree); err != nil {
		return err
	}
	if len(tree.Contexts) == 0 {
		return errors.New("firefox has no page")
	}
	f.page = tree.Contexts[0].Context
	return f.do(ctx, "session.subscribe", m{"events": []string{"browsingContext.downloadEnd"}}, nil)
}

type m = map[string]any

// do gives a command and waits for its answer, passing events by.
func (f *firefox) do(ctx context.Context, method string, params m, result any) error {
	f.last++
	if err := websocket.JSON.Send(f.ws, m{"id": f.last, "method": method, "params": params}); err != nil {
		return err
	}
	answer, err := f.await(ctx, func(a message) bool { return a.Type != "event" && a.ID == f.last })
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", method, err)
	case answer.Type == "error":
		return fmt.Errorf("%s: %s: %s", method, answer.Error, answer.Message)
	case result == nil:
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

func (f *firefox) await(ctx context.Context, is func(message) bool) (message, error) {
	for {
		select {
		case a, ok := <-f.said:
			if !ok {
				return message{}, errors.New("firefox closed the connection")
			}
			if is(a) {
				return a, nil
			}
		case <-ctx.Done():
			return message{}, ctx.Err()
		}
	}
}

func (f *firefox) open(ctx context.Context, page string) error {
	return f.do(ctx, "browsingContext.navigate", m{"context": f.page, "url": page, "wait": "complete"}, nil)
}

func (f *firefox) eval(ctx context.Context, script string) (string, error) {
	var r struct {
		Type   string
		Result struct {
			Type  string
			Value json.RawMessage
		}
		ExceptionDetails struct{ Text string }
	}
	// The user's activation, as after a click: without it a page may not
	// download more than once.
	if err := f.do(ctx, "script.evaluate", m{"expression": script, "target": m{"context": f.page},
		"awaitPromise": true, "userActivation": true}, &r); err != nil {
		return "", err
	}
	if r.Type == "exception" {
		return "", errors.New(r.ExceptionDetails.Text)
	}
	var s string
	if err := json.Unmarshal(r.Result.Value, &s); err != nil {
		return "", fmt.Errorf("the script gives a %s: %w", r.Result.Type, err)
	}
	return s, nil
}

func (f *firefox) download(ctx context.Context, resource string) (string, error) {
	u, err := url.Parse(resource)
	if err != nil {
		return "", err
	}
	if _, err := f.eval(ctx, click(resource, filepath.Base(u.Path))); err != nil {
		return "", err
	}
	end, err := f.await(ctx, func(a message) bool { return a.Method == "browsingContext.downloadEnd" })
	if err != nil {
		return "", err
	}
	var d struct{ Status, Filepath string }
	if err := json.Unmarshal(end.Params, &d); err != nil {
		return "", err
	}
	if d.Status != "complete" {
		return "", fmt.Errorf("the download ended as %s", d.Status)
	}
	return d.Filepath, nil
}

func (f *firefox) port() (string, error) { return f.at, nil }

func (f *firefox) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := f.do(ctx, "browser.close", m{}, nil)
	go func() { // until the reader's end, which Firefox's end brings
		for range f.said {
		}
	}()
	kill := time.AfterFunc(20*time.Second, func() { f.cmd.Process.Kill() })
	defer kill.Stop()
	<-f.printed
	return errors.Join(err, f.cmd.Wait(), f.ws.Close())
}

// sandbox has a line for each process that holds pages: how many seccomp filters
// it has above those of this process, and whether its user namespace is its own.
func (f *firefox) sandbox() (string, error) {
	mine, err := filters("self")
	if err != nil {
		return "", err
	}
	user, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return "", err
	}
	var found []string
	pages, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range pages {
		pid := filepath.Base(filepath.Dir(p))
		line, _ := os.ReadFile(p)
		// A child of Firefox's fork server has spaces between its arguments.
		words := strings.Fields(strings.ReplaceAll(string(line), "\x00", " "))
		if len(words) < 3 || words[1] != "-contentproc" || words[len(words)-1] != "tab" {
			continue
		}
		theirs, err := filters(pid)
		if err != nil {
			continue // ended
		}
		ns := "own"
		if n, err := os.Readlink("/proc/" + pid + "/ns/user"); err != nil || n == user {
			ns = "no own"
		}
		found = append(found, fmt.Sprintf("+%d filters, %s user namespace", theirs-mine, ns))
	}
	return strings.Join(found, "\n"), nil
}

// filters is the number of seccomp filters of a process (proc(5), Seccomp_filters).
func filters(pid string) (int, error) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "Seccomp_filters:")
	n, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(strings.TrimSpace(n))
}
