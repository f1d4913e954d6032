// SPDX-License-Identifier: Apache-2.0

// Commands that mount something, those that do not, and what is left of either.

package fusemount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	ChildMain()
	goleak.VerifyTestMain(m)
}

// need skips where this user cannot have a FUSE mount of a command.
func need(t *testing.T, command string) {
	t.Helper()
	if err := Probe(); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath(command); err != nil {
		t.Skip(err)
	}
}

// serve starts a command that may take 20 s.
func serve(t *testing.T, command string) (*Server, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Start(ctx, Config{Command: Shell(command), Env: os.Environ(), Dir: t.TempDir(), Output: os.Stderr})
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// read reads a file of the mount.
func read(t *testing.T, s *Server, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(s.Root.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestStart: the mount is there by its root alone; a copy keeps it when the command has been
// told to end no longer; nothing is left.
func TestStart(t *testing.T) {
	need(t, "bindfs")
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-f", ""} {
		s, err := serve(t, "bindfs --no-allow-other "+flags+" "+src)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, "f"); got != "content" {
			t.Errorf("f is %q", got)
		}
		if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), s.place.dir) {
			t.Errorf("the mount is to be seen here: %v", err)
		}
		for range 2 {
			tree, err := s.Tree()
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Fstatat(int(tree.Fd()), "f", &st, 0); err != nil || st.Size != 7 {
				t.Errorf("a copy of the mount: %v, %d bytes", err, st.Size)
			}
			tree.Close()
		}
		select {
		case <-s.Ended():
			t.Error("it has ended")
		default:
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("again: %v", err)
		}
		if _, err := s.Tree(); err == nil {
			t.Error("a copy of what has ended")
		}
		if _, err := os.Stat(s.place.dir); err == nil {
			t.Errorf("%s is left", s.place.dir)
		}
	}
}

// TestFails: what went wrong is told, and at the end as well.
func TestFails(t *testing.T) {
	need(t, "bindfs")
	for command, want := range map[string]int{"exit 3; ": 3, "true": 0, "kill -9 $$; ": 128 + 9} {
		_, err := serve(t, command)
		var ended *EndedError
		if !errors.As(err, &ended) || ended.Status != want {
			t.Errorf("%s: %v", command, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Config{Command: Shell("exec sleep 50 #")}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("one that does nothing: %v", err)
	}
	if _, err := Start(context.Background(), Config{Command: func(string) []string { return []string{"/nowhere"} }}); !errors.Is(err, unix.ENOENT) || !strings.HasPrefix(err.Error(), "/nowhere: ") {
		t.Errorf("one that is not there: %v", err)
	}
	s, err := serve(t, "bindfs --no-allow-other -f /etc {}; exit 5")
	if err != nil {
		t.Fatal(err)
	}
	var ended *EndedError
	if err := s.Close(); !errors.As(err, &ended) || ended.Status != 5 {
		t.Errorf("one that ends badly: %v", err)
	}
}

// TestShell: where the mount point stands in a command.
func TestShell(t *testing.T) {
	for line, want := range map[string]string{
		"sshfs host:":          "sshfs host: /p/mnt",
		"mount {} -o x; a {}/": "mount /p/mnt -o x; a /p/mnt/",
	} {
		if got := Shell(line)("/p/mnt"); !slices.Equal(got, []string{"/bin/sh", "-c", want}) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// TestSweep: places of the dead go, with nothing in them; all others stay.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	make := func(name string, age time.Duration) *place {
		p := &place{dir: filepath.Join(base, placePrefix+name)}
		if err := os.MkdirAll(p.point(), 0o700); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(p.dir, when, when); err != nil {
			t.Fatal(err)
		}
		return p
	}
	make("dead", time.Hour)
	make("young", 0)
	full := make("full", time.Hour)
	if err := os.WriteFile(filepath.Join(full.point(), "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(make("used", time.Hour).dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	sweep(base)
	left, err := filepath.Glob(base + "/*/mnt*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range left {
		names = append(names, strings.TrimPrefix(filepath.Base(filepath.Dir(l)), placePrefix))
	}
	if got := fmt.Sprint(names); got != "[full used young]" {
		t.Errorf("left are %s", got)
	}
	if _, err := os.Stat(filepath.Join(full.point(), "f")); err != nil {
		t.Error(err)
	}
}
