// SPDX-License-Identifier: Apache-2.0

// Tests on a terminal: the start line, and job control with a shell.

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// A console is an interactive bash on a terminal of its own.
type console struct {
	t   *testing.T
	pty *os.File

	mu  sync.Mutex
	out bytes.Buffer // guarded by mu: what was not yet expected
}

// newConsole starts a shell that has umrun in its PATH.
func newConsole(t *testing.T) *console {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, dir+"/umrun"); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bash, "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PS1=prompt> ", "HISTFILE=", "TERM=dumb", "GORACE="+raceEnv)
	f, err := pty.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	x := &console{t: t, pty: f}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			x.mu.Lock()
			x.out.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = c.Process.Kill() // the hang-up ends its jobs
		_ = c.Wait()
		f.Close()
		wg.Wait()
	})
	x.expect("prompt> ")
	return x
}

func (x *console) send(s string) {
	x.t.Helper()
	if _, err := io.WriteString(x.pty, s); err != nil {
		x.t.Fatal(err)
	}
}

// expect waits until the output holds want, and forgets it up to there.
func (x *console) expect(want string) string {
	x.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		x.mu.Lock()
		got := x.out.String()
		if i := strings.Index(got, want); i >= 0 {
			x.out.Next(i + len(want))
			x.mu.Unlock()
			return got[:i]
		}
		x.mu.Unlock()
		if time.Now().After(deadline) {
			x.t.Fatalf("no %q in %q", want, got)
		}
	}
}

// status runs a command and returns what it printed before its exit status.
func (x *console) status(want int, command string) string {
	x.t.Helper()
	x.send(command + "; echo sta''tus $?\n")
	out := x.expect(fmt.Sprintf("status %d\r\n", want))
	x.expect("prompt> ")
	return out
}

func TestTerminal(t *testing.T) {
	x := newConsole(t)
	t.Run("start line", func(t *testing.T) {
		if out := x.status(0, "umrun -v -n none true"); !strings.Contains(out, "umrun: /") {
			t.Errorf("-v on a terminal says %q", out)
		}
		if out := x.status(0, "umrun -v -n none true 2>&1 | cat"); strings.Contains(out, "umrun: /") {
			t.Errorf("-v on a pipe says %q", out)
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		x.send("umrun -n none sh -c 'echo read''y; exec sleep 60'\n")
		x.expect("ready\r\n")
		x.send("\x03")
		x.expect("prompt> ")
		x.status(130, "(exit $?)")
	})
	t.Run("interrupt handled once", func(t *testing.T) {
		x.send("umrun -n none sh -c 'trap \"echo ha''ndled\" INT; echo read''y; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; echo en''d'\n")
		x.expect("ready\r\n")
		x.send("\x03")
		if n := strings.Count(x.expect("end\r\n"), "handled"); n != 1 {
			t.Errorf("the handler ran %d times", n)
		}
		x.expect("prompt> ")
	})
	t.Run("stop and continue", func(t *testing.T) {
		x.send("umrun -n none sh -c 'echo read''y; exec cat'\n")
		x.expect("ready\r\n")
		x.send("one\n")
		x.expect("one\r\none\r\n")
		x.send("\x1a")
		x.expect("Stopped")
		x.expect("prompt> ")
		x.send("fg\n")
		x.expect("cat'\r\n")
		x.send("two\n")
		x.expect("two\r\ntwo\r\n")
		x.send("\x04")
		x.expect("prompt> ")
	})
	t.Run("background", func(t *testing.T) {
		x.send("umrun -n none cat &\n")
		x.expect("prompt> ")
		x.status(0, "until jobs %1 | grep -q Stopped; do sleep 0.05; done") // SIGTTIN
		x.send("fg\n")
		x.expect("cat\r\n")
		x.send("\x04")
		x.expect("prompt> ")
	})
	t.Run("kill a job", func(t *testing.T) {
		x.send("umrun -n none sh -c 'trap \"echo ha''ndled\" TERM; echo read''y; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; echo en''d' &\n")
		x.expect("ready\r\n")
		x.send("kill %1\n")
		if n := strings.Count(x.expect("end\r\n"), "handled"); n != 1 {
			t.Errorf("the handler ran %d times", n)
		}
	})
}
