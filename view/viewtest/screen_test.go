// SPDX-License-Identifier: Apache-2.0

// A command on a pseudo-terminal: what it shows, and typing to it.

package viewtest_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/creack/pty"
)

// A screen is what a command on a pseudo-terminal shows.
type screen struct {
	t   testing.TB
	pty *os.File
	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

// onTerminal starts a command on a pseudo-terminal of its own.
func onTerminal(t testing.TB, c *viewtest.Cmd) *screen {
	t.Helper()
	ptm, pts, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	pty.Setsize(ptm, &pty.Winsize{Rows: 24, Cols: 80})
	pts.Chown(viewtest.UID, viewtest.GID)
	s := &screen{t: t, pty: ptm}
	c.Stdin, c.Stdout, c.Stderr = pts, pts, pts
	c.SysProcAttr.Setpgid, c.SysProcAttr.Setsid, c.SysProcAttr.Setctty = false, true, true
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the pseudo-terminal
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := ptm.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.out.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		c.Stop()
		ptm.Close()
		<-done
		if t.Failed() {
			t.Logf("the terminal showed: %q", s.shown())
		}
	})
	return s
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// send types text and forgets what was shown before.
func (s *screen) send(text string) {
	s.mu.Lock()
	s.out.Reset()
	s.mu.Unlock()
	if _, err := s.pty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until text is shown.
func (s *screen) expect(text string) {
	s.t.Helper()
	viewtest.Eventually(s.t, 30*time.Second, func() error {
		if shown := s.shown(); !strings.Contains(shown, text) {
			return fmt.Errorf("no %q in %q", text, shown)
		}
		return nil
	})
}
