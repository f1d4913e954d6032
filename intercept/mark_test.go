// SPDX-License-Identifier: Apache-2.0

// Marks: what is taken for the marked file, and what is not.

package intercept

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openUnix returns a connected AF_UNIX socket; its other end stays open.
func openUnix(t *testing.T) int {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	return p[0]
}

// marked marks a file through a duplicate that is closed again, as handlers do.
func marked(t *testing.T, fd int) *Mark {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d)
	m, err := NewMark(FD{N: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestMark: a file is known under each of its numbers, while it is open.
func TestMark(t *testing.T) {
	fd, other := openUnix(t), openUnix(t)
	defer unix.Close(other)
	m := marked(t, fd)
	g := Glance{TID: os.Getpid()}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !g.Marked(fd, m) || !g.Marked(dup, m) || g.Marked(other, m) || g.Marked(-1, m) || g.Marked(1<<20, m) {
		t.Error("a descriptor is taken for what it is not")
	}
	unix.Close(dup)
	if !g.Marked(fd, m) || m.compare(pid, dup) != unix.EBADF {
		t.Error("the file is still open, and not by this number")
	}
	if err := unix.Dup3(other, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if errno := m.compare(pid, fd); errno != unix.ENOENT {
		t.Errorf("a mark on a file that is closed says %v", errno)
	}
	unix.Close(fd)
}

// TestMarkReuse: a file that is closed is not met again in another one that has its
// number, and, as the kernel's memory goes, often its place.
func TestMarkReuse(t *testing.T) {
	for range 300 {
		fd := openUnix(t)
		m := marked(t, fd)
		unix.Close(fd)
		again := openUnix(t)
		if again != fd {
			t.Fatalf("number %d, not %d again", again, fd)
		}
		if (&Glance{TID: os.Getpid()}).Marked(again, m) {
			t.Fatal("another file")
		}
		unix.Close(again)
	}
}

// TestMarkOfOthers: what counts is the file that the task of a number has, whoever that
// task is by now.
func TestMarkOfOthers(t *testing.T) {
	fd, other := openUnix(t), openUnix(t)
	m := marked(t, fd)
	run := func(file int) (tid int, end func()) {
		f := os.NewFile(uintptr(file), "socket")
		defer f.Close()
		cmd := exec.Command("cat")
		cmd.ExtraFiles = []*os.File{f}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd.Process.Pid, func() { in.Close(); _ = cmd.Wait() }
	}
	holder, endHolder := run(fd)
	stranger, endStranger := run(other)
	defer endStranger()
	if !(&Glance{TID: holder}).Marked(3, m) {
		t.Error("the only one who has the file is not known for it")
	}
	if (&Glance{TID: stranger}).Marked(3, m) || (&Glance{TID: stranger}).Marked(0, m) {
		t.Error("one who has another file under that number is taken for its holder")
	}
	endHolder()
	if (&Glance{TID: holder}).Marked(3, m) {
		t.Error("the dead hold nothing")
	}
	if errno := m.compare(stranger, 3); errno != unix.ENOENT {
		t.Errorf("a mark on a file that its last holder has left says %v", errno)
	}
}

// TestPass: calls that pass go on at once, and are counted; others have their handler.
func TestPass(t *testing.T) {
	meter := new(Meter)
	glances, handled := 0, 0
	rules := onCall(func(c *Call) Action {
		handled++
		return Return(int64(handled))
	})
	rules[0].Pass = func(g *Glance) (string, bool) {
		glances++
		if g.TID <= 0 || g.Args[0] != 0 {
			return "", false
		}
		return "itself", true
	}
	never := onCall(func(*Call) Action { return Fail(unix.EIO) })
	never[0].Pass = func(*Glance) (string, bool) { t.Error("the second rule was asked"); return "", true }
	_, out := start(t, Config{Rules: append(rules, never...), Meter: meter}, "fds").wait(t)
	if !strings.Contains(out, "socket: 1\n") || !strings.Contains(out, "leader: 7\n") || glances != 7 || handled != 7 {
		t.Errorf("%d glances, %d handled:\n%s", glances, handled, out)
	}
	// getpgid(0) passes: the kernel says which.
	ws, out := start(t, Config{Rules: append(rules, never...), Meter: meter}, "call", "0").wait(t)
	if ws != 0 || glances != 8 || handled != 7 {
		t.Errorf("%d glances, %d handled:\n%s", glances, handled, out)
	}
	var b bytes.Buffer
	if _, err := meter.WriteTo(&b); err != nil || !strings.Contains(b.String(), "getpgid\titself\t1\t") {
		t.Errorf("%v:\n%s", err, b.String())
	}
}

// TestTable: the first rule that matches is the one that is asked.
func TestTable(t *testing.T) {
	var asked string
	pass := func(name string) func(*Glance) (string, bool) {
		return func(*Glance) (string, bool) { asked = name; return "", true }
	}
	tab := newTable(Rules{
		{NR: 5, Args: []Arg{ArgEqual32(0, 1)}},
		{NR: 5, Args: []Arg{ArgEqual32(0, 2)}, Pass: pass("conditional")},
		{NR: 5, Pass: pass("last")},
		{NR: 6, Pass: pass("first")},
		{NR: 6, Pass: pass("second")},
		{NR: 7, Do: Deny(unix.EIO), Pass: pass("denied")},
	})
	for _, tt := range []struct {
		arch     Arch
		nr       int
		arg      uint64
		want     string
		handlers int
	}{
		{Native, 5, 1, "", 2},
		{Native, 5, 2, "conditional", 2},
		{Native, 5, 3, "last", 1},
		{Native, 6, 0, "first", 2},
		{Native, 7, 0, "", 0},
		{Native, -1, 0, "", 0},
		{Native, 1000, 0, "", 0},
		{I386, 6, 0, "", 0},
	} {
		asked = ""
		of, args := tab.of(tt.arch, tt.nr), &[6]uint64{tt.arg}
		if f := of.passing(args); f != nil {
			f(nil)
		}
		if n := len(of.handlers(nil, args)); asked != tt.want || n != tt.handlers {
			t.Errorf("%s call %d(%d): asked %q, want %q; %d handlers, want %d", tt.arch, tt.nr, tt.arg, asked, tt.want, n, tt.handlers)
		}
	}
}
