// SPDX-License-Identifier: Apache-2.0

// The plug against Debian's vde_switch.

package vde_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/vde"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// need skips the test, by name, where a program is missing, unless everything was
// installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("UMRUN_TEST_FULL") == "1" {
			t.Fatalf("needs %s", p)
		}
		t.Skipf("needs %s", p)
	}
}

// start runs a program that lives as long as its standard input and no longer than
// the test.
func start(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(2*time.Second, func() { c.Process.Kill() })
		c.Process.Signal(unix.SIGTERM)
		c.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%v said:\n%s", args, out.String())
		}
	})
	return c
}

// startSwitch runs vde_switch in a directory of the test.
func startSwitch(t testing.TB, args ...string) (dir string, c *exec.Cmd) {
	t.Helper()
	need(t, "vde_switch")
	dir = filepath.Join(t.TempDir(), "sw")
	c = start(t, append([]string{"vde_switch", "-s", dir, "-M", dir + ".mgmt"}, args...)...)
	for _, f := range []string{dir + "/ctl", dir + ".mgmt"} {
		eventually(t, func() error { _, err := os.Stat(f); return err })
	}
	return dir, c
}

// console asks vde_switch's management socket.
func console(t testing.TB, dir, command string) string {
	t.Helper()
	c, err := net.Dial("unix", dir+".mgmt")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var got []byte
	until := func(s string) string {
		for !bytes.Contains(got, []byte(s)) {
			b := make([]byte, 4096)
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("console: %v after %q", err, got)
			}
			got = append(got, b[:n]...)
		}
		i := bytes.Index(got, []byte(s))
		before := string(got[:i])
		got = got[i+len(s):]
		return before
	}
	until("vde$ ")
	io.WriteString(c, command+"\n")
	return until("vde$ ")
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func parse(t testing.TB, url string) *vde.URL {
	t.Helper()
	u, err := vde.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// plug opens a link, whose frames have no offload header.
func plug(t testing.TB, url string, o ...vde.Options) stacks.Link {
	t.Helper()
	l, err := vde.OpenFrames(context.Background(), parse(t, url), append(o, vde.Options{})[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// mac is a locally administered address.
func mac(n byte) []byte { return []byte{2, 0, 0, 0, 0, n} }

var broadcast = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame makes a frame of an EtherType that is for experiments (IEEE 802).
func frame(dst, src []byte, payload string) []byte {
	f := append(append(append([]byte{}, dst...), src...), 0x88, 0xb5)
	return append(f, payload...)
}

// A listener collects what a link reads.
type listener struct {
	frames chan []byte
	done   chan struct{}
}

func listen(t testing.TB, l stacks.Link) *listener {
	r := &listener{make(chan []byte, 4096), make(chan struct{})}
	go func() {
		defer close(r.done)
		bufs, sizes := make([][]byte, l.BatchSize()), make([]int, l.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			n, err := l.Read(bufs, sizes)
			for i := range n {
				r.frames <- bytes.Clone(bufs[i][:sizes[i]])
			}
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("read: %v", err)
				}
				return
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-r.done })
	return r
}

// next returns the next frame.
func (r *listener) next(t testing.TB) []byte {
	t.Helper()
	select {
	case f := <-r.frames:
		return f
	case <-time.After(5 * time.Second):
		t.Fatal("no frame in 5 s")
		return nil
	}
}

// none sees that nothing more comes: f is sent last and must come first.
func (r *listener) want(t testing.TB, want []byte) {
	t.Helper()
	if got := r.next(t); !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes %.60x, want %d bytes %.60x", len(got), got, len(want), want)
	}
}

func write(t testing.TB, l stacks.Link, frames ...[]byte) {
	t.Helper()
	if n, err := l.Write(frames); n != len(frames) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

// names lists a directory.
func names(t testing.TB, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range es {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// TestSwitch: two plugs on vde_switch; unicast goes to whom it is for once the
// switch has learnt; the port is told by its description and freed by Close.
func TestSwitch(t *testing.T) {
	dir, _ := startSwitch(t)
	a := plug(t, "vde://"+dir+"[3]", vde.Options{Description: "the first"})
	b := plug(t, dir)
	c := plug(t, "vde://"+dir+"[/port=7]")
	la, lb, lc := listen(t, a), listen(t, b), listen(t, c)
	if got := names(t, dir); strings.Contains(got, ".0") && strings.HasPrefix(got, ".") {
		t.Errorf("our socket is still in the switch's directory: %s", got)
	}
	if out := console(t, dir, "port/allprint"); !strings.Contains(out, "the first") || !strings.Contains(out, "Port 0003") || !strings.Contains(out, "Port 0007") {
		t.Errorf("the switch lists\n%s", out)
	}
	hello := frame(broadcast, mac(1), "hello")
	write(t, a, hello)
	lb.want(t, hello)
	lc.want(t, hello)
	answer := frame(mac(1), mac(2), "answer")
	write(t, b, answer)
	la.want(t, answer)
	long := frame(mac(2), mac(1), strings.Repeat("x", 1500))
	write(t, a, long)
	lb.want(t, long)
	all := frame(broadcast, mac(1), "the end") // c has seen neither of the two
	write(t, a, all)
	lb.want(t, all)
	lc.want(t, all)
	a.Close()
	eventually(t, func() error {
		if out := console(t, dir, "port/allprint"); strings.Contains(out, "the first") {
			return fmt.Errorf("the port of a closed plug:\n%s", out)
		}
		return nil
	})
}

// TestSwitchBulk: what is written arrives, in order and as it was, many frames in a
// call.
func TestSwitchBulk(t *testing.T) {
	dir, _ := startSwitch(t)
	a, b := plug(t, dir), plug(t, dir)
	lb := listen(t, b)
	const total = 20000
	// vde_switch drops what the receiver does not take in time; the window keeps
	// that from happening, as TCP does.
	for sent := 0; sent < total; {
		var fs [][]byte
		for range 40 {
			fs = append(fs, frame(broadcast, mac(1), fmt.Sprintf("%08d", sent)+strings.Repeat("y", sent%1400)))
			sent++
		}
		write(t, a, fs...)
		for _, f := range fs {
			lb.want(t, f)
		}
	}
}

// TestSwitchRestart: a switch that is killed is a cable pulled out, and the plug is
// in again when it is back.
func TestSwitchRestart(t *testing.T) {
	dir, sw := startSwitch(t)
	a, b := plug(t, dir), plug(t, dir)
	lb := listen(t, b)
	listen(t, a)
	f := frame(broadcast, mac(1), "before")
	write(t, a, f)
	lb.want(t, f)
	sw.Process.Kill()
	sw.Wait()
	for i := range 200 { // nobody waits for room in the queue of a dead switch
		write(t, a, frame(broadcast, mac(1), fmt.Sprint("lost", i)))
	}
	start(t, "vde_switch", "-s", dir)
	eventually(t, func() error {
		write(t, a, frame(broadcast, mac(1), "after"))
		select {
		case f := <-lb.frames:
			if !bytes.HasSuffix(f, []byte("after")) {
				return fmt.Errorf("got %q", f[14:])
			}
			return nil
		case <-time.After(20 * time.Millisecond):
			return errors.New("nothing arrives after the switch is back")
		}
	})
}

// TestSwitchErrors: each error names the switch and the cause.
func TestSwitchErrors(t *testing.T) {
	dir, _ := startSwitch(t, "-n", "4")
	empty := t.TempDir()
	for _, tt := range []struct {
		name, url string
		want      error
		text      string
	}{
		{"no directory", "vde://" + empty + "/none", unix.ENOENT, "there is no VDE switch at " + empty + "/none"},
		{"no switch in it", empty, unix.ENOENT, "there is no VDE switch at"},
		{"no such port", dir + "[99]", vde.ErrRefused, "port 99 of the VDE switch at"},
		{"no such group", dir + "[nogroup]", unix.ENOENT, "no VDE switch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := vde.Open(context.Background(), parse(t, tt.url), vde.Options{})
			var se *vde.SwitchError
			if !errors.As(err, &se) || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := vde.Open(context.Background(), parse(t, dir), vde.Options{MTU: 9000}); err == nil || !strings.Contains(err.Error(), "1500 bytes") {
		t.Errorf("MTU 9000 on vde_switch: %v", err)
	}
}

// TestUmask: the switch needs to reach our socket whatever our umask is.
func TestUmask(t *testing.T) {
	dir, _ := startSwitch(t)
	old := unix.Umask(0o777)
	a, err := vde.Open(context.Background(), parse(t, dir), vde.Options{})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

// TestRelative: the switch has another working directory than we.
func TestRelative(t *testing.T) {
	dir, _ := startSwitch(t)
	t.Chdir(filepath.Dir(dir))
	a, b := plug(t, "vde://sw"), plug(t, "sw")
	lb := listen(t, b)
	f := frame(broadcast, mac(1), "relative")
	write(t, a, f)
	lb.want(t, f)
}
