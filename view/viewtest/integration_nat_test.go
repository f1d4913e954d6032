// SPDX-License-Identifier: Apache-2.0

// nat and programs that move much: the bytes take a way past the stack, and nothing
// else changes.

package viewtest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

//go:embed testdata/nat/bulk.py
var bulkProgram string

//go:embed testdata/nat/watched.py
var watchedProgram string

// A bulkServer does what the first line of a connection says.
type bulkServer struct {
	mu   sync.Mutex
	last string // of what came for "aborted", "end" and "keep"
	wg   sync.WaitGroup
}

// pattern is that of bulk.py.
func pattern(n int) []byte {
	p := make([]byte, 251*256)
	for i := range p {
		p[i] = byte(i*7 + i/251)
	}
	return bytes.Repeat(p, n/len(p)+1)[:n]
}

func (b *bulkServer) serve(ln net.Listener) {
	b.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(60 * time.Second))
				b.handle(c.(*net.TCPConn))
			})
		}
	})
}

// digest reads to the end and tells what came.
func digest(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if errors.Is(err, unix.ECONNRESET) {
		return fmt.Sprintf("%d reset", n)
	}
	return fmt.Sprintf("%d %x %v", n, h.Sum(nil)[:8], err)
}

func (b *bulkServer) keep(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = s
}

// taken returns what was kept, which may be a moment away.
func (b *bulkServer) taken() string {
	for range 1000 {
		b.mu.Lock()
		s := b.last
		b.last = ""
		b.mu.Unlock()
		if s != "" {
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "nothing"
}

func (b *bulkServer) handle(c *net.TCPConn) {
	// A byte at a time: what follows the line is not to be taken with it.
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := c.Read(one); err != nil {
			return
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	var what string
	n := 0
	fmt.Sscan(string(line), &what, &n)
	switch what {
	case "send":
		c.Write(pattern(n))
	case "hash":
		rc, _ := c.SyscallConn()
		rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
		fmt.Fprint(c, digest(c))
	case "echo":
		io.Copy(c, struct{ io.Reader }{c})
	case "reset":
		c.Write(pattern(n))
		bufio.NewReader(c).ReadString('\n')
		c.SetLinger(0)
	case "aborted":
		io.CopyN(io.Discard, c, 8<<20)
		c.Write([]byte("all"))
		b.keep(digest(c))
	case "end":
		c.Write(pattern(n))
		c.CloseWrite()
		b.keep(digest(c))
	case "keep": // a slow one: the program is long gone when the rest is read
		time.Sleep(time.Second)
		b.keep(digest(c))
	case "urgent":
		c.Write(pattern(4 << 20))
		rc, _ := c.SyscallConn()
		rc.Control(func(fd uintptr) { unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) })
		c.Write(pattern(4 << 20))
	case "last":
		fmt.Fprint(c, b.taken())
	case "drip": // one chunk after the other, for as long as it is read
		for p := pattern(256 << 10); ; {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}
}

// TestIntegrationBulk: a program that moves much sees through nat what it sees on the
// host itself.
func TestIntegrationBulk(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	for _, family := range []struct{ name, addr string }{{"v4", "198.51.100.2"}, {"v6", "2001:db8:ffff::2"}} {
		t.Run(family.name, func(t *testing.T) {
			var b bulkServer
			ln, err := w.Host.Listen("tcp", net.JoinHostPort(family.addr, "0"))
			if err != nil {
				t.Fatal(err)
			}
			b.serve(ln)
			defer b.wg.Wait()
			defer ln.Close()
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			argv := []string{"/usr/bin/python3", w.File(t, "bulk.py", bulkProgram), family.addr, port}
			native := w.HostCmd(t.Context(), argv...).AsUser(w.Home()).Result()
			kept := b.taken()
			if native.Status != 0 {
				t.Fatal(native)
			}
			view := w.HostCmd(t.Context(), append([]string{viewtest.Binary(t), "-n", "nat", "--"}, argv...)...).AsUser(w.Home()).Result()
			if d := cmp.Diff(strings.Split(native.Stdout, "\n"), strings.Split(view.Stdout, "\n")); d != "" || view.Status != 0 {
				t.Errorf("differs from the host (-host +view):\n%s\n%s", d, view)
			}
			if got := b.taken(); got != kept {
				t.Errorf("what was written last arrived as %q, natively %q", got, kept)
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationBulkWatched: the bytes do go past the stack, and come back to it when
// somebody looks, or the interface goes down.
func TestIntegrationBulkWatched(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "ip")
	w := viewtest.New(t)
	for name, nets := range map[string][]string{
		"alone":  {"-n", "nat"},
		"second": {"-n", "none", "-n", "nat", "--route", "0.0.0.0/0=nat"},
	} {
		t.Run(name, func(t *testing.T) { bulkWatched(t, w, nets) })
	}
}

func bulkWatched(t *testing.T, w *viewtest.World, nets []string) {
	var b bulkServer
	ln, err := w.Host.Listen("tcp", "198.51.100.2:0")
	if err != nil {
		t.Fatal(err)
	}
	b.serve(ln)
	defer b.wg.Wait()
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	argv := slices.Concat([]string{viewtest.Binary(t)}, nets, []string{"--", "/usr/bin/python3", w.File(t, "watched.py", watchedProgram), "198.51.100.2", port})
	u := w.HostCmd(ctx, argv...)
	in, err := u.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	defer u.Stop()
	pipes := func() (n int) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", u.Process.Pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, "pipe:") {
				n++
			}
		}
		return n
	}
	step := func(want string) {
		t.Helper()
		viewtest.Eventually(t, 20*time.Second, func() error {
			if !strings.HasSuffix(u.Output(), want+"\n") {
				return fmt.Errorf("%q, not %q\n%s", u.Output(), want, u.Errors())
			}
			return nil
		})
		fmt.Fprintln(in, "go on")
	}
	// Each step is what the program has just done.
	viewtest.Eventually(t, 20*time.Second, func() error {
		if u.Output() != "begin\n" {
			return errors.New("the program does not begin")
		}
		return nil
	})
	before := pipes()
	fmt.Fprintln(in, "go on")
	step("connected")
	viewtest.Eventually(t, 20*time.Second, func() error {
		if n := pipes(); n <= before {
			return fmt.Errorf("the bytes do not go past the stack: %d pipes, %d at the start", n, before)
		}
		return nil
	})
	step("moved")
	step("watched: packets with data")
	viewtest.Eventually(t, 20*time.Second, func() error {
		if n := pipes(); n != before {
			return fmt.Errorf("somebody watches, and %d pipes are there, %d at the start", n, before)
		}
		return nil
	})
	step("unwatched")
	step("again")
	step("down: nothing comes")
	step("up: it goes on")
	if r := u.Result(); r.Status != 0 {
		t.Error(r)
	}
}
