// SPDX-License-Identifier: Apache-2.0

// Command browser starts Chromium, sandbox on, and does with it what it is told:
// a command a line on stdin, a JSON answer a line on stdout.
//
//	open URL        go to a page; its text
//	fetch URL       fetch() from the page; the text
//	echo URL        a WebSocket that echoes: messages of growing size; how many characters came back
//	download URL    save a resource as a file; its path
//	rtc             WebRTC from the page to itself: "TEXT over ADDRESS ...", the
//	                text that a data channel carried and the local addresses that
//	                the page learned
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
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

// An Answer is one line of stdout. Error is empty when the command worked.
type Answer struct {
	Command string
	Value   string
	Error   string
	Took    time.Duration // nanoseconds in the JSON
}

func main() {
	profile := flag.String("profile", "", "directory of the profile, made if need be")
	limit := flag.Duration("limit", 30*time.Second, "how long a command may take")
	flag.Parse()
	if err := drive(*profile, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

// flags are those of somebody who wants to see no traffic but his own. Neither
// here nor in chromedp's defaults is --no-sandbox: chromedp adds it for root
// alone.
var flags = []chromedp.ExecAllocatorOption{
	chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.DisableGPU,
	chromedp.Flag("disable-background-networking", true),
	chromedp.Flag("disable-component-update", true),
	chromedp.Flag("disable-sync", true),
	chromedp.Flag("password-store", "basic"),
	// A page that may use the camera learns the addresses; so do the tests.
	chromedp.Flag("disable-features", "WebRtcHideLocalIpsWithMdns"),
}

func drive(profile string, limit time.Duration) error {
	if os.Geteuid() == 0 {
		return errors.New("runs as root: the browser's sandbox would be off")
	}
	if profile == "" {
		return errors.New("needs -profile")
	}
	printed := &output{}
	options := append(flags, chromedp.UserDataDir(profile), chromedp.CombinedOutput(printed),
		chromedp.WSURLReadTimeout(limit), remote.WebSocket)
	alloc, release := chromedp.NewExecAllocator(context.Background(), options...)
	defer release() // waits for the browser's process
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	start := time.Now()
	err := chromedp.Do(ctx) // no deadline of its own: it would be the browser's
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
			return fmt.Errorf("unknown command %q", verb)
		}
		a := Answer{Command: in.Text()}
		start := time.Now()
		one, end := context.WithTimeout(ctx, limit)
		a.Value, err = do(one, profile, arg)
		end()
		a.Took = time.Since(start)
		say(a, err)
	}
	return errors.Join(in.Err(), chromedp.Cancel(ctx)) // Cancel closes it as a user would
}

func say(a Answer, err error) {
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(a)
}

var commands = map[string]func(ctx context.Context, profile, arg string) (string, error){
	"open": func(ctx context.Context, _, page string) (string, error) {
		if err := chromedp.Do(ctx, chromedp.Navigate(page)); err != nil {
			return "", err
		}
		return chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	},
	"fetch": func(ctx context.Context, _, page string) (string, error) {
		return promise(ctx, fmt.Sprintf(`fetch(%q, {cache: "no-store"}).then(r => r.text())`, page))
	},
	"echo":     echo,
	"rtc":      rtc,
	"download": download,
	"port": func(_ context.Context, profile, _ string) (string, error) {
		b, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		port, _, _ := strings.Cut(string(b), "\n")
		return port, err
	},
}

func promise(ctx context.Context, script string) (string, error) {
	return chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
}

// echo sends texts of 1, 2, 4 ... 2^15 characters, each when the one before has
// come back unchanged; then 64 of the last size at once. Longer ones Chromium
// would cut into fragments, which many a small server takes for messages.
func echo(ctx context.Context, _, ws string) (string, error) {
	return promise(ctx, fmt.Sprintf(`new Promise((resolve, reject) => {
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
func rtc(ctx context.Context, _, _ string) (string, error) {
	return promise(ctx, `(async () => {
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

// download clicks a link, as a user would, and waits for the file.
func download(ctx context.Context, profile, resource string) (string, error) {
	dir := filepath.Join(profile, "Downloads")
	u, err := url.Parse(resource)
	if err != nil {
		return "", err
	}
	events := true
	if _, err := chromedp.CallBrowser(ctx, cdpbrowser.SetDownloadBehavior, cdpbrowser.SetDownloadBehaviorParams{
		Behavior: cdpbrowser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir, EventsEnabled: &events,
	}); err != nil {
		return "", err
	}
	end := make(chan cdpbrowser.DownloadProgressState, 1) // one download, one end
	if err := chromedp.ListenBrowser(ctx, func(ev any) {
		if p, ok := ev.(*cdpbrowser.EventDownloadProgress); ok && p.State != cdpbrowser.DownloadProgressStateInProgress {
			select {
			case end <- p.State:
			default:
			}
		}
	}); err != nil {
		return "", err
	}
	name := filepath.Base(u.Path)
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](fmt.Sprintf(
		`{ const a = document.createElement("a"); a.href = %q; a.download = %q; a.click(); true }`, resource, name))); err != nil {
		return "", err
	}
	select {
	case state := <-end:
		if state != cdpbrowser.DownloadProgressStateCompleted {
			return "", fmt.Errorf("the download ended as %s", state)
		}
		return filepath.Join(dir, name), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// output passes on what the browser prints, from any goroutine.
type output struct{ mu sync.Mutex }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return os.Stderr.Write(p)
}
