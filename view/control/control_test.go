// SPDX-License-Identifier: Apache-2.0

// Tests of the socket: who may ask, whose a name is, what is left behind.

package control

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// place gives the test a directory of sockets of its own.
func place(t *testing.T) string {
	t.Helper()
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	return filepath.Join(run, "umrun")
}

func serve(t *testing.T, name string) *Server {
	t.Helper()
	s, err := Serve(name, slog.New(slog.DiscardHandler), func(r Request) Answer {
		if r.Op == Info {
			return Answer{View: &View{Name: name, Since: time.Unix(1, 0)}}
		}
		return Answer{Error: &Error{Code: 122, What: string(r.Spec + r.Path)}}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestAsk(t *testing.T) {
	dir := place(t)
	s := serve(t, "one")
	serve(t, "two")
	a, err := Ask(t.Context(), "one", Request{Op: Info})
	if err != nil || a.View == nil || a.View.Name != "one" {
		t.Errorf("info: %+v, %v", a, err)
	}
	a, err = Ask(t.Context(), "two", Request{Op: Umount, Path: "/x"})
	if err != nil || a.Error == nil || a.Error.What != "/x" {
		t.Errorf("umount: %+v, %v", a, err)
	}
	a, err = Ask(t.Context(), "two", Request{Op: "unknown"})
	if err != nil || a.Error == nil || !strings.Contains(a.Error.What, `"unknown"`) {
		t.Errorf("unknown: %+v, %v", a, err)
	}
	if _, err = Ask(t.Context(), "two", Request{Op: Mount, Spec: Text(strings.Repeat("x", maxRequest)), Dir: "/"}); err == nil {
		t.Error("a message without end was answered")
	}
	if _, err := Ask(t.Context(), "three", Request{Op: Info}); !errors.Is(err, ErrNoView) {
		t.Errorf("three: %v", err)
	}
	if names, err := Names(); err != nil || strings.Join(names, " ") != "one two" {
		t.Errorf("names: %q, %v", names, err)
	}
	if _, err := Serve("one", slog.New(slog.DiscardHandler), nil); !errors.Is(err, ErrTaken) {
		t.Errorf("a second one: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(dir + "/one*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestMessages: what is asked arrives byte by byte, whether it is UTF-8 or not, and an answer may be
// long: a program can have 6 MiB of arguments.
func TestMessages(t *testing.T) {
	place(t)
	asked := Request{Op: Mount, Spec: "bind:a\xff:b", Dir: "/\xfe \u00e4"}
	command := []string{strings.Repeat("\x01", 6<<20), "last"}
	var got Request
	s, err := Serve("one", slog.New(slog.DiscardHandler), func(r Request) Answer {
		got = r
		return Answer{View: &View{Command: command}}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := Ask(t.Context(), "one", asked)
	if err != nil || a.View == nil || strings.Join(a.View.Command, " ") != strings.Join(command, " ") {
		t.Errorf("the answer: %v", err)
	}
	if got != asked {
		t.Errorf("%+v was asked, and %+v arrived", asked, got)
	}
}

// TestLeft: what a killed umrun has left is replaced.
func TestLeft(t *testing.T) {
	place(t)
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/one", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(dir+"/one.lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Ask(t.Context(), "one", Request{Op: Info}); !errors.Is(err, ErrNoView) {
		t.Errorf("nobody is there: %v", err)
	}
	serve(t, "one")
	if _, err := Ask(t.Context(), "one", Request{Op: Info}); err != nil {
		t.Error(err)
	}
}

// TestDir: a directory that others could write to is not taken.
func TestDir(t *testing.T) {
	dir := place(t)
	if got, err := Dir(); err != nil || got != dir {
		t.Fatalf("%s, %v", got, err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(); err == nil {
		t.Error("of mode 0770 it is taken")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(); err == nil {
		t.Error("a symbolic link is taken")
	}
}

// TestSilent: those who connect and say nothing take so many descriptors and no more.
func TestSilent(t *testing.T) {
	dir := place(t)
	s := serve(t, "one")
	var conns []net.Conn
	for range mostConns + 20 {
		c, err := net.Dial("unix", dir+"/one")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	served := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns)
	}
	for end := time.Now().Add(5 * time.Second); served() < mostConns && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // for more of them, which there must not be
	if n := served(); n != mostConns {
		t.Errorf("%d of %d are served", n, len(conns))
	}
	for _, c := range conns {
		c.Close()
	}
	if _, err := Ask(t.Context(), "one", Request{Op: Info}); err != nil {
		t.Error(err)
	}
}

// TestLong: what is too long for the address of a socket leaves nothing behind.
func TestLong(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 60), strings.Repeat("y", 60))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", long)
	if _, err := Serve("one", slog.New(slog.DiscardHandler), nil); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(long + "/umrun/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "A-1_b": true, "": false, "-a": false, "a/b": false, "..": false, "a.lock": false, "_a": false, "a\xe4": false, "a\n": false, strings.Repeat("x", 63): true, strings.Repeat("x", 64): false} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// FuzzDecodeRequest holds that what is taken says the same when it is written anew, and that
// paths in it are absolute.
func FuzzDecodeRequest(f *testing.F) {
	for _, s := range []string{`{"op":"info"}`, `{"op":"mount","spec":"dG1wZnM6eA==","dir":"Lw=="}`, `{"op":"umount","path":"L3g=","lazy":true}`, `{"op":"umount","path":"eA=="}`, `{"op":"umount","path":"/x"}`, `{}`, `[]`, `{"op":"info"}x`, `{"op":"info","more":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		if r.Op == Umount && !filepath.IsAbs(string(r.Path)) || r.Op == Mount && !filepath.IsAbs(string(r.Dir)) {
			t.Errorf("a relative path: %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := DecodeRequest(again); err != nil || s != r {
			t.Errorf("%+v is read as %+v, %v", r, s, err)
		}
	})
}
