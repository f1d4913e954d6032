// SPDX-License-Identifier: Apache-2.0

// Chromium, by the DevTools protocol.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

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

// A chromium is a running one.
type chromium struct {
	ctx     context.Context // alive until close
	cancel  func()
	profile string
}

func startChromium(profile string, limit time.Duration, more []string) (browser, error) {
	options := append(flags, chromedp.UserDataDir(profile), chromedp.CombinedOutput(&output{}),
		chromedp.WSURLReadTimeout(limit), remote.WebSocket)
	for _, f := range more {
		if name, value, ok := strings.Cut(f, "="); ok {
			options = append(options, chromedp.Flag(name, value))
		} else {
			options = append(options, chromedp.Flag(f, true))
		}
	}
	alloc, release := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	c := &chromium{ctx: ctx, profile: profile, cancel: func() { cancel(); release() }} // release waits for the process
	if err := chromedp.Do(ctx); err != nil {                                           // no deadline of its own: it would be the browser's
		c.cancel()
		return nil, err
	}
	return c, nil
}

func (c *chromium) close() error {
	defer c.cancel()
	return chromedp.Cancel(c.ctx)
}

// within is the browser's context with the deadline of a command.
func (c *chromium) within(ctx context.Context) (context.Context, context.CancelFunc) {
	end, _ := ctx.Deadline()
	return context.WithDeadline(c.ctx, end)
}

func (c *chromium) open(ctx context.Context, page string) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	return chromedp.Do(ctx, chromedp.Navigate(page))
}

func (c *chromium) eval(ctx context.Context, script string) (string, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
}

func (c *chromium) port() (string, error) {
	b, err := os.ReadFile(filepath.Join(c.profile, "DevToolsActivePort"))
	port, _, _ := strings.Cut(string(b), "\n")
	return port, err
}

func (c *chromium) sandbox() (string, error) {
	return "", errors.New("open chrome://sandbox instead")
}

// download clicks a link, as a user would, and waits for the file.
func (c *chromium) download(ctx context.Context, resource string) (string, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	dir := filepath.Join(c.profile, "Downloads")
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
	if _, err := c.eval(ctx, click(resource, name)); err != nil {
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
