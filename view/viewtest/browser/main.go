// SPDX-License-Identifier: Apache-2.0

// Command browser starts Chromium or Firefox, sandbox on, and does with it what
// it is told: a command a line on stdin, a JSON answer a line on stdout.
//
//	open URL        go to a page; its text
//	fetch URL       fetch() from the page; the text
//	echo URL        a WebSocket that echoes: messages of growing size; how many characters came back
//	download URL    save a resource as a file; its path
//	rtc             WebRTC from the page to itself: "TEXT over ADDRESS ...", the
//	                text that a data channel carried and the local addresses that
//	                the page learned
//	sandbox         what keeps Firefox's pages in, as the kernel tells; Chromium
//	                has a page of its own, chrome://sandbox
//	port            the port of the debugger
//	close           close the browser; also the end of stdin does
//
// It runs where its browser runs, in a view or outside: what it says to the
// browser goes over a WebSocket on the loopback of that place, and so is a test
// of the view's loopback too. What the browser prints goes to stderr.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// An Answer is one line of stdout. Error is empty when the command worked.
type Answer struct {
	Command string
	Value   string
	Error   string
	Took    time.Duration // nanoseconds in the JSON
}

// A browser is one that runs. Its methods are called one at a time.
type browser interface {
	open(ctx context.Context, url string) error
	// eval runs a script in the page, waits for its promise, and returns the
	// string that it gives.
	eval(ctx context.Context, script string) (string, error)
	// download saves what a link of the page leads to, and returns the path.
	download(ctx context.Context, url string) (string, error)
	sandbox() (string, error)
	port() (string, error)
	// close closes it as a user would and waits for its end.
	close() error
}

func main() {
	profile := flag.String("profile", "", "directory of the profile, made if need be")
	limit := flag.Duration("limit", 30*time.Second, "how long a command may take")
	fox := flag.Bool("firefox", false, "start Firefox; else it is Chromium")
	var more []string
	flag.Func("flag", "NAME or NAME=VALUE: a flag for Chromium, more than once if need be", func(s string) error {
		more = append(more, s)
		return nil
	})
	flag.Parse()
	err := errors.New("needs -profile")
	switch {
	case os.Geteuid() == 0:
		err = errors.New("runs as root: the browser's sandbox would be off")
	case *profile == "":
	case *fox:
		err = drive(func() (browser, error) { return startFirefox(*profile, *limit) }, *limit)
	default:
		err = drive(func() (browser, error) { return startChromium(*profile, *limit, more) }, *limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

func drive(begin func() (browser, error), limit time.Duration) error {
	start := time.Now()
	b, err := begin()
	say(Answer{Command: "start", Took: time.Since(start)}, err)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		if verb == "close" {
			break
		}
		do, ok := commands[verb]
		if !ok {
			err = fmt.Errorf("unknown command %q", verb)
			break
		}
		a := Answer{Command: in.Text()}
		start := time.Now()
		one, end := context.WithTimeout(context.Background(), limit)
		var err error
		a.Value, err = do(one, b, arg)
		end()
		a.Took = time.Since(start)
		say(a, err)
	}
	return errors.Join(err, in.Err(), b.close())
}

func say(a Answer, err error) {
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(a)
}

var commands = map[string]func(ctx context.Context, b browser, arg string) (string, error){
	"open": func(ctx context.Context, b browser, page string) (string, error) {
		if err := b.open(ctx, page); err != nil {
			return "", err
		}
		return b.eval(ctx, `document.body.innerText`)
	},
	"fetch": func(ctx context.Context, b browser, page string) (string, error) {
		return b.eval(ctx, fmt.Sprintf(`fetch(%q, {cache: "no-store"}).then(r => r.text())`, page))
	},
	"echo": echo,
	"rtc":  rtc,
	"download": func(ctx context.Context, b browser, resource string) (string, error) {
		return b.download(ctx, resource)
	},
	"sandbox": func(_ context.Context, b browser, _ string) (string, error) { return b.sandbox() },
	"port":    func(_ context.Context, b browser, _ string) (string, error) { return b.port() },
}

// click is a script that follows a link as a user would who wants a file.
func click(resource, name string) string {
	return fmt.Sprintf(`{ const a = document.createElement("a"); a.href = %q; a.download = %q; a.click(); "" }`, resource, name)
}

// echo sends texts of 1, 2, 4 ... 2^15 characters, each when the one before has
// come back unchanged; then 64 of the last size at once. Longer ones Chromium
// would cut into fragments, which many a small server takes for messages.
func echo(ctx context.Context, b browser, ws string) (string, error) {
	return b.eval(ctx, fmt.Sprintf(`new Promise((resolve, reject) => {
		let characters = 0, left = 64, text = "x";
		const s = new WebSocket(%q);
		s.onopen = () => s.send(text);
		s.onerror = () => reject(new Error("the WebSocket failed"));
		s.onclose = e => reject(new Error("closed with " + e.code));
		s.onmessage = m => {
			if (m.data !== text) return reject(new Error("another text came back"));
			characters += text.length;
			if (text.length < 1 << 15) {
				text += String.fromCharCode(97 + characters %% 26).repeat(text.length);
				return s.send(text);
			}
			if (left === 64) for (let i = 0; i < 64; i++) s.send(text);
			if (left-- === 0) { s.onclose = () => resolve(String(characters)); s.close(); }
		};
	})`, ws))
}

// rtc connects two ends by UDP between the page's own addresses.
func rtc(ctx context.Context, b browser, _ string) (string, error) {
	return b.eval(ctx, `(async () => {
		const a = new RTCPeerConnection(), b = new RTCPeerConnection(), local = new Set();
		const other = to => e => {
			if (!e.candidate || !e.candidate.candidate) return;
			local.add(e.candidate.address);
			to.addIceCandidate(e.candidate);
		};
		a.onicecandidate = other(b);
		b.onicecandidate = other(a);
		b.ondatachannel = e => e.channel.onmessage = m => e.channel.send(m.data + " and back");
		const channel = a.createDataChannel("x");
		const text = new Promise((resolve, reject) => {
			channel.onopen = () => channel.send("there");
			channel.onmessage = m => resolve(m.data);
			a.oniceconnectionstatechange = () => a.iceConnectionState === "failed" && reject(new Error("no way between " + [...local]));
		});
		await a.setLocalDescription(await a.createOffer());
		await b.setRemoteDescription(a.localDescription);
		await b.setLocalDescription(await b.createAnswer());
		await a.setRemoteDescription(b.localDescription);
		const said = await text;
		a.close(); b.close();
		return said + " over " + [...local].sort().join(" ");
	})()`)
}

// output passes on what the browser prints, from any goroutine.
type output struct{ mu sync.Mutex }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return os.Stderr.Write(p)
}
